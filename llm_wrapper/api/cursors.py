"""Places in a list, as text that callers hand back to get what comes after them."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from llm_wrapper.errors import BadRequest

LARGEST = 2**63 - 1


def write(*place: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def read_position(cursor: str) -> int:
    """The position that a cursor of messages names. Raises BadRequest."""
    match _read(cursor):
        case [int(position)] if 0 < position <= LARGEST:
            return position
    raise _unknown(cursor)


def read_moment(cursor: str) -> tuple[datetime, int]:
    """The time and row that a cursor of sessions names. Raises BadRequest."""
    match _read(cursor):
        case [str(when), int(pk)] if 0 < pk <= LARGEST:
            try:
                moment = datetime.fromisoformat(when)
            except ValueError:
                raise _unknown(cursor) from None
            if moment.tzinfo is not None:
                return moment, pk
    raise _unknown(cursor)


def _read(cursor: str) -> Any:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise _unknown(cursor) from None


def _unknown(cursor: str) -> BadRequest:
    return BadRequest(f"The cursor {cursor[:100]!r} is not one of this list. Take `next` of the page before.")
