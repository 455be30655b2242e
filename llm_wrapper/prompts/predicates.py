"""The tests of templates (`x is odd`). Jinja's own are replaced: `'%9999d' is odd` formats a string there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from jinja2.utils import pass_context

from .budget import DATA, ITERABLES, SEQUENCES, is_undefined, refuse
from .operators import NUMBERS, compared

TESTS: dict[str, Callable[..., Any]] = {}


def _test(function: Callable[..., bool], *names: str) -> None:
    """Registers a test on a value that is defined and data."""

    @pass_context
    @wraps(function)
    def call(context: Any, value: Any, *args: Any) -> bool:
        context.budget.step()
        for part in (value, *args):
            if type(part) not in DATA:
                refuse(part, f"tested with 'is {names[0]}'")
        return function(value, *args)

    TESTS.update(dict.fromkeys(names, call))


def _comparison(operation: str, *names: str) -> None:
    @pass_context
    def call(context: Any, value: Any, other: Any) -> bool:
        return bool(compared(context.budget, operation, value, other))

    TESTS.update(dict.fromkeys(names, call))


def _number(value: Any) -> Any:
    if type(value) not in NUMBERS:
        raise TypeError(f"a number is needed, not a {type(value).__name__}")
    return value


TESTS["defined"] = lambda value: not is_undefined(value)
TESTS["undefined"] = lambda value: is_undefined(value)

_test(lambda value: value is None, "none")
_test(lambda value: type(value) is bool, "boolean")
_test(lambda value: value is True, "true")
_test(lambda value: value is False, "false")
_test(lambda value: type(value) is int, "integer")
_test(lambda value: type(value) is float, "float")
_test(lambda value: type(value) in NUMBERS, "number")
_test(lambda value: type(value) is str, "string")
_test(lambda value: type(value) is dict, "mapping")
_test(lambda value: type(value) in ITERABLES, "iterable")
_test(lambda value: type(value) in SEQUENCES or type(value) in (str, range, dict), "sequence")
_test(lambda value: type(value) is str and value.islower(), "lower")
_test(lambda value: type(value) is str and value.isupper(), "upper")
_test(lambda value: _number(value) % 2 == 1, "odd")
_test(lambda value: _number(value) % 2 == 0, "even")
_test(lambda value, by: _number(value) % _number(by) == 0, "divisibleby")
_test(lambda value, other: value is other, "sameas")

_comparison("eq", "==", "eq", "equalto")
_comparison("ne", "!=", "ne")
_comparison("gt", ">", "gt", "greaterthan")
_comparison("gteq", ">=", "ge")
_comparison("lt", "<", "lt", "lessthan")
_comparison("lteq", "<=", "le")
_comparison("in", "in")
