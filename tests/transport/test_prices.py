from decimal import Decimal

import pytest

from llm_wrapper.transport.prices import price
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
