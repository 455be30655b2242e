"""Stacked bars by day, as the shapes that a template draws as SVG. Nothing is loaded for it, and no script runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal

WIDTH, HEIGHT = 960, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 4, 12, 26
_LABELS = 8
_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


@dataclass(frozen=True)
class Bar:
    """One colour of one day; `series` is its number, from 0 at the foot of the bar."""

    x: str
    y: str
    width: str
    height: str
    series: int


@dataclass(frozen=True)
class Mark:
    """A label of an axis and where it stands: `at` is x or y."""

    at: str
    text: str


@dataclass(frozen=True)
class Column:
    """All of a day: its bars, the area that shows its title, and the title."""

    x: str
    width: str
    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Chart:
    columns: Sequence[Column]
    lines: Sequence[Mark]
    days: Sequence[Mark]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def stacked(
    days: Sequence[date],
    series: Sequence[tuple[str, Sequence[Decimal]]],
    number: Callable[[Decimal], str],
) -> Chart:
    """A bar for each day. `series` are pairs of name and one value of 0 or more for each day, and the first one
    stands at the foot; `number` is how a value is written."""
    sums = [sum((values[index] for _, values in series), Decimal(0)) for index in range(len(days))]
    step, top = scale(max(sums, default=Decimal(0)))
    plot = Decimal(HEIGHT - _TOP - _BOTTOM)
    slot = Decimal(WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    bar = min(slot * Decimal("0.78"), Decimal(56))

    def y(value: Decimal) -> Decimal:
        return HEIGHT - _BOTTOM - value / top * plot

    columns, marks = [], []
    every = -(-len(days) // _LABELS)
    for index, day in enumerate(days):
        left = _LEFT + slot * index
        foot, bars = Decimal(0), []
        for place, (_, values) in enumerate(series):
            if value := values[index]:
                start, foot = foot, foot + value
                height = y(start) - y(foot)
                bars.append(Bar(_px(left + (slot - bar) / 2), _px(y(foot)), _px(bar), _px(height), place))
        parts = [f"{name}: {number(values[index])}" for name, values in series if values[index]]
        title = "\n".join([f"{day:%a} {day}: {number(foot)}", *(parts if len(parts) > 1 else [])])
        columns.append(Column(_px(left), _px(slot), title, bars))
        # Counted from the last day, so that the newest one always has its date.
        if (len(days) - 1 - index) % every == 0:
            marks.append(Mark(_px(left + slot / 2), f"{day.day} {day:%b}"))
    lines = [Mark(_px(y(step * count)), number(step * count)) for count in range(int(top / step) + 1)]
    return Chart(columns, lines, marks)


def scale(highest: Decimal) -> tuple[Decimal, Decimal]:
    """A round step for three to five lines, and the top line, which no value is above."""
    if not highest:
        return Decimal(1), Decimal(1)
    rough = highest / 4
    power = Decimal(1).scaleb(rough.adjusted())
    step = next(power * factor for factor in _STEPS if power * factor >= rough)
    return step, (highest / step).to_integral_value(ROUND_CEILING) * step


def _px(value: Decimal) -> str:
    # Text: a template would write a number in the language's own way, with a comma in half of them.
    return f"{value:.2f}"
