"""Numbers and JSON as people read them. What is not known is said to be unknown, never shown as 0."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any

UNKNOWN = "unknown"


def cost(value: Decimal | None, unpriced_calls: int = 0) -> str:
    """A cost without its trailing zeros; `unpriced_calls` are those whose cost the sum lacks."""
    if value is None:
        return UNKNOWN
    text = f"{value.normalize():f}" if value else "0"
    if not unpriced_calls:
        return text
    return f"{text} + unknown" if value else UNKNOWN


def count(value: int | None) -> str:
    """A count with thousands apart: 12 345."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds(value: float | None) -> str:
    """A duration: 840 ms, 2.31 s, 3 min 5 s."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.2f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def pretty(value: Any) -> str:
    """A value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def pretty_text(text: str) -> str:
    """JSON text indented; any other text as it stands."""
    try:
        return pretty(json.loads(text))
    except (ValueError, RecursionError):
        return text


def money(value: Decimal) -> str:
    """A sum of costs, short enough to compare: 1 234.56, 0.85, 0.0042."""
    places = 2 if value >= 1 or not value else min(10, 1 - value.adjusted())
    return f"{value:,.{places}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def short(value: Decimal) -> str:
    """A large number in three digits: 950, 12.3k, 4.56M."""
    rounded = Context(prec=3).plus(value)
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if rounded >= size:
            return f"{(rounded / size).normalize():f}{unit}"
    return f"{rounded.normalize():f}"
