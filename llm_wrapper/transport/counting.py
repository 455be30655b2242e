"""How many tokens a text has, and how many a model takes."""

from __future__ import annotations

from functools import lru_cache

from .library import litellm


def count_tokens(text: str) -> int:
    """Tokens of a text by litellm's default tokenizer (cl100k_base). Other models' tokenizers come close to it for
    most text; leave a margin."""
    return int(litellm().token_counter(model="", text=text)) if text else 0


@lru_cache(maxsize=256)
def context_window(*models: str | None) -> int | None:
    """The context window in tokens of the first of the models that litellm's table knows; None where it knows none."""
    table = litellm().model_cost
    for model in models:
        for name in (model, (model or "").partition("/")[2]):
            found = table.get(name, {}) if name else {}
            tokens = found.get("max_input_tokens") or found.get("max_tokens")
            if isinstance(tokens, int):
                return tokens
    return None
