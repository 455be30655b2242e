"""What the model reads of a tool's outcome, and what the log may say of a failure."""

from __future__ import annotations

import datetime
import json
import re
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from llm_wrapper.types import ToolResult

MAX_ERROR_CHARS = 500
NOT_AVAILABLE = "This tool is not available now. Go on without it."

_MAX_SECRETS = 1_000


class NotText(ValueError):
    """A tool returned something that is neither text nor JSON."""


class ToolTimeout(Exception):
    """A tool was stopped because its time was up."""


def done(value: Any, max_chars: int) -> ToolResult:
    """The result of a tool that returned `value`. Raises NotText if it is neither text nor JSON."""
    return ToolResult("done", _content("OK", as_text(value, max_chars)))


def failed(message: str, code: str = "tool_error", status: Literal["failed", "refused"] = "failed") -> ToolResult:
    """The result of a tool that did not work, with a message that the model can act on."""
    return ToolResult(status, _content("Failed", message), code)


def unknown_tool(name: str, known: Iterable[str]) -> ToolResult:
    """The result of a call for a tool that the prompt does not have."""
    tools = ", ".join(known)
    advice = f"The tools are: {tools}." if tools else "There are no tools; answer without one."
    return failed(f"There is no tool named {name[:64]!r}. {advice}", code="unknown_tool", status="refused")


def limit_reached() -> ToolResult:
    """The result of a tool call past the turn's limits, which is not run."""
    return failed(
        "The limit of tool calls for this answer is reached. Answer now with what you have.",
        code="tool_limit",
        status="refused",
    )


def not_run() -> ToolResult:
    """The result of a tool call whose turn ended before the tool was started."""
    return failed("The tool was not run, because the turn ended before.", "interrupted", "refused")


def unknown_outcome() -> ToolResult:
    """The result of a tool call whose worker died while the tool ran."""
    message = "The tool was interrupted. It may or may not have had its effect; check before you ask for it again."
    return ToolResult("unknown", _content("Unknown", message), "interrupted")


def as_text(value: Any, max_chars: int) -> str:
    """Text as it is, any other value as JSON; cut at `max_chars`, with a note that it was.

    Encoding stops at the limit, since a small value can refer to itself into a huge text. Raises NotText.
    """
    if isinstance(value, str):
        return _cut(value, max_chars)
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_as_json)
    parts: list[str] = []
    length = 0
    try:
        for part in encoder.iterencode(value):
            parts.append(part)
            length += len(part)
            if length > max_chars:
                break
    except (TypeError, ValueError, RecursionError) as error:
        raise NotText(f"{type(value).__name__} is not JSON: {error}"[:MAX_ERROR_CHARS]) from None
    return _cut("".join(parts), max_chars)


def plain_json(value: Any) -> bool:
    """True if JSON gives `value` back as it is."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def shorten(text: str) -> str:
    """`text` at the length that error messages may have."""
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + " ..."


def mask(text: str, secrets: Mapping[str, Any]) -> str:
    """`text` with the values of context params, also those inside lists and dicts, taken out."""
    words = sorted(set(_words(secrets)), key=len, reverse=True)
    if not words:
        return text
    # A short one counts only as a word of its own: 7 is not in 1978.
    patterns = (re.escape(word) if len(word) > 5 else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)
    return re.sub("|".join(patterns), "[hidden]", text)


def trace(error: BaseException, secrets: Mapping[str, Any]) -> str:
    """The traceback of `error` and of its causes, for the log, without values of context params.

    Only text: passing the exception itself to the log would hand its frames, whose variables hold those
    values, to every error reporter.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(parts) < 10:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__, limit=-20))
        parts.append(f"{frames}{type(current).__name__}: {shorten(mask(str(current), secrets))}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nwhich came of\n\n".join(parts)


def _content(status: str, message: str) -> str:
    text = json.dumps({"status": status, "message": message}, ensure_ascii=False)
    # A lone surrogate cannot be stored or sent.
    return text.encode("utf-8", "replace").decode()


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    note = f"\n[The result was cut here, at {max_chars} characters.]"
    return text[: max(max_chars - len(note), 0)] + note[:max_chars] if max_chars > 0 else ""


def _as_json(value: Any) -> str:
    if isinstance(value, Decimal | datetime.date | uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is neither text, number, list nor dict")


def _words(secrets: Mapping[str, Any]) -> Iterator[str]:
    """The texts under which plain values would show in a message."""
    waiting: list[Any] = list(secrets.values())
    for _ in range(_MAX_SECRETS):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting.extend(value)
        elif isinstance(value, str):
            yield from (text for text in (value.strip(), repr(value)[1:-1]) if text)
        elif isinstance(value, int | float | Decimal | uuid.UUID) and not isinstance(value, bool):
            yield str(value)
