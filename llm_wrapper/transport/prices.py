"""What a call cost, as exactly as it can be known, and where the price is from."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import cache
from importlib.metadata import distribution
from typing import Any

from llm_wrapper.types import ModelRequest, Price, Usage

from .library import litellm

# The places that costs are stored with, so that a reply's cost is the sum of its rows.
PLACES = Decimal("1e-10")
MILLION = 1_000_000
_DIGITS = Context(prec=14)  # of a float's 15 to 17, those that sums and products of floats get right
_TABLE = "model_prices_and_context_window_backup.json"


def price(request: ModelRequest, usage: Usage, raw_usage: Any = None) -> tuple[Decimal | None, str]:
    """Cost of a call and the source of its price; (None, '') where it cannot be known.

    The YAML's price comes first, then the price table that litellm carries, in US dollars. `raw_usage` is litellm's
    own usage object; it tells apart tokens whose prices differ, such as those read from a cache or written to it.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None, ""
    if request.config.price is not None:
        return _from_yaml(request.config.price, usage, _cache_writes(raw_usage)).quantize(PLACES), "config"
    cost = _from_table(request.config.price_model or request.config.model, usage, raw_usage)
    return (None, "") if cost is None else (cost, _source())


def _from_yaml(prices: Price, usage: Usage, written: int) -> Decimal:
    """Each token once, at the price of what it is; a part never holds more tokens than the whole does."""
    tokens_in, tokens_out = usage.input_tokens or 0, usage.output_tokens or 0
    cached = min(usage.cached_tokens or 0, tokens_in)
    written = min(written, tokens_in - cached)
    reasoning = min(usage.reasoning_tokens or 0, tokens_out)
    total = prices.input * (tokens_in - cached - written) + prices.output * (tokens_out - reasoning)
    total += (prices.input if prices.cached_input is None else prices.cached_input) * cached
    total += (prices.input if prices.cache_write is None else prices.cache_write) * written
    total += (prices.output if prices.reasoning is None else prices.reasoning) * reasoning
    return total / MILLION


def _cache_writes(raw_usage: Any) -> int:
    """Input tokens that the provider put into its cache; they are part of the input tokens."""
    details = getattr(raw_usage, "prompt_tokens_details", None)
    for name in ("cache_write_tokens", "cache_creation_tokens"):
        count = getattr(details, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return 0


def _from_table(model: str, usage: Usage, raw_usage: Any) -> Decimal | None:
    # What one runs oneself has no list price, and litellm would ask a server on this machine for one.
    if model.startswith(("ollama/", "ollama_chat/")):
        return None
    module = litellm()
    try:
        cost_in, cost_out = module.cost_per_token(
            model=model,
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            usage_object=raw_usage,
        )
        if (usage.input_tokens and not cost_in) or (usage.output_tokens and not cost_out):
            # litellm also says 0 for a model that is listed without a price, and for one that it guesses to exist.
            entry = module.model_cost.get(module.get_model_info(model)["key"], {})
            if not _is_free(entry, "input", cost_in) or not _is_free(entry, "output", cost_out):
                return None
    except (module.exceptions.ModelNotMappedError, module.exceptions.BadRequestError, module.exceptions.NotFoundError):
        return None
    # litellm counts in floats: 11 tokens at 1.5e-7 are 1.6499999999999998e-06. Their error is in the last digits, and
    # without those the cost is what decimals give (tests/transport/test_prices.py tries the whole table).
    return _DIGITS.plus(Decimal(repr(cost_in)) + Decimal(repr(cost_out))).quantize(PLACES)


def _is_free(entry: Any, side: str, cost: float) -> bool:
    """Whether a cost of 0 is what the table says; true for any other cost."""
    return bool(cost) or entry.get(f"{side}_cost_per_token") is not None or bool(entry.get("tiered_pricing"))


def _source() -> str:
    """The table and its date: `litellm 1.106.2 (installed 2026-11-21)`. It cannot be newer than that day."""
    from litellm.litellm_core_utils.get_model_cost_map import get_model_cost_map_source_info

    info = get_model_cost_map_source_info()
    if info["source"] == "remote":  # LITELLM_LOCAL_MODEL_COST_MAP=False: fetched when the process began
        return f"litellm's map, fetched {str(info['loaded_at'])[:10]}"
    return _installed()


@cache
def _installed() -> str:
    """litellm's release and the day on which it came here. Its releases themselves carry no date."""
    found = distribution("litellm")
    changed = datetime.fromtimestamp(found.locate_file(f"litellm/{_TABLE}").stat().st_mtime, UTC)  # type: ignore[attr-defined]
    # Reproducible images set every file to a day of 1970 or 1980.
    date = f" (installed {changed:%Y-%m-%d})" if changed.year > 2020 else ""
    return f"litellm {found.version}{date}"
