"""What was spent: of a session, and of the caller by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone
from ninja import Query

from llm_wrapper.errors import BadRequest
from llm_wrapper.models import LLMCall

from . import shown
from .auth import READ, CallersRequest, find_chat
from .routing import replies, router
from .schemas import CallerUsage, ConfigUsage, DayUsage, SessionUsage

TAGS = ["usage"]

DAYS = 30
MOST_DAYS = 366
SINCE = Query(None, description=f"First day, in UTC. Default: {DAYS} days up to `until`.")
UNTIL = Query(None, description="Last day, in UTC. Default: today.")
FIRST, LAST = date(2000, 1, 1), date(2999, 12, 31)
TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
SUMS: dict[str, Any] = {
    "calls": Count("pk"),
    "unpriced_calls": Count("pk", filter=Q(status=LLMCall.Status.DONE, cost__isnull=True)),
    "cost_sum": Sum("cost"),
    **{f"{name}_sum": Sum(name) for name in TOKENS},
}


@router.get(
    "/sessions/{session_id}/usage",
    auth=READ,
    response=replies(SessionUsage, 404),
    tags=TAGS,
    summary="Usage of a session",
)
def session_usage(request: CallersRequest, session_id: UUID) -> SessionUsage:
    """Everything that was spent on the session, failed and replaced answers too."""
    calls = LLMCall.objects.filter(turn__chat=find_chat(request.auth, session_id))
    groups = _grouped(calls, "config_name")
    by_config = [ConfigUsage(config=row["config_name"], **_out(row)) for row in groups]
    return SessionUsage(**_out(_totals(calls)), by_config=by_config)


@router.get("/usage", auth=READ, response=replies(CallerUsage), tags=TAGS, summary="Your usage by day")
def usage(
    request: CallersRequest,
    since: date | None = SINCE,
    until: date | None = UNTIL,
) -> CallerUsage:
    """What your own messages cost, by day. Days without a call are left out."""
    last = until or timezone.now().astimezone(UTC).date()
    if not FIRST <= (since or last) <= last <= LAST or (last - (since or last)).days >= MOST_DAYS:
        raise BadRequest(
            f"`since` must not be after `until`, and they may span {MOST_DAYS} days between {FIRST} and {LAST}."
        )
    first = since or max(last - timedelta(days=DAYS - 1), FIRST)
    calls = LLMCall.objects.filter(
        user=request.auth.user,
        started_at__gte=datetime.combine(first, time.min, UTC),
        started_at__lte=datetime.combine(last, time.max, UTC),
    )
    days = _grouped(calls.annotate(day=TruncDate("started_at", tzinfo=UTC)), "day")
    return CallerUsage(**_out(_totals(calls)), by_day=[DayUsage(day=row["day"], **_out(row)) for row in days])


def _totals(calls: QuerySet[LLMCall]) -> dict[str, Any]:
    return calls.order_by().aggregate(**SUMS)


def _grouped(calls: QuerySet[LLMCall], column: str) -> QuerySet[LLMCall, dict[str, Any]]:
    return calls.order_by().values(column).annotate(**SUMS).order_by(column)


def _out(row: dict[str, Any]) -> dict[str, Any]:
    cost = row["cost_sum"] or Decimal(0)
    return {
        "calls": row["calls"],
        "unpriced_calls": row["unpriced_calls"],
        "cost": float(cost),
        "cost_exact": shown.exact(cost),
        **{name: row[f"{name}_sum"] or 0 for name in TOKENS},
    }
