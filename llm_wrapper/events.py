"""What streams out of a turn. Every face sends these same events, through `as_dict`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any, ClassVar

from .types import LLMReply, Usage


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `type` is the event's name on the wire."""

    type: ClassVar[str] = "event"
    turn_id: int | None
    chat_id: int | None

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON: costs are strings (exact), usage an object."""
        data: dict[str, Any] = {"type": self.type}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Usage):
                value = {key.name: getattr(value, key.name) for key in fields(value)}
            elif isinstance(value, LLMReply):
                value = str(value)
            elif isinstance(value, Decimal):
                value = format(value, "f")
            data[item.name] = value
        return data


@dataclass(frozen=True, kw_only=True)
class TurnStarted(Event):
    """The user's message is committed. `message_id` is its step."""

    type: ClassVar[str] = "turn_started"
    message_id: int | None


@dataclass(frozen=True, kw_only=True)
class LLMCallStarted(Event):
    type: ClassVar[str] = "llm_call_started"
    llm_call_id: int | None
    config_name: str
    model: str
    attempt: int
    route: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextDelta(Event):
    """The next piece of the answer. `number` counts from 1 within the turn and never goes back."""

    type: ClassVar[str] = "text_delta"
    text: str
    number: int


@dataclass(frozen=True, kw_only=True)
class StreamReset(Event):
    """Forget the text of this answer so far: it broke off and begins anew on another config."""

    type: ClassVar[str] = "stream_reset"
    reason: str


@dataclass(frozen=True, kw_only=True)
class LLMCallFinished(Event):
    """A call ended. `error_code` is '' where it gave an answer; cost None is unknown."""

    type: ClassVar[str] = "llm_call_finished"
    llm_call_id: int | None
    config_name: str
    error_code: str = ""
    latency: float = 0.0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class ToolCallStarted(Event):
    type: ClassVar[str] = "tool_call_started"
    tool_call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class ToolCallFinished(Event):
    """`status` is done, failed or refused; `content` is what the model gets."""

    type: ClassVar[str] = "tool_call_finished"
    tool_call_id: str
    name: str
    status: str
    content: str
    error_code: str = ""
    duration: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TurnFinished(Event):
    type: ClassVar[str] = "turn_finished"
    reply: LLMReply
    message_id: int | None
    usage: Usage
    cost: Decimal | None


@dataclass(frozen=True, kw_only=True)
class TurnFailed(Event):
    """The turn ended without an answer; the error itself is raised to the caller after this event."""

    type: ClassVar[str] = "turn_failed"
    error_code: str
    error_message: str
    retryable: bool
    retry_after: float | None = None
