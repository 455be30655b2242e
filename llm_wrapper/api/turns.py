"""Messages sent, answered anew, and stopped.

A turn does not depend on the connection that began it: a caller who goes away finds the answer in the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponseBase
from ninja import Header

from llm_wrapper import history
from llm_wrapper.events import TurnFinished
from llm_wrapper.models import ChatHistory, Message
from llm_wrapper.turn import TurnJob, drive, run_turn
from llm_wrapper.types import LLMReply

from . import listening, sending, shown, streams
from .auth import SEND, WRITE, CallersRequest, find_chat
from .routing import replies, router
from .schemas import MessageIn, RegenerateIn, SentOut, Stopped

TAGS = ["turns"]

FAILURES = (404, 409, 413, 422, 500, 502, 503, 504)
IS_STREAM = {"x-event-stream": True}
Key = Header(
    None,
    alias="Idempotency-Key",
    min_length=1,
    max_length=200,
    pattern=r"^[\x20-\x7e]+$",
    description="A value of your own, such as a UUID. A request that is repeated with its key and message gets the "
    "first one's reply, and no model is called.",
)


@router.post(
    "/sessions/{session_id}/messages",
    auth=SEND,
    response=replies(SentOut, *FAILURES),
    tags=TAGS,
    summary="Send a message",
)
async def send_message(
    request: CallersRequest, session_id: UUID, payload: MessageIn, idempotency_key: str | None = Key
) -> SentOut:
    """Send a message and wait for its answer: the session with its newest messages, the answer last."""
    job = await _job(request, session_id, payload.message, payload.context_vars, idempotency_key)
    return await _answered(request, job)


@router.post(
    "/sessions/{session_id}/messages/stream",
    auth=SEND,
    response=replies(streams.AnyEvent, *FAILURES),
    openapi_extra=IS_STREAM,
    tags=TAGS,
    summary="Send a message and stream its answer",
)
async def stream_message(
    request: CallersRequest, session_id: UUID, payload: MessageIn, idempotency_key: str | None = Key
) -> HttpResponseBase:
    """Server-sent events: `turn_started` once the message is stored, `text_delta` for each piece of the answer, and
    `turn_finished` or `turn_failed` at the end. What is refused before that has the status of an error."""
    job = await _job(request, session_id, payload.message, payload.context_vars, idempotency_key)
    return await _streamed(request, job)


@router.post(
    "/sessions/{session_id}/regenerate",
    auth=SEND,
    response=replies(SentOut, *FAILURES),
    tags=TAGS,
    summary="Answer anew",
)
async def regenerate(
    request: CallersRequest, session_id: UUID, payload: RegenerateIn | None = None, idempotency_key: str | None = Key
) -> SentOut:
    """Have the last message answered anew. The new answer takes the old one's place; both were paid for."""
    job = await _job(request, session_id, None, payload.context_vars if payload else {}, idempotency_key)
    return await _answered(request, job)


@router.post(
    "/sessions/{session_id}/regenerate/stream",
    auth=SEND,
    response=replies(streams.AnyEvent, *FAILURES),
    openapi_extra=IS_STREAM,
    tags=TAGS,
    summary="Answer anew and stream it",
)
async def stream_regenerated(
    request: CallersRequest, session_id: UUID, payload: RegenerateIn | None = None, idempotency_key: str | None = Key
) -> HttpResponseBase:
    """The same, as server-sent events."""
    job = await _job(request, session_id, None, payload.context_vars if payload else {}, idempotency_key)
    return await _streamed(request, job)


@router.post(
    "/sessions/{session_id}/stop", auth=WRITE, response=replies(Stopped, 404), tags=TAGS, summary="Stop the answer"
)
def stop(request: CallersRequest, session_id: UUID) -> Stopped:
    """Stop the message that is being answered, in whichever process; what has arrived of the answer is kept."""
    chat = find_chat(request.auth, session_id, "change")
    return Stopped(stopped=history.stop_turn(chat.pk) is not None)


# -- how a turn is run -----------------------------------------------------------------------------------


async def _job(
    request: CallersRequest, session_id: UUID, message: str | None, context_vars: Mapping[str, Any], key: str | None
) -> TurnJob:
    def prepare() -> TurnJob:
        chat = find_chat(request.auth, session_id, "change")
        job = sending.job_for(request, chat, message=message, context_vars=context_vars, key=key)
        if isinstance(request, ASGIRequest):
            # The turn has a connection of its own; nobody waits for a model with another one open.
            close_old_connections()
        return job

    return await sync_to_async(prepare)()


async def _answered(request: CallersRequest, job: TurnJob) -> SentOut:
    """Run the turn to its end."""
    reply = await _aask(job) if isinstance(request, ASGIRequest) else await sync_to_async(_ask)(job)
    return await sync_to_async(_sent)(job.chat_id, reply)


async def _aask(job: TurnJob) -> LLMReply:
    async with aclosing(listening.alisten(job)) as events:
        async for event in events:
            if isinstance(event, TurnFinished):
                return event.reply
    raise AssertionError("unreachable: a turn without a reply raises")


def _ask(job: TurnJob) -> LLMReply:
    # A server without an event loop does not tell when a caller goes away, so the turn may run right here.
    replies_ = [event.reply for event in drive(run_turn(job, history)) if isinstance(event, TurnFinished)]
    return replies_[-1]


def _sent(chat_id: int, reply: LLMReply) -> SentOut:
    chat = ChatHistory.objects.select_related("prompt_template").defer("chat_history").get(pk=chat_id)
    answer = Message.objects.select_related("turn").filter(pk__in=[reply.id])
    return SentOut(**shown.session(chat), reply=shown.outs(answer)[0])


async def _streamed(request: CallersRequest, job: TurnJob) -> HttpResponseBase:
    """Begin the turn, and stream it once its message is stored; what is raised before is an error like any other."""
    internals = request.auth.may("view")
    if isinstance(request, ASGIRequest):
        events = listening.alisten(job)
        return streams.aresponse(await anext(events), events, internals=internals)
    heard = listening.listen(job)
    return streams.response(await sync_to_async(next)(heard), heard, internals=internals)
