"""What goes in and out of the API, as JSON. Keys of a session and a message are those of document 4, and more."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from ninja import Schema
from pydantic import ConfigDict, Field

T = TypeVar("T")
Thumb = Literal["up", "down"]


class In(Schema):
    """A body: what it does not know is refused, so that no caller believes to have set it."""

    model_config = ConfigDict(extra="forbid")


ContextVars: Any = Field(
    default_factory=dict,
    description="Context variables for the session's prompt; `GET /prompts` lists which ones callers may set.",
)


class SessionIn(In):
    prompt: str | None = Field(None, max_length=100, description="Name of a prompt of `GET /prompts`; null: none.")
    context_vars: dict[str, Any] = ContextVars
    config: str | None = Field(
        None,
        max_length=100,
        description="Config of `GET /models` that answers first; another takes over where it is limited.",
    )
    title: str = Field("", max_length=200)


class SessionChange(In):
    """What is left out stays as it is."""

    title: str | None = Field(None, max_length=200)
    status: Literal["active", "archived"] | None = None


class MessageIn(In):
    message: str = Field(min_length=1, description="The user's message, up to LLM_WRAPPER_MAX_MESSAGE_CHARS.")
    context_vars: dict[str, Any] = ContextVars


class RegenerateIn(In):
    context_vars: dict[str, Any] = ContextVars


class RatingIn(In):
    """A rating as a whole: what is left out is taken back."""

    thumb: Thumb | None = None
    comment: str = Field("", max_length=10_000)


class MessageOut(Schema):
    """One message. Costs are numbers, and exact as text beside them; null is unknown, which is not 0."""

    id: int
    role: Literal["user", "assistant"]
    content: str
    tokens: int | None = Field(description="Tokens of this answer, 0 for a user's message; null: not reported.")
    cost: float | None
    cost_exact: str | None = Field(description="The cost as an exact decimal.")
    created_at: datetime
    config: str | None = Field(description="The config that answered.")
    incomplete: bool = Field(description="The answer broke off or was stopped.")
    error_code: str | None = Field(description="Why a user's message has no answer, or only an incomplete one.")
    thumb: Thumb | None
    comment: str


class SessionSummary(Schema):
    session_id: UUID
    title: str
    status: Literal["active", "completed", "archived"]
    prompt: str | None = Field(description="Name of the prompt that the session runs on.")
    total_tokens: int = Field(description="Sum of the tokens of all answers.")
    total_cost: float = Field(description="Sum of the known costs.")
    total_cost_exact: str
    unpriced_calls: int = Field(description="Answered calls whose cost is unknown: with one, total_cost is too low.")
    created_at: datetime
    updated_at: datetime


class SessionOut(SessionSummary):
    answering: bool = Field(description="A message is being answered now.")
    messages: list[MessageOut] = Field(description="The newest messages, oldest first.")
    older: str | None = Field(description="Cursor of the messages before these, for `GET …/messages`; null: none.")


class SentOut(SessionOut):
    reply: MessageOut = Field(description="The answer to this request; also when it is repeated with its key.")


class Page(Schema, Generic[T]):
    items: list[T]
    next: str | None = Field(description="Cursor of the next page; null: this was the last.")


class SessionPage(Page[SessionSummary]):
    """Sessions, the last used first."""


class MessagePage(Page[MessageOut]):
    """Messages, oldest first; the next page holds those before them."""


class Stopped(Schema):
    stopped: bool = Field(description="Whether a message was being answered.")


class UsageSum(Schema):
    """What was spent. Token counts and costs hold what providers reported."""

    calls: int = Field(description="Calls of models, failed ones too.")
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float
    cost_exact: str
    unpriced_calls: int = Field(description="Answered calls whose cost is unknown: with one, cost is too low.")


class ConfigUsage(UsageSum):
    config: str


class SessionUsage(UsageSum):
    by_config: list[ConfigUsage]


class DayUsage(UsageSum):
    day: date


class CallerUsage(UsageSum):
    """Also of sessions that have been deleted."""

    by_day: list[DayUsage]


class ModelOut(Schema):
    config: str
    model: str
    available: bool = Field(description="False while the config rests after a rate limit or failure.")
    retry_after: float | None = Field(description="Seconds until it is tried again.")


class PromptOut(Schema):
    prompt: str
    context_vars: list[str] = Field(description="Context variables that callers may set.")
    required: list[str] = Field(description="Those of them without which a message is refused.")


class Health(Schema):
    status: Literal["ok"]


class Ready(Schema):
    status: Literal["ready", "not ready"]
    database: bool
    cache: bool
    models: bool = Field(description="At least one config can be used now.")


class Problem(Schema):
    type: str
    loc: list[str | int]
    msg: str


class ErrorOut(Schema):
    detail: str | list[Problem] = Field(description="What happened and what to do; a list where input is invalid.")
    code: str = Field(description="Stable, for programs; docs/errors.md lists all.")
    retryable: bool = Field(description="The same request may succeed later; Retry-After says when.")
