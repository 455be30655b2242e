"""Types of values and the words for what is wrong with them."""

import pytest

from llm_wrapper.configs import schema
from llm_wrapper.configs.parse import Plain, dotted

from .conftest import CANARY


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1", "integer", 1),
        ("-3", "integer", -3),
        ("1.5", "number", 1.5),
        ("1e-3", "number", 0.001),
        ("2", "number", 2),
        ("true", "boolean", True),
        ("FALSE", "boolean", False),
        ("1.10", "string", "1.10"),
        ("2024-01-01", "string", "2024-01-01"),
        ("true", "string", "true"),
        # What does not fit stays text, for the schema to refuse.
        ("yes", "boolean", "yes"),
        ("1.5", "integer", "1.5"),
        ("010", "integer", "010"),
        (".nan", "number", ".nan"),
        ("inf", "number", "inf"),
        ("1e999", "number", "1e999"),
        ("9" * 5000, "integer", "9" * 5000),
    ],
)
def test_unquoted_text_is_read_as_the_schema_asks(text, kind, value):
    """The schema decides the type, so that `api_version: 1.10` is text and `weight: 1.10` a number."""
    read = schema.coerce({"key": Plain(text)}, {"properties": {"key": {"type": kind}}})["key"]
    assert read == value
    assert type(read) is type(value)


def test_quoted_text_stays_text():
    """A quoted number is text, also where a number is asked for."""
    assert schema.coerce({"key": "1"}, {"properties": {"key": {"type": "number"}}}) == {"key": "1"}


def test_values_without_a_schema_are_what_they_look_like():
    """`params` goes to a provider with numbers and booleans as such, and dates and `no` as text."""
    values = {"params": {"a": Plain("1"), "b": [Plain("0.5"), Plain("true")], "c": Plain("no"), "d": None}}
    assert schema.coerce(values, {"properties": {"params": {"type": "object"}}}) == {
        "params": {"a": 1, "b": [0.5, True], "c": "no"}
    }


@pytest.mark.parametrize("key", ["prompt_cache_key", "max_completion_tokens", "logit_bias", "seed", "top_p"])
def test_ordinary_params_do_not_look_secret(key):
    """Parameters that providers know may be set."""
    assert not list(schema.check_params({key: 1}))


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": CANARY},
        {"aws_secret_access_key": CANARY},
        {"extra_body": {"auth": {"password": CANARY}}},
        {"extra_body": [{"azure_ad_token": CANARY}]},
        {"base_url": "https://example.com"},
        {"messages": []},
        {"num_retries": 3},
    ],
)
def test_params_hold_no_secret_and_nothing_set_elsewhere(params):
    """`params` is stored and shown: a secret in it is refused at any depth, and so is what the turn sets."""
    found = list(schema.check_params(params))
    assert found
    assert "CANARY" not in str(found)


def test_an_unknown_key_gets_the_nearest_known_one():
    """A slip of the pen is told what was meant."""
    path, reason = schema.unknown_key((), "api_keey", ["api_key", "endpoint"])
    assert dotted(path) == "api_keey"
    assert "did you mean api_key?" in reason


def test_an_unknown_key_that_is_no_word_is_not_repeated():
    """A key pasted in front of a colon must not reach a log."""
    path, _ = schema.unknown_key((), CANARY + "x", ["api_key"])
    assert "CANARY" not in dotted(path)
