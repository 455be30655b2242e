"""Context variables as plain data: the only values that templates see and that chats remember."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

from ..errors import BadContextVariable

MAX_DEPTH = 20
MAX_VALUES = 100_000
MAX_CHARS = 5_000_000
MAX_INT_BITS = 1024


def plain(context: Mapping[str, Any]) -> dict[str, Any]:
    """Copies context variables as JSON data, or raises BadContextVariable naming the one that is not data.

    Decimals, dates, times, durations and UUIDs become text, enum members their value, tuples and sets lists
    (a set in sorted order), keys text. This is done before the first rendering and not only before storing,
    so that a template sees the same value in the turn that passes a variable and in those that remember it.
    """
    copier = _Copier()
    result = {}
    for name, value in context.items():
        if not isinstance(name, str):
            raise BadContextVariable(f"Names of context variables are text; got {type(name).__name__}.")
        result[name] = copier.copy(value, name, 0)
    return result


def unstorable(text: str) -> str:
    """Says which character of a text no database or provider takes ('' if there is none)."""
    if "\x00" in text:
        return "a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair"
    return ""


class _Copier:
    """Counts over all variables of one context, so that many small ones are bounded too."""

    def __init__(self) -> None:
        self.values = 0
        self.chars = 0

    def copy(self, value: Any, path: str, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise BadContextVariable(
                f"Context variable '{path}' is too large: at most {MAX_VALUES} values, {MAX_DEPTH} levels "
                "deep, reach a template. Pass only the part that the prompt needs."
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.copy(value.value, path, depth + 1)
        if isinstance(value, str):
            return self.text(str.__str__(value), path)
        if isinstance(value, int):
            return self.integer(int(value), path)
        if isinstance(value, float):
            return self.real(float(value), path)
        if isinstance(value, (list, tuple)):
            return [self.copy(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, (set, frozenset)):
            items = [self.copy(item, path, depth + 1) for item in value]
            return sorted(items, key=lambda item: (type(item).__name__, str(item)))
        if isinstance(value, dict):
            return self.mapping(value, path, depth)
        return self.text(self.written(value, path), path)

    def mapping(self, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        result = {}
        for key, item in value.items():
            name = self.copy(key, f"a key of {path}", depth + 1)
            if isinstance(name, (list, dict)):
                raise BadContextVariable(f"Context variable '{path}' has a key that is not text or a number.")
            name = name if isinstance(name, str) else str(name)
            if name in result:
                raise BadContextVariable(
                    f"Context variable '{path}' has two keys that are the same as text. Keys are text."
                )
            result[name] = self.copy(item, f"{path}.{name[:50]}", depth + 1)
        return result

    def written(self, value: Any, path: str) -> str:
        """The text form of a scalar that JSON has no type for."""
        if isinstance(value, (Promise, Decimal, uuid.UUID)):
            return str(value)
        if isinstance(value, (dt.date, dt.time)):
            return value.isoformat()
        if isinstance(value, dt.timedelta):
            return duration_iso_string(value)
        raise BadContextVariable(
            f"Context variable '{path}' is a {type(value).__name__}. Only plain data (text, numbers, dates, "
            f"lists, dicts) reaches a template: pass the fields that the prompt needs, such as "
            f'{{"name": {path.partition(".")[0].partition("[")[0]}.name}}.'
        )

    def text(self, value: str, path: str) -> str:
        self.chars += len(value)
        if self.chars > MAX_CHARS:
            raise BadContextVariable(
                f"Context variable '{path}' makes the context longer than {MAX_CHARS} characters. "
                "Pass only the part that the prompt needs."
            )
        if bad := unstorable(value):
            raise BadContextVariable(f"Context variable '{path}' holds {bad}. Remove it first.")
        return value

    def integer(self, value: int, path: str) -> int:
        if value.bit_length() > MAX_INT_BITS:
            raise BadContextVariable(f"Context variable '{path}' is an integer of more than {MAX_INT_BITS} bits.")
        return value

    def real(self, value: float, path: str) -> float:
        if not math.isfinite(value):
            raise BadContextVariable(
                f"Context variable '{path}' is {value}, which JSON cannot hold. Pass None or text instead."
            )
        return value
