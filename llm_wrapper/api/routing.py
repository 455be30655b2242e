"""The one router of all endpoints (two with the same path must share one), and the responses that each documents."""

from __future__ import annotations

from typing import Any

from ninja import Router

from .schemas import ErrorOut

router = Router()

# Who asks, what they sent, how often, and what may befall any server.
ALWAYS = (401, 403, 413, 422, 429, 500, 503)


def replies(good: Any, *statuses: int, status: int = 200) -> dict[Any, Any]:
    """The responses of an endpoint: its good one, the errors of all endpoints, and further ones."""
    return {status: good, **dict.fromkeys(sorted({*ALWAYS, *statuses}), ErrorOut)}
