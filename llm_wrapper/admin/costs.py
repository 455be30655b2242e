"""The page of costs: what was spent in a range of days, by model, prompt and user. Who may see calls may see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from llm_wrapper import costs
from llm_wrapper.costs import Spent

from . import charts, formats

if TYPE_CHECKING:
    from .base import BaseAdmin

TEMPLATE = "admin/llm_wrapper/costs.html"
RANGES = (7, 30, 90)
MOST_DAYS = 366
BREAKDOWNS = ("model", "prompt", "user")
SERIES = 6
COUNTS = ("calls", "failed", "input_tokens", "cached_tokens", "output_tokens")


@dataclass(frozen=True)
class Measure:
    """What the bars show: the value of a row, and how a value is written."""

    name: str
    title: str
    value: Callable[[Spent], Decimal]
    number: Callable[[Decimal], str]


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("cost", "Cost", lambda row: row.cost, formats.money),
        Measure("tokens", "Tokens", lambda row: Decimal(row.input_tokens + row.output_tokens), formats.short),
        Measure("calls", "Calls", lambda row: Decimal(row.calls), formats.short),
    )
}


class UnpricedFilter(admin.SimpleListFilter):
    """Calls whose cost is unknown though somebody may have to pay for them: those that the page counts as unpriced."""

    title = "price"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unknown", "unknown")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(costs.UNPRICED) if self.value() else queryset


class RangeForm(forms.Form):
    """The days that are shown, both included, and what the bars are of."""

    since = forms.DateField(label="From", widget=forms.DateInput(attrs={"type": "date", "class": "llmw-input"}))
    until = forms.DateField(label="To", widget=forms.DateInput(attrs={"type": "date", "class": "llmw-input"}))
    show = forms.ChoiceField(choices=[(name, name) for name in MEASURES], widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        since, until = values.get("since"), values.get("until")
        if since and until and since > until:
            raise forms.ValidationError("The first day is after the last one.")
        if since and until and (until - since).days >= MOST_DAYS:
            raise forms.ValidationError(
                f"The page shows at most {MOST_DAYS} days. For more, run manage.py llm_costs --since {since}."
            )
        return values


@dataclass(frozen=True)
class Shown:
    """One row of a breakdown's table; `series` is the number of its colour."""

    name: str
    series: int
    counts: Sequence[str]
    unpriced: int
    cost: str
    share: str
    by_day: Sequence[str]


@dataclass(frozen=True)
class Found:
    """What the database said of a kind: all of it, the most first, and each day of at least the first ones."""

    groups: Sequence[Spent]
    by_day: Sequence[Spent]


@dataclass(frozen=True)
class Breakdown:
    by: str
    csv: str
    chart: charts.Chart
    rows: Sequence[Shown]


def urls(owner: BaseAdmin) -> list[URLPattern]:
    def view(request: HttpRequest) -> HttpResponse:
        return costs_view(owner, request)

    return [path("costs/", owner.admin_site.admin_view(view), name="llm_wrapper_llmcall_costs")]


def costs_view(owner: BaseAdmin, request: HttpRequest) -> HttpResponse:
    """The page, or with `csv=model` (prompt, user) what it shows of that as CSV: a row for each day and model."""
    if not owner.has_view_permission(request):
        raise PermissionDenied
    today = timezone.localdate()
    wanted = {"since": (today - timedelta(days=RANGES[1] - 1)).isoformat(), "until": today.isoformat(), "show": "cost"}
    wanted |= {name: request.GET[name] for name in wanted if request.GET.get(name)}
    form = RangeForm(wanted)
    if not form.is_valid():
        return TemplateResponse(
            request, "admin/llm_wrapper/costs.html", _frame(owner, request, form, wanted), status=400
        )
    since, until = form.cleaned_data["since"], form.cleaned_data["until"]
    if (by := request.GET.get("csv")) in BREAKDOWNS:
        return _csv(since, until, by)
    measure = MEASURES[form.cleaned_data["show"]]
    days = [since + timedelta(days=number) for number in range((until - since).days + 1)]
    found = {by: _read(by, since, until, measure) for by in BREAKDOWNS}
    by_day = {row.day: row for row in costs.coarser(found["model"].by_day, ("day",))}
    whole = costs.total(by_day.values())
    context = {
        **_frame(owner, request, form, wanted),
        "measure": measure,
        "days": days,
        "whole": whole,
        "cost": "unknown" if whole.known_cost is None else formats.money(whole.cost),
        "cards": _cards(whole),
        "unpriced_url": _calls_url(owner, since, until),
        "breakdowns": [_breakdown(by, found[by], days, by_day, measure, wanted) for by in BREAKDOWNS if whole.calls],
    }
    return TemplateResponse(request, TEMPLATE, context)


def _frame(owner: BaseAdmin, request: HttpRequest, form: RangeForm, wanted: dict[str, str]) -> dict[str, Any]:
    today = timezone.localdate()
    ranges = [
        (f"{count} days", {"since": (today - timedelta(days=count - 1)).isoformat(), "until": today.isoformat()})
        for count in RANGES
    ]
    return owner.page_context(
        request,
        title="Costs",
        opts=None,  # unfold would put the name of the model above the page, and no title
        form=form,
        ranges=[(label, _query(wanted | dates), (wanted | dates) == wanted) for label, dates in ranges],
        measures=[
            (item.title, _query(wanted | {"show": name}), name == wanted["show"]) for name, item in MEASURES.items()
        ],
        zone=timezone.get_current_timezone_name(),
    )


def _read(by: str, since: date, until: date, measure: Measure) -> Found:
    """One statement where there are few of a kind. Of users there may be thousands: first which ones spent most."""
    if by != "user":
        by_day = costs.report(since, until, ("day", by))
        return Found(sorted(costs.coarser(by_day, (by,)), key=measure.value, reverse=True), by_day)
    groups = sorted(costs.report(since, until, (by,)), key=measure.value, reverse=True)
    top = [getattr(row, by) for row in groups[:SERIES]]
    return Found(groups, costs.report(since, until, ("day", by), among={by: top}))


def _breakdown(
    by: str,
    found: Found,
    days: Sequence[date],
    by_day: dict[date | None, Spent],
    measure: Measure,
    wanted: dict[str, str],
) -> Breakdown:
    """The most expensive of a kind one by one, and the others together."""
    top, others = found.groups[:SERIES], found.groups[SERIES:]
    names = [getattr(row, by) for row in top]
    cells = {(row.day, getattr(row, by)): measure.value(row) for row in found.by_day}
    values = [[cells.get((day, name), Decimal(0)) for day in days] for name in names]
    labels = [row.label(by) for row in top]
    if others:
        whole = [measure.value(by_day.get(day, Spent())) for day in days]
        rest = [whole[index] - sum(line[index] for line in values) for index in range(len(days))]
        values.append([max(value, Decimal(0)) for value in rest])  # a call may have come in between the statements
        labels.append(f"{len(others)} others")
        top = [*top, costs.total(others)]
    of_all = sum((measure.value(row) for row in top), Decimal(0))
    rows = [
        Shown(
            name=label,
            series=SERIES if others and number == SERIES else number,
            counts=[formats.count(getattr(row, name)) for name in COUNTS],
            unpriced=row.unpriced,
            cost=formats.UNKNOWN if row.known_cost is None else formats.money(row.cost),
            share=f"{measure.value(row) / of_all:.0%}" if measure.value(row) else "-",
            by_day=[measure.number(value) if value else "-" for value in line],
        )
        for number, (label, row, line) in enumerate(zip(labels, top, values, strict=True))
    ]
    series = list(zip(labels, values, strict=True))
    return Breakdown(by, _query(wanted | {"csv": by}), charts.stacked(days, series, measure.number), rows)


def _calls_url(owner: BaseAdmin, since: date, until: date) -> str:
    """The list of the range's unpriced calls."""
    start, end = costs.bounds(since, until)
    query = urlencode({"price": "unknown", "started_at__gte": start, "started_at__lt": end})
    return f"{reverse(f'{owner.admin_site.name}:llm_wrapper_llmcall_changelist')}?{query}"


def _cards(whole: Spent) -> list[tuple[str, str, str]]:
    tokens = (whole.input_tokens, whole.cached_tokens, whole.output_tokens, whole.reasoning_tokens)
    sent, cached, received, reasoning = (formats.short(Decimal(count)) for count in tokens)
    return [
        ("Calls", formats.count(whole.calls), f"{formats.count(whole.failed)} without an answer"),
        ("Tokens in", sent, f"{cached} of them cached"),
        ("Tokens out", received, f"{reasoning} of them for reasoning"),
    ]


def _csv(since: date, until: date, by: str) -> HttpResponse:
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="costs-by-{by}-{since}-to-{until}.csv"'
    columns = ("day", by)
    # The mark by which Excel knows UTF-8.
    response.write("\ufeff")
    costs.write_csv(costs.report(since, until, columns), columns, response)  # type: ignore[arg-type]
    return response


def _query(values: dict[str, str]) -> str:
    return f"?{urlencode(values)}"
