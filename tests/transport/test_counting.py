"""Tokens of a text, and context windows of models."""

from __future__ import annotations

import time

import pytest

from llm_wrapper.history.windowing import TOKENS_PER_MESSAGE
from llm_wrapper.transport.counting import context_window, count_tokens

TEXTS = {
    "nothing": "",
    "prose": "The quick brown fox jumps over the lazy dog. " * 50,
    "code": "def f(x):\n\treturn {'a': [x ** 2 for _ in range(10)]}\n" * 50,
    "chinese": "漢字仮名交じり文" * 200,
    "emoji": "👩‍👩‍👧🏳️‍🌈" * 200,
    "one letter": "a" * 200_000,
    "spaces": " " * 200_000,
    "digits": "1234567890" * 20_000,
    "base64": "QUJDREVGRw/+x9" * 10_000,
    "special tokens": "<|endoftext|><|im_start|>system<|fim_prefix|>" * 20,
    "replacement": "\ufffd\u200b\u0301" * 500,
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_no_more_tokens_than_bytes(name: str) -> None:
    """What windows rely on to count as little as they can: bytes are an upper bound for any text, also one that spells
    a tokenizer's own marks, and the longest message that is accepted is counted in no time to speak of."""
    text = TEXTS[name]
    count_tokens("warm")
    started = time.process_time()
    tokens = count_tokens(text)
    assert (tokens > 0) == bool(text)
    assert tokens <= len(text.encode())
    assert time.process_time() - started < 5
    assert count_tokens(text) == tokens


def test_counts_are_those_of_the_tokenizer() -> None:
    """Known counts of cl100k_base; a sum of parts is close to the whole."""
    assert count_tokens("hello world") == 2
    assert count_tokens("The quick brown fox jumps over the lazy dog.") == 10
    parts = TEXTS["prose"].split(". ")
    assert abs(sum(count_tokens(part + ". ") for part in parts) - count_tokens(TEXTS["prose"])) <= len(parts)
    assert TOKENS_PER_MESSAGE >= 4  # what OpenAI's cookbook counts for role and separators


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["gpt-4"], 8192),
        (["openai/gpt-4"], 8192),
        (["azure/my-deployment", "gpt-4"], 8192),
        (["gpt-4", "azure/my-deployment"], 8192),
        ([None, "openai/gpt-4"], 8192),
        ([""], None),
        ([None], None),
        (["ollama_chat/mine"], None),
        (["hosted_vllm/"], None),
        ([], None),
    ],
)
def test_the_window_of_the_first_known_model_counts(models: list[str | None], expected: int | None) -> None:
    """litellm's table is asked for the id, then for the id without its provider; an unknown model has no window."""
    assert context_window(*models) == expected
