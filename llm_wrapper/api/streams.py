"""A turn's events as server-sent events, and their types for the API's schema."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_type_hints

from django.http import StreamingHttpResponse
from ninja import Schema
from pydantic import Field, create_model

from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.events import Event, LLMCallStarted, ToolCallFinished, ToolCallStarted, TurnFailed
from llm_wrapper.types import LLMReply

from .failures import words_for
from .listening import LeftBehind

Events = AsyncGenerator[Event | None, None]
SyncEvents = Generator[Event | None, None, None]

# What a tool was given and gave, and why a config was chosen, is for staff: it may be internal.
INTERNAL: dict[type[Event], dict[str, Any]] = {
    ToolCallStarted: {"arguments": ""},
    ToolCallFinished: {"content": ""},
    LLMCallStarted: {"route": {}},
}
ALIVE = ": the turn is alive\n\n"


def encode(event: Event, *, internals: bool) -> str:
    """One event as a server-sent event. Its data is one line of JSON, so no text in it can end it or begin another."""
    data = event.as_dict()
    if not internals:
        data |= INTERNAL.get(type(event), {})
        if isinstance(event, TurnFailed):
            data["error_message"] = words_for(event.error_code, event.error_message)
    return f"event: {event.type}\ndata: {json.dumps(data)}\n\n"


def aresponse(first: Event | None, events: Events, *, internals: bool) -> StreamingHttpResponse:
    """The response that streams events, for a server with an event loop."""

    async def body() -> AsyncGenerator[str, None]:
        async with aclosing(events):
            yield _line(first, internals)
            try:
                async for event in events:
                    yield _line(event, internals)
            except (LLMWrapperError, LeftBehind):
                return  # the last event told of the failure; one who was left behind looks at the session

    return _response(body())


def response(first: Event | None, events: SyncEvents, *, internals: bool) -> StreamingHttpResponse:
    """The same for a server without one."""

    def body() -> Generator[str, None, None]:
        with closing(events):
            yield _line(first, internals)
            try:
                for event in events:
                    yield _line(event, internals)
            except (LLMWrapperError, LeftBehind):
                return

    return _response(body())


def _line(event: Event | None, internals: bool) -> str:
    return ALIVE if event is None else encode(event, internals=internals)


def _response(body: Any) -> StreamingHttpResponse:
    # A proxy that collects the answer before it passes it on would make a stream of no use.
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(body, content_type="text/event-stream; charset=utf-8", headers=headers)


def _schema_of(kind: type[Event]) -> type[Schema]:
    """A schema for what `as_dict` gives of an event."""
    as_json = {LLMReply: str, Decimal: str, Decimal | None: str | None}
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name != "type"}
    fields: dict[str, Any] = {name: (as_json.get(hint, hint), ...) for name, hint in hints.items()}
    fields["type"] = (Literal[kind.type], ...)
    doc = (kind.__doc__ or "").partition("\n\n")[0]
    made: type[Schema] = create_model(f"{kind.__name__}Event", __base__=Schema, __doc__=doc, **fields)
    return made


EVENT_SCHEMAS = {kind.type: _schema_of(kind) for kind in Event.__subclasses__()}
AnyEvent: Any = Annotated[Union[tuple(EVENT_SCHEMAS.values())], Field(discriminator="type")]  # noqa: UP007 (made of a list)
