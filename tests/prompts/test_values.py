"""Context variables become plain JSON data, or an error that names them."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections import OrderedDict, UserDict, namedtuple
from decimal import Decimal
from typing import Any

import pytest
from django.db import models
from django.utils.functional import lazy
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from llm_wrapper.errors import BadContextVariable
from llm_wrapper.prompts import plain


class Color(enum.Enum):
    RED = "red"


class Size(models.TextChoices):
    SMALL = "s", "Small"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __str__


Point = namedtuple("Point", "x y")
NOW = dt.datetime(2025, 1, 2, 3, 4, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (2.5, 2.5),
        ("x", "x"),
        ("é😀", "é😀"),
        (gettext_lazy("Yes"), "Yes"),
        (lazy(lambda: 5, int)(), "5"),
        (mark_safe("<b>"), "<b>"),
        (Loud("a"), "a"),
        (Decimal("1.50"), "1.50"),
        (NOW, "2025-01-02T03:04:00+00:00"),
        (NOW.date(), "2025-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(days=1), "P1DT00H00M00S"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Color.RED, "red"),
        (Size.SMALL, "s"),
        (Level.HIGH, 3),
        ([1, (2, [3])], [1, [2, [3]]]),
        (Point(1, 2), [1, 2]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        ({"a": {1: Color.RED}}, {"a": {"1": "red"}}),
        (OrderedDict(a=1), {"a": 1}),
        ({NOW.date(): 1}, {"2025-01-02": 1}),
        ({Color.RED: 1}, {"red": 1}),
    ],
)
def test_plain_values(value: Any, result: Any) -> None:
    """Each kind of data becomes the JSON value that it stands for, of an exact built-in type."""
    copy = plain({"x": value})["x"]
    assert copy == result
    assert type(copy) is type(result)
    assert json.loads(json.dumps(copy)) == copy


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "'x' is a object"),
        (print, "'x' is a builtin_function_or_method"),
        (int, "'x' is a type"),
        (b"x", "'x' is a bytes"),
        (iter([1]), "list_iterator"),
        ({"a": [1, object()]}, r"'x\.a\[1\]'"),
        (UserDict(a=1), "UserDict"),
        ({}.keys(), "dict_keys"),
        (float("nan"), "JSON cannot hold"),
        (float("inf"), "JSON cannot hold"),
        (2**2000, "1024 bits"),
        ("a\x00b", "NUL"),
        ("\ud800", "surrogate"),
        ({"a\x00": 1}, "NUL"),
        ({(1, 2): 1}, "key"),
        ({1: 1, "1": 2}, "the same as text"),
        (1j, "complex"),
        ([0] * 100_001, "too large"),
        ("x" * 5_000_001, "longer than 5000000"),
    ],
)
def test_e1_what_is_not_data_is_refused_by_name(value: Any, says: str) -> None:
    """Anything else is refused with the name and place of the variable."""
    with pytest.raises(BadContextVariable, match=says):
        plain({"ok": 1, "x": value})


def test_e2_deep_and_endless_data_is_refused() -> None:
    """Data inside itself, or nested too deeply, ends in an error and not in a recursion."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadContextVariable, match="too large"):
        plain({"x": endless})
    wide: list[Any] = [1]
    for _ in range(18):
        wide = [wide, wide]
    with pytest.raises(BadContextVariable, match="too large"):
        plain({"x": wide})


def test_names_are_text() -> None:
    """A context with a key that is not text is refused."""
    with pytest.raises(BadContextVariable, match="Names"):
        plain({1: 2})  # type: ignore[dict-item]


def test_plain_copies() -> None:
    """What templates and chats get is not the caller's own list."""
    mine = [1]
    assert plain({"x": mine})["x"] is not mine
