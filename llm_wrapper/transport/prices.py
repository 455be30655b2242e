"""What a call cost, as exactly as it can be known, and where the price is from."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any

from llm_wrapper.types import ModelRequest, Price, Usage

from .library import litellm

# The places that costs are stored with, so that a reply's cost is the sum of its rows.
PLACES = Decimal("1e-10")


def price(request: ModelRequest, usage: Usage, raw_usage: Any = None) -> tuple[Decimal | None, str]:
    """Cost of a call and the source of its price; (None, '') where it cannot be known.

    The YAML's price comes first, then the price map that litellm carries. `raw_usage` is litellm's own usage
    object; it tells apart cached and other tokens whose prices differ.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None, ""
    if request.config.price is not None:
        return _from_yaml(request.config.price, usage).quantize(PLACES), "config"
    module = litellm()
    try:
        cost_in, cost_out = module.cost_per_token(
            model=request.config.price_model or request.config.model,
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            usage_object=raw_usage,
        )
    except (module.exceptions.ModelNotMappedError, module.exceptions.BadRequestError, module.exceptions.NotFoundError):
        return None, ""
    # litellm counts in floats: 11 tokens at 1.5e-7 are 1.6499999999999998e-06.
    return (Decimal(repr(cost_in)) + Decimal(repr(cost_out))).quantize(PLACES), f"litellm {_litellm_version()}"


def _from_yaml(prices: Price, usage: Usage) -> Decimal:
    tokens_in, tokens_out = usage.input_tokens or 0, usage.output_tokens or 0
    cached = min(usage.cached_tokens or 0, tokens_in)
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    total = prices.input * (tokens_in - cached) + cached_price * cached + prices.output * tokens_out
    return total / 1_000_000


@cache
def _litellm_version() -> str:
    return version("litellm")
