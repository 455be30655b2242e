from __future__ import annotations

from decimal import Decimal

import pytest

from llm_wrapper.admin import formats


@pytest.mark.parametrize(
    ("value", "unpriced", "text"),
    [
        (None, 0, "unknown"),
        (Decimal("0"), 0, "0"),
        (Decimal("0"), 2, "unknown"),
        (Decimal("0.0002230000"), 0, "0.000223"),
        (Decimal("1.5000000000"), 1, "1.5 + unknown"),
        (Decimal("1200.0000000000"), 0, "1200"),
    ],
)
def test_an_unknown_cost_is_called_unknown_and_never_0(value: Decimal | None, unpriced: int, text: str) -> None:
    """A cost that is not known is shown as unknown, and one that is partly known as a lower bound."""
    assert formats.cost(value, unpriced) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0421, "42 ms"), (2.314, "2.31 s"), (185.2, "3 min 5 s")])
def test_durations_are_readable(value: float | None, text: str) -> None:
    """A duration is shown in the unit that fits its size."""
    assert formats.seconds(value) == text


def test_a_count_that_was_not_reported_is_unknown() -> None:
    """Token counts that the provider did not report are not shown as 0."""
    assert formats.count(None) == "unknown"
    assert formats.count(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"


def test_text_that_is_not_json_is_shown_as_it_stands() -> None:
    """What a tool or a model wrote is shown even where it is no JSON."""
    assert formats.pretty_text('{"a": 1}') == '{\n  "a": 1\n}'
    assert formats.pretty_text("[" * 100_000) == "[" * 100_000
    assert formats.pretty_text("no json") == "no json"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0.00"),
        ("1", "1.00"),
        ("1234567.891", "1\u202f234\u202f567.89"),
        ("0.85", "0.85"),
        ("0.00424", "0.0042"),
        ("0.0000000001", "0.0000000001"),
    ],
)
def test_sums_of_money_are_short(value: str, text: str) -> None:
    """Two places from 1 up, two digits that mean something below."""
    assert formats.money(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("950", "950"),
        ("12345", "12.3k"),
        ("999950", "1M"),
        ("4560000", "4.56M"),
        ("5000000000000", "5000G"),
        ("1000", "1k"),
        ("0.5", "0.5"),
    ],
)
def test_large_numbers_are_short(value: str, text: str) -> None:
    """Three digits and a unit, also where rounding leads to the next one."""
    assert formats.short(Decimal(value)) == text
