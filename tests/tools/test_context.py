"""Rules of what the model sees of a tool."""

from __future__ import annotations

import pytest

from llm_wrapper.tools import visible_spec
from llm_wrapper.tools.context import by_plain_name, is_dunder, plain_name, spelling

from .shop import tool


def test_context_params_are_cut_in_every_spelling() -> None:
    """The model sees no parameter that is listed, has a server default, or is written `__name__`."""
    properties = {name: {"type": "string"} for name in ("city", "user_id", "__token__", "LIMIT", "_plan_")}
    stored = tool("def f(): pass", properties, context_params=("user_id", "plan"), defaults={"limit": 5})
    before = repr(stored)
    assert visible_spec(stored) == {
        "type": "function",
        "function": {
            "name": "f",
            "description": "A tool.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    assert repr(stored) == before


def test_a_spec_without_parameters_gets_an_empty_object() -> None:
    """Providers refuse a function without parameters, so there is always a schema."""
    spec = visible_spec(tool("def f(): pass", spec={"name": "f"}))
    assert spec["function"]["parameters"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("name", "plain"),
    [("__a__", "a"), ("a", "a"), ("_a_", "_a_"), ("__a", "__a"), ("____", "____"), ("___a___", "_a_")],
)
def test_only_one_pair_of_underscores_is_taken_off(name: str, plain: str) -> None:
    """`__name__` names the context variable `name`; no other spelling does."""
    assert plain_name(name) == plain
    assert is_dunder(name) == (plain != name)


@pytest.mark.parametrize(
    "name",
    [
        "user_id",
        "__user_id__",
        "USER_ID",
        "_user_id",
        "user_id___",
        "\uff55ser_id",
        "user\uff3fid",
        "u\u017fer_id",
    ],
)
def test_spellings_of_one_name_are_one(name: str) -> None:
    """Case, compatibility forms and outer underscores do not hide a name."""
    assert spelling(name) == "user_id"


def test_a_plain_key_wins_over_a_dunder_one() -> None:
    """Context variables may be written either way, and mean the same."""
    assert by_plain_name({"__a__": 1, "b": 2}) == {"a": 1, "b": 2}
    assert by_plain_name({"a": 1, "__a__": 2}) == by_plain_name({"__a__": 2, "a": 1}) == {"a": 1}
