"""Rules of the text that a model, or the log, gets of a tool's outcome."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest

from llm_wrapper.tools import unknown_tool
from llm_wrapper.tools.result import NotText, as_text, done, failed, mask, plain_json, trace


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (5, "5"),
        (None, "null"),
        (True, "true"),
        ({"a": [1, "ü"]}, '{"a": [1, "ü"]}'),
        ((1, 2), "[1, 2]"),
        (Decimal("9.90"), '"9.90"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.datetime(2026, 1, 2, 3), '"2026-01-02 03:00:00"'),
        ({"id": uuid.UUID(int=1)}, '{"id": "00000000-0000-0000-0000-000000000001"}'),
    ],
)
def test_a_result_is_text_or_json(value: Any, text: str) -> None:
    """Text goes out as it is, plain data as JSON with its letters readable."""
    assert as_text(value, 1000) == text
    result = done(value, 1000)
    assert result.ok
    assert json.loads(result.content) == {"status": "OK", "message": text}
    assert "\\u" not in result.content


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("nan"), float("inf"), {(1, 2): 3}, print, [object()]])
def test_anything_else_is_not_a_result(value: Any) -> None:
    """An object whose text would mean nothing to a model is an error, not its repr."""
    with pytest.raises(NotText):
        as_text(value, 1000)


def test_f10_a_result_is_bounded_and_says_so() -> None:
    """A long result is cut at the limit with a note, also where the limit is tiny."""
    for value in ("x" * 5000, ["x" * 5000], list(range(5000))):
        text = as_text(value, 200)
        assert len(text) == 200
        assert text.endswith("[The result was cut here, at 200 characters.]")
    assert len(as_text("x" * 50, 10)) == 10
    assert as_text("x" * 10, 10) == "x" * 10


def test_a_small_value_that_refers_to_itself_stays_bounded() -> None:
    """A list of lists of lists, shared a billion times, ends at the limit and not in memory."""
    laughs: list[Any] = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    assert len(as_text(laughs, 1000)) == 1000
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(NotText):
            as_text(value, 100_000_000)


def test_a_lone_surrogate_does_not_reach_the_database() -> None:
    """Text that UTF-8 cannot hold is replaced."""
    assert done("a\ud800b", 100).content.encode() == b'{"status": "OK", "message": "a?b"}'


def test_s1_c_an_unknown_tool_names_the_known_ones() -> None:
    """A model that invents a tool is told which there are, in bounded words."""
    result = unknown_tool("refnd" * 100, ["refund", "find_orders"])
    assert (result.status, result.code) == ("refused", "unknown_tool")
    assert "refund, find_orders" in result.content
    assert len(result.content) < 300
    assert "no tools" in unknown_tool("x", []).content


def test_a_failure_is_json_with_a_status() -> None:
    """The model gets {"status": "Failed", "message": ...}."""
    result = failed("No ü")
    assert result.content == '{"status": "Failed", "message": "No ü"}'
    assert (result.status, result.code, result.ok) == ("failed", "tool_error", False)


def test_values_of_context_params_are_masked() -> None:
    """Plain values, nested ones too, are taken out of a message; words that merely contain one stay."""
    secrets = {
        "id": 7,
        "token": "s3cret-token",
        "deep": {"list": [Decimal("12.50"), "it's"]},
        "flag": True,
        "no": None,
    }
    text = "user 7 of 1978 has xs3cret-tokenx, 12.50, it's True None"
    assert mask(text, secrets) == "user [hidden] of 1978 has x[hidden]x, [hidden], [hidden] True None"
    assert mask(text, {}) == text
    assert mask("aaa", {"a": "", "b": " "}) == "aaa"


def test_a_trace_tells_causes_and_no_secret() -> None:
    """The log gets the frames and messages of the whole chain, without values of context params."""
    try:
        try:
            raise KeyError("s3cret-token")
        except KeyError as error:
            raise ValueError("bad s3cret-token" + "x" * 5000) from error
    except ValueError as error:
        text = trace(error, {"token": "s3cret-token"})
    assert "ValueError: bad [hidden]" in text
    assert "KeyError: '[hidden]'" in text
    assert "test_result.py" in text
    assert "s3cret-token'" not in text.replace('KeyError("s3cret-token")', "")
    assert len(text) < 4000


@pytest.mark.parametrize(
    ("value", "plain"), [({"a": [1]}, True), ((1,), False), ({1: 2}, False), (float("nan"), False)]
)
def test_plain_json_comes_back_as_it_was(value: Any, plain: bool) -> None:
    """Only what JSON gives back unchanged may be stored as JSON."""
    assert plain_json(value) is plain
