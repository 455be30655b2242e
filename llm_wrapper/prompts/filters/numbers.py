"""Filters that give numbers."""

from __future__ import annotations

import math
from typing import Any

from ..operators import calculate
from .registry import getter, template_filter

MAX_PRECISION = 300
MAX_DIGITS = 400


@template_filter("abs")
def abs_(context: Any, value: Any) -> Any:
    return abs(value)


@template_filter("int")
def int_(context: Any, value: Any, default: int = 0, base: int = 10) -> Any:
    if type(value) is str and len(value) > MAX_DIGITS:
        return default
    try:
        return int(value, base) if type(value) is str else int(value)
    except (TypeError, ValueError, OverflowError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


@template_filter("float")
def float_(context: Any, value: Any, default: float = 0.0) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


@template_filter("round")
def round_(context: Any, value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > MAX_PRECISION:
        raise TypeError(f"round takes a precision of at most {MAX_PRECISION}")
    if method == "common":
        return round(value, precision)
    if method not in ("ceil", "floor"):
        raise TypeError("method is common, ceil or floor")
    return getattr(math, method)(value * 10**precision) / 10**precision


@template_filter("sum")
def sum_(context: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    get, total = getter(context, attribute), start
    for item in context.budget.take(value):
        total = calculate(context.budget, "+", total, get(item))
    return total
