"""What was spent: LLM calls counted and their costs summed, by day, model, config, prompt, user or purpose.

    for row in report(date(2026, 11, 1), date(2026, 11, 30), by=("model",)):
        print(row.model, row.calls, row.cost, row.unpriced)

Calls outlive their chats, so those of deleted chats count as well.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models import BigIntegerField, Case, Count, DateField, F, Func, Q, QuerySet, Sum, Value, When
from django.db.models.functions import TruncDate
from django.utils import timezone

from llm_wrapper.models import LLMCall

BY = ("day", "model", "config", "prompt", "user", "purpose")
FILTERS = BY[1:]

_PLACES = 10  # of LLMCall.cost
_STATUS = LLMCall.Status
# Calls that a provider may have billed: a failed one is only known to have been if it reports tokens.
_BILLED = Q(status__in=[_STATUS.DONE, _STATUS.CANCELLED, _STATUS.LOST]) | Q(status=_STATUS.FAILED) & (
    Q(input_tokens__isnull=False) | Q(output_tokens__isnull=False)
)
UNPRICED = Q(cost__isnull=True, cache_hit=False) & _BILLED


@dataclass(frozen=True)
class Spent:
    """Calls that belong together: how many, their tokens, and their cost in the currency of the prices.

    `cost` is the exact sum of the known costs. The costs of `unpriced` calls are not known, so with any of them it
    is a lower bound. `failed` calls ended without an answer. `cached_tokens` are part of the input tokens,
    `reasoning_tokens` of the output tokens. What a report is by is set, and None in a row stands for calls
    without it (no user, no prompt); what it is not by is None in every row.
    """

    calls: int = 0
    failed: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    day: date | None = None
    model: str | None = None
    config: str | None = None
    prompt: str | None = None
    user: str | None = None
    purpose: str | None = None

    @property
    def known_cost(self) -> Decimal | None:
        """`cost`, or None where not one of the calls that cost something has a known cost."""
        return None if self.unpriced and not self.cost else self.cost

    def label(self, name: str) -> str:
        """What the row is called in one of the names of `BY`."""
        value = getattr(self, name)
        return f"(no {name})" if value is None else str(value)


SUMMED = tuple(field.name for field in fields(Spent) if field.name not in BY)


def report(
    since: date,
    until: date,
    by: Sequence[str] = ("day",),
    *,
    among: Mapping[str, Iterable[str | None]] | None = None,
    **only: str | None,
) -> list[Spent]:
    """What was spent from `since` to `until`, both days included, in one statement.

    Days are those of Django's current time zone. `by` holds names out of `BY`; an empty one gives one row for all.
    `only` keeps calls of one model, config, prompt, user or purpose; `among` those of several, and None stands for
    calls without one. Rows are in the order of their days, and the most expensive first.

    Raises ValueError for another name, and where `since` is after `until`.
    """
    if since > until:
        raise ValueError(f"The report would end on {until}, before it begins on {since}.")
    chosen: dict[str, list[str | None]] = {name: [value] for name, value in only.items()}
    chosen |= {name: list(values) for name, values in (among or {}).items()}
    for name in (*by, *chosen):
        if name not in BY or (name == "day" and name in chosen):
            raise ValueError(f"Unknown: {name!r}. A report is by {', '.join(BY)}, and only day is no filter.")
    start, end = bounds(since, until)
    calls: QuerySet[Any] = LLMCall.objects.filter(started_at__gte=start, started_at__lt=end)
    columns = _columns(since, until, on_sqlite=connections[calls.db].vendor == "sqlite")
    for name, values in chosen.items():
        calls = calls.filter(_one_of(str(columns[name].name), values))
    # Prefixed, since names like user are columns of the row itself.
    groups = {f"by_{name}": columns[name] for name in by}
    sums: dict[str, Any] = {f"sum_{name}": expression for name, expression in _sums().items()}
    found = calls.order_by().values(**groups).annotate(**sums) if groups else [calls.order_by().aggregate(**sums)]
    return _in_order(_spent(row, by) for row in found)


def bounds(since: date, until: date) -> tuple[datetime, datetime]:
    """When the first day begins and the last one ends, in the current time zone."""
    return _midnight(since), _midnight(until + timedelta(days=1))


def total(rows: Iterable[Spent]) -> Spent:
    """The sum of rows that share no call."""
    return Spent(**_summed(rows))


def coarser(rows: Iterable[Spent], by: Sequence[str]) -> list[Spent]:
    """A report by `by` out of the rows of one that is by more than that, without asking the database again."""
    groups: dict[tuple[Any, ...], list[Spent]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in by), []).append(row)
    return _in_order(Spent(**_summed(found), **dict(zip(by, key, strict=True))) for key, found in groups.items())


def _summed(rows: Iterable[Spent]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: getattr(Spent, name) for name in SUMMED}
    for row in rows:
        for name in SUMMED:
            sums[name] += getattr(row, name)
    return sums


def _in_order(rows: Iterable[Spent]) -> list[Spent]:
    def place(row: Spent) -> tuple[Any, ...]:
        return row.day or date.min, -row.cost, -row.calls, *(getattr(row, name) or "" for name in FILTERS)

    return sorted(rows, key=place)


CSV_COLUMNS = (
    "calls",
    "failed",
    "cache_hits",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "unpriced",
)
# A spreadsheet takes text that begins with one of these for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(rows: Iterable[Spent], by: Sequence[str], file: IO[str]) -> None:
    """Rows of a report by `by` as CSV, with a heading. An unknown cost is an empty cell."""
    writer = csv.writer(file)
    writer.writerow([*by, *CSV_COLUMNS])
    for row in rows:
        cost = "" if row.known_cost is None else f"{row.cost:f}"
        numbers = [cost if name == "cost" else getattr(row, name) for name in CSV_COLUMNS]
        writer.writerow([*(_text_cell(row.label(name)) for name in by), *numbers])


def _text_cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _columns(since: date, until: date, *, on_sqlite: bool) -> dict[str, Any]:
    username = get_user_model().USERNAME_FIELD
    return {
        "day": _day_on_sqlite(since, until) if on_sqlite and settings.USE_TZ else TruncDate("started_at"),
        "model": F("model"),
        "config": F("config_name"),
        # A version keeps its name when its template is deleted.
        "prompt": F("prompt_version__name"),
        "user": F(f"user__{username}"),
        "purpose": F("purpose"),
    }


def _day_on_sqlite(since: date, until: date) -> Case:
    """The local day of a call. SQLite knows no time zones, and the Python function that Django gives it is called for
    every row, which takes most of a report's time. So SQLite itself shifts the days between two changes of clocks."""
    cases: list[When] = []
    stretch_end: datetime | None = None
    for number in range((until - since).days + 1):
        day = since + timedelta(days=number)
        begins, ends = bounds(day, day)
        offset = begins.utcoffset() or timedelta(0)
        if ends.utcoffset() != offset:  # the clocks change on this day, which is a case of its own
            cases.append(When(started_at__lt=ends, then=Value(day)))
        elif stretch_end == begins and cases:
            cases[-1] = _shifted(offset, before=ends)
        else:
            cases.append(_shifted(offset, before=ends))
        stretch_end = ends if ends.utcoffset() == offset else None
    return Case(*cases, output_field=DateField())


def _shifted(offset: timedelta, *, before: datetime) -> When:
    shift = Value(f"{offset.total_seconds():+.0f} seconds")
    return When(started_at__lt=before, then=Func(F("started_at"), shift, function="date", output_field=DateField()))


class _ExactSum(Sum):
    """Sum of a money column in whole units of its last place.

    SQLite stores decimals as floats and would sum them as such. Each is within half a unit of what was stored (up to
    a cost of 400,000 for one call), so rounding gives whole numbers, whose sum is exact.
    """

    template = f"%(function)s(%(distinct)s%(expressions)s * {10**_PLACES})"

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"%(function)s(%(distinct)sCAST(ROUND(%(expressions)s * {10**_PLACES}) AS INTEGER))"
        return self.as_sql(compiler, connection, template=template, **extra)


def _sums() -> dict[str, Any]:
    return {
        "calls": Count("pk"),
        "failed": Count("pk", filter=Q(status__in=[_STATUS.FAILED, _STATUS.LOST])),
        "cache_hits": Count("pk", filter=Q(cache_hit=True)),
        **{
            name: Sum(name, output_field=BigIntegerField())
            for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
        },
        "cost": _ExactSum("cost", output_field=BigIntegerField()),
        "unpriced": Count("pk", filter=UNPRICED),
    }


def _spent(row: Mapping[str, Any], by: Sequence[str]) -> Spent:
    values: dict[str, Any] = {name: row[f"sum_{name}"] or 0 for name in SUMMED}
    values["cost"] = Decimal(int(values["cost"])).scaleb(-_PLACES)
    return Spent(**values, **{name: row[f"by_{name}"] for name in by})


def _one_of(field: str, values: list[str | None]) -> Q:
    known = [value for value in values if value is not None]
    found = Q(**{f"{field}__in": known})
    return found | Q(**{f"{field}__isnull": True}) if len(known) < len(values) else found


def _midnight(day: date) -> datetime:
    start = datetime.combine(day, time.min)
    return timezone.make_aware(start) if settings.USE_TZ else start
