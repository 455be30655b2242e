"""Stacked bars as shapes."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from llm_wrapper.admin.charts import scale as scale_of
from llm_wrapper.admin.charts import stacked

DAYS = [date(2026, 5, 1) + timedelta(days=number) for number in range(3)]


def numbers(*values: str) -> list[Decimal]:
    return [Decimal(value) for value in values]


def test_bars_stand_on_each_other_and_are_as_high_as_their_values() -> None:
    """The height of each bar is its value on the axis, and the next one begins where it ends; 0 has no bar."""
    chart = stacked(DAYS, [("a", numbers("1", "0", "2")), ("b", numbers("3", "4", "0"))], str)
    first, second, third = (column.bars for column in chart.columns)
    assert [len(bars) for bars in (first, second, third)] == [2, 1, 1]
    lower, upper = first
    assert float(lower.y) + float(lower.height) == pytest.approx(chart.bottom)
    assert float(upper.y) + float(upper.height) == pytest.approx(float(lower.y), abs=0.02)
    assert float(upper.height) == pytest.approx(3 * float(lower.height), abs=0.05)
    assert float(third[0].height) == pytest.approx(2 * float(lower.height), abs=0.05)
    assert float(second[0].y) == pytest.approx(chart.top, abs=0.01)


def test_each_day_says_what_it_holds() -> None:
    """The title of a day is its date and sum, and its parts where there are several."""
    chart = stacked(DAYS, [("a", numbers("1", "0", "2")), ("b", numbers("3", "4", "0"))], lambda value: f"{value} EUR")
    assert [column.title for column in chart.columns] == [
        "Fri 2026-05-01: 4 EUR\na: 1 EUR\nb: 3 EUR",
        "Sat 2026-05-02: 4 EUR",
        "Sun 2026-05-03: 2 EUR",
    ]


@pytest.mark.parametrize("count", [1, 7, 30, 90, 366])
def test_a_few_days_are_named_and_the_last_one_always(count: int) -> None:
    """However many days there are, at most nine have a label, and all bars are within the picture."""
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(count)]
    chart = stacked(days, [("a", [Decimal(1)] * count)], str)
    assert 1 <= len(chart.days) <= 9
    assert chart.days[-1].text == f"{days[-1].day} {days[-1]:%b}"
    for column in chart.columns:
        (bar,) = column.bars
        assert chart.left <= float(bar.x) <= float(bar.x) + float(bar.width) <= chart.right


@pytest.mark.parametrize("highest", ["0.0000000001", "0.07", "1", "3.99", "12", "99.5", "100", "1234567"])
def test_the_axis_has_a_few_round_lines(highest: str) -> None:
    """Two to five lines, at multiples of 1, 2, 2.5 or 5, and the top one is not below the highest bar."""
    step, top = scale_of(Decimal(highest))
    assert top >= Decimal(highest) > top - step
    assert 2 <= top / step <= 5
    assert step.scaleb(-step.adjusted()).normalize() in (1, 2, Decimal("2.5"), 5)


def test_nothing_to_show_is_an_empty_chart() -> None:
    """Days without a value have an axis and no bar."""
    chart = stacked(DAYS, [("a", numbers("0", "0", "0"))], str)
    assert [len(column.bars) for column in chart.columns] == [0, 0, 0]
    assert [line.text for line in chart.lines] == ["0", "1"]
