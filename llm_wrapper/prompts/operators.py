"""The operators of templates, each checked before it is computed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from ..errors import TemplateTooExpensive
from .budget import DATA, ITERABLES, SCALARS, SEQUENCES, Budget, is_undefined, refuse
from .values import MAX_INT_BITS

MAX_WIDTH = 1000

NUMBERS = frozenset({bool, int, float})

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": operator.pow,
    "%": operator.mod,
}

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
}

# %s and its relatives. %c is left out: it can make characters that no database or provider takes.
CONVERSION = re.compile(r"%(?:\(([^()]*)\))?([#0\- +]*)(\d+|\*)?(?:\.(\d+|\*)?)?[hlL]?(.)?", re.DOTALL)
CONVERSIONS = frozenset("diouxXeEfFgGrs%")


def calculate(budget: Budget, sign: str, left: Any, right: Any) -> Any:
    """`left sign right`."""
    budget.step()
    a, b = type(left), type(right)
    if a in NUMBERS and b in NUMBERS:
        return _number(sign, left, right)
    for side in (left, right):
        if type(side) not in DATA:
            refuse(side, f"used with '{sign}'")
    if a is str and sign == "%":
        return budget.text(printf(budget, left, right))
    if sign == "+" and a is b and (a is str or a in SEQUENCES):
        _reserve(budget, left, len(left) + len(right))
    elif sign == "*" and b in (int, bool) and (a is str or a in SEQUENCES):
        _reserve(budget, left, len(left) * max(right, 0))
    elif sign == "*" and a in (int, bool) and (b is str or b in SEQUENCES):
        _reserve(budget, right, len(right) * max(left, 0))
    return ARITHMETIC[sign](left, right)  # what is left raises a TypeError


def _reserve(budget: Budget, value: Any, size: int) -> None:
    if type(value) is str:
        budget.grow(size)
    else:
        budget.step(size)


def _number(sign: str, left: Any, right: Any) -> Any:
    whole = type(left) is not float and type(right) is not float
    if whole and sign == "**" and right > 0 and int(left).bit_length() * right > MAX_INT_BITS * 2:
        raise _too_large()
    result = ARITHMETIC[sign](left, right)
    if type(result) is int and result.bit_length() > MAX_INT_BITS:
        raise _too_large()
    if type(result) is complex:
        raise TypeError("the root of a negative number is not a number that templates know")
    return result


def _too_large() -> TemplateTooExpensive:
    return TemplateTooExpensive(f"it makes an integer of more than {MAX_INT_BITS} bits")


def printf(budget: Budget, form: str, values: Any) -> str:
    """`form % values`, where widths and the values' texts are added up first."""
    budget.measure(values)
    total, named = len(form), type(values) is dict
    budget.split(form)
    for match in CONVERSION.finditer(form):
        name, _, width, precision, kind = match.groups()
        if kind not in CONVERSIONS:
            raise TypeError(f"'%{kind or ''}' is not a conversion that templates know; write '%%' for a percent sign")
        for digits in (width, precision):
            if digits is not None and (digits == "*" or len(digits) > 4 or int(digits) > MAX_WIDTH):
                raise TemplateTooExpensive(f"a width or precision is at most {MAX_WIDTH}, and '*' is not allowed")
            total += int(digits or 0)
        if name is not None and named and name in values:
            total += budget.measure(values[name])
        elif name is None and named and kind != "%":
            total += budget.measure(values)
    if not named:
        total += sum(budget.measure(value) for value in (values if type(values) is tuple else (values,)))
    budget.fits(total)
    return str(form % values)


def compare(budget: Budget, first: Any, *steps: Any) -> Any:
    """`first op a op b ...`: pairs of an operator's name and a function that gives the next operand."""
    result, left = True, first
    for name, following in zip(steps[::2], steps[1::2], strict=True):
        right = following()
        result = compared(budget, name, left, right)
        if not result:
            return result
        left = right
    return result


def compared(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """`left name right`, with both sides measured: comparing nested lists can take exponential time."""
    budget.step()
    if type(left) in SCALARS and type(right) in SCALARS and name in COMPARISONS:
        return COMPARISONS[name](left, right)
    for side in (left, right):
        if is_undefined(side):
            side._fail_with_undefined_error()
    budget.measure(left)
    if name in COMPARISONS:
        budget.measure(right)
        return COMPARISONS[name](left, right)
    if type(right) is dict:
        found = type(left) in SCALARS and left in right
    elif type(right) in ITERABLES:
        budget.measure(right)
        found = (type(right) is not range or type(left) in (int, bool)) and left in right
    else:
        refuse(right, "searched with 'in'")
    return found if name == "in" else not found


def cut(budget: Budget, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    budget.step()
    if type(value) is not str and type(value) not in SEQUENCES and type(value) is not range:
        refuse(value, "sliced")
    for part in (start, stop, step):
        if is_undefined(part):
            refuse(part, "an index")
    places = slice(start, stop, step)
    if type(value) is not range:
        _reserve(budget, value, len(range(*places.indices(len(value)))))
    return value[places]
