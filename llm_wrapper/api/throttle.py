"""How often a caller may ask: a sliding window in one row for each caller, shared by all processes and exact.

The row is locked while it is looked at, and the time is the database's, so that neither parallel requests nor
clocks that differ let one more through.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import DateTimeField, ExpressionWrapper
from django.db.models.functions import Now

from llm_wrapper.conf import conf
from llm_wrapper.errors import ConfigError, Throttled
from llm_wrapper.history.database import stage
from llm_wrapper.models import Throttle

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NAMES = ("read", "write", "send")


@dataclass(frozen=True)
class Rate:
    """At most `count` requests within any `period` seconds."""

    count: int
    period: int


def rates() -> dict[str, Rate]:
    """The rates of LLM_WRAPPER_API_RATES; what it does not name, or sets to None, has no limit. Raises ConfigError."""
    found = {}
    for name, text in conf.api_rates.items():
        match = re.fullmatch(r"([1-9][0-9]{0,4})/([smhd])", text) if isinstance(text, str) else None
        if name not in NAMES or (match is None and text is not None):
            raise ConfigError(
                f"LLM_WRAPPER_API_RATES[{name!r}] is {text!r}. The names are {', '.join(NAMES)}, and a rate is a "
                'number up to 99999 and a unit, such as "10/m" (s, m, h or d), or None.'
            )
        if match is not None:
            found[name] = Rate(int(match[1]), SECONDS[match[2]])
    return found


def take(name: str, user: Any) -> None:
    """Count a request of the user. Raises Throttled where the rate of that name is used up."""
    rate = rates().get(name)
    if rate is None:
        return
    wait = _take(f"{name}:user:{user.pk}", rate)
    if wait is not None:
        raise Throttled(
            f"Too many requests: {rate.count} of this kind are allowed in {rate.period} seconds. Try again in "
            f"{math.ceil(wait)} s.",
            retry_after=wait,
        )


@stage
def _take(key: str, rate: Rate) -> float | None:
    """Note a request in the window; the seconds to wait where it is full, and then nothing is noted."""
    Throttle.objects.get_or_create(key=key)
    hits, now = _locked(key)
    # A hit of the future was noted before the database's clock was put back.
    inside = [hit for hit in hits if now - rate.period < hit <= now + rate.period]
    if len(inside) >= rate.count:
        return max(sorted(inside)[-rate.count] + rate.period - now, 0.001)
    Throttle.objects.filter(pk=key).update(hits=[*inside, now], updated_at=Now())
    return None


def _locked(key: str) -> tuple[list[float], float]:
    """The row's hits and the database's time, both as they are once the lock is held."""
    connection = connections[Throttle.objects.db]
    row = Throttle.objects.filter(pk=key)
    if connection.features.has_select_for_update:
        row.select_for_update().only("pk").get()
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        row.update(updated_at=Now())  # SQLite then locks the database at a transaction's first write
    # A statement of its own: a time read together with the lock would be from before the wait for it.
    now = ExpressionWrapper(Now(), output_field=DateTimeField())
    found: tuple[list[float], datetime] = row.annotate(now=now).values_list("hits", "now").get()
    return found[0], found[1].timestamp()
