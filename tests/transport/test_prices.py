import random
import re
import socket
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version

import pytest

from llm_wrapper.transport.library import litellm
from llm_wrapper.transport.prices import PLACES, price
from llm_wrapper.types import Price, Usage

from .conftest import DOORS
from .provider import says


@pytest.mark.parametrize("door", DOORS)
def test_c11_a_known_model_has_its_price_from_the_table(provider, ask, door):
    """11 tokens in and 7 out of gpt-4o-mini (0.15 and 0.60 a million) cost exactly 0.00000585."""
    provider.answers = [says("Hello.")]
    completion = ask(door)[1]
    assert completion.cost == Decimal("0.00000585")
    assert completion.price_source.startswith("litellm 1.")


@pytest.mark.parametrize("door", DOORS)
def test_c11_cached_tokens_have_their_own_price(provider, ask, door):
    """What the provider read from its cache costs what the table says of cached tokens."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    provider.answers = [says("Hello.", usage={**usage, "prompt_tokens_details": {"cached_tokens": 800}})]
    assert ask(door)[1].cost == Decimal("0.000096")


@pytest.mark.parametrize("model", ["openai/no-such-model", "hosted_vllm/mine", "azure/my-deployment", "demo/x"])
def test_c11_an_unknown_price_is_none(make_request, model):
    """A model without a price has no cost, rather than a cost of 0."""
    assert price(make_request(model), Usage(11, 7)) == (None, "")


def test_a_deployment_may_name_its_model(make_request):
    """`price_model` gives a private name the price of the model behind it."""
    request = make_request("azure/my-deployment", price_model="azure/gpt-4o-mini")
    assert price(request, Usage(1_000_000, 0))[0] == Decimal("0.15")


def test_the_yamls_price_wins(make_request):
    """A price in the config is used instead of the table's, in exact decimals."""
    override = Price(input=Decimal("1.00"), output=Decimal("3.00"))
    cost, source = price(make_request(price=override), Usage(11, 7, cached_tokens=5))
    assert (cost, source) == (Decimal("0.000032"), "config")


def test_the_yamls_price_of_cached_tokens(make_request):
    """Cached tokens are counted once, at their own price, and never more of them than there are tokens."""
    override = Price(input=Decimal(1), output=Decimal(3), cached_input=Decimal("0.25"))
    assert price(make_request(price=override), Usage(11, 7, cached_tokens=4))[0] == Decimal("0.000029")
    assert price(make_request(price=override), Usage(4, 0, cached_tokens=40))[0] == Decimal("0.000001")


def test_costs_have_the_places_of_their_column(make_request):
    """Costs are rounded to what the database holds, so that a sum of rows equals the sum of replies."""
    override = Price(input=Decimal("0.000333"), output=Decimal(0))
    assert price(make_request(price=override), Usage(1, 1))[0] == Decimal("0.0000000003")


@pytest.mark.parametrize("tokens", [(0, 0, 0), (100, 20, 0), (100, 0, 0)])
def test_cache_writes_have_their_own_price(make_request, tokens):
    """What the provider put into its cache costs `cache_write`, else what input does, and each token once."""
    written, cached, _ = tokens
    details = {"cached_tokens": cached, "cache_creation_tokens": written}
    raw = litellm().Usage(prompt_tokens=200, completion_tokens=0, total_tokens=200, prompt_tokens_details=details)
    usage = Usage(200, 0, cached_tokens=cached)
    prices = Price(input=Decimal(4), output=Decimal(1), cached_input=Decimal("0.5"), cache_write=Decimal(5))
    expected = (4 * (200 - cached - written) + Decimal("0.5") * cached + 5 * written) / 1_000_000
    assert price(make_request(price=prices), usage, raw)[0] == expected
    without = Price(input=Decimal(4), output=Decimal(1), cached_input=Decimal("0.5"))
    assert (
        price(make_request(price=without), usage, raw)[0] == (4 * (200 - cached) + Decimal("0.5") * cached) / 1_000_000
    )


def test_reasoning_has_its_own_price(make_request):
    """Reasoning tokens are output tokens: at `reasoning` where it is given, never twice, never more than there are."""
    prices = Price(input=Decimal(0), output=Decimal(8), reasoning=Decimal(2))
    assert price(make_request(price=prices), Usage(0, 100, reasoning_tokens=60))[0] == Decimal("0.00044")
    assert price(make_request(price=prices), Usage(0, 100, reasoning_tokens=600))[0] == Decimal("0.0002")
    without = Price(input=Decimal(0), output=Decimal(8))
    assert price(make_request(price=without), Usage(0, 100, reasoning_tokens=60))[0] == Decimal("0.0008")


@pytest.mark.parametrize(
    "model",
    ["anthropic/claude-sonnet-99", "gemini/gemini-99-pro", "heroku/claude-4-sonnet", "ollama_chat/llama3", "ollama/x"],
)
def test_c11_a_model_without_a_listed_price_is_unknown_and_not_free(make_request, model):
    """litellm answers 0 for models that it guesses to exist, or lists without a price. That 0 is not a price."""
    assert price(make_request(model), Usage(1000, 1000)) == (None, "")


def test_a_model_that_is_listed_as_free_costs_nothing(make_request):
    """A price of 0 that the table states is a price."""
    cost, source = price(make_request("cloudflare/@cf/google/gemma-7b-it-lora"), Usage(1000, 1000))
    assert cost == 0
    assert source


def test_the_price_of_a_local_model_is_not_asked_of_a_server(make_request, monkeypatch):
    """Pricing is arithmetic: it opens no connection, also not to an Ollama server that may run on this machine."""

    def refuse(*args):
        raise AssertionError("a price was asked of the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert price(make_request("ollama_chat/mine"), Usage(5, 5)) == (None, "")
    assert price(make_request("openai/gpt-4o-mini"), Usage(5, 5))[0] == Decimal("0.00000375")


def test_the_source_names_the_table_and_its_date(make_request):
    """A cost says which release of the table it is from, and by which day that release was there."""
    source = price(make_request(), Usage(11, 7))[1]
    assert re.fullmatch(rf"litellm {re.escape(version('litellm'))} \(installed 20\d\d-\d\d-\d\d\)", source)


def test_a_fetched_table_is_named_with_its_day(make_request, monkeypatch):
    """A map that litellm fetched is not that of the release, and the source says so."""
    from litellm.litellm_core_utils import get_model_cost_map

    monkeypatch.setattr(get_model_cost_map._cost_map_source_info, "source", "remote")
    monkeypatch.setattr(get_model_cost_map._cost_map_source_info, "loaded_at", datetime(2026, 11, 3, 9, 0))
    assert price(make_request(), Usage(11, 7))[1] == "litellm's map, fetched 2026-11-03"


# Providers whose rules are more than one price for each kind of token; what is asserted below does not hold for them.
OWN_RULES = ("fireworks", "perplexity", "aihubmix", "copilot", "dashscope", "ollama")
SIMPLE = {"input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"}


def test_costs_are_what_decimals_give_across_the_table(make_request):
    """litellm counts in floats. Rounded to the column's places, its costs are those of exact decimal arithmetic, for
    every model of the table that has plain prices and for small and large counts."""
    draw = random.Random(11)
    checked = 0
    for name, entry in litellm().model_cost.items():
        provider, priced = entry.get("litellm_provider", ""), {key for key in entry if "cost" in key}
        prices = [entry.get(key) for key in ("input_cost_per_token", "output_cost_per_token")]
        if entry.get("mode") != "chat" or not priced <= SIMPLE or not all(prices) or entry.get("off_peak_pricing"):
            continue
        if any(word in provider for word in OWN_RULES) or not name.startswith(f"{provider}/"):
            continue
        of_in, of_out = (Decimal(repr(float(value))) for value in prices)
        cached_price = entry.get("cache_read_input_token_cost")
        of_cached = of_in if cached_price is None else Decimal(repr(float(cached_price)))
        tokens_in, tokens_out = draw.randrange(1, 10 ** draw.randrange(1, 7)), draw.randrange(10**5)
        cached = draw.randrange(tokens_in + 1)
        raw = litellm().Usage(
            prompt_tokens=tokens_in,
            completion_tokens=tokens_out,
            total_tokens=tokens_in + tokens_out,
            prompt_tokens_details={"cached_tokens": cached},
        )
        exact = (of_in * (tokens_in - cached) + of_cached * cached + of_out * tokens_out).quantize(PLACES)
        found = price(make_request(name), Usage(tokens_in, tokens_out, cached), raw)[0]
        if found is not None:
            assert found == exact, (name, tokens_in, cached, tokens_out)
            checked += 1
    assert checked > 300
