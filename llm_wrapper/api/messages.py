"""Messages of a session: read page by page, and rated."""

from __future__ import annotations

from uuid import UUID

from ninja import Path, Query

from llm_wrapper import history
from llm_wrapper.errors import MessageNotFound
from llm_wrapper.history.text import storable
from llm_wrapper.models import Message

from . import cursors, shown
from .auth import READ, WRITE, CallersRequest, find_chat
from .routing import replies, router
from .schemas import MessageOut, MessagePage, RatingIn

TAGS = ["messages"]
UP_DOWN = {None: None, "up": 1, "down": -1}


@router.get(
    "/sessions/{session_id}/messages", auth=READ, response=replies(MessagePage, 404), tags=TAGS, summary="Read messages"
)
def list_messages(
    request: CallersRequest,
    session_id: UUID,
    cursor: str | None = Query(None, max_length=200, description="`next` of the page before, or a session's `older`."),
    limit: int = Query(50, ge=1, le=200),
) -> MessagePage:
    """The newest messages, or those before a cursor; oldest first in each page."""
    chat = find_chat(request.auth, session_id)
    before = None if cursor is None else cursors.read_position(cursor)
    return shown.messages(chat, limit=limit, before=before)


@router.put(
    "/sessions/{session_id}/messages/{message_id}/rating",
    auth=WRITE,
    response=replies(MessageOut, 404),
    tags=TAGS,
    summary="Rate an answer",
)
def rate_message(
    request: CallersRequest, session_id: UUID, payload: RatingIn, message_id: int = Path(..., ge=1, le=cursors.LARGEST)
) -> MessageOut:
    """A thumb and a comment, which replace what was there."""
    chat = find_chat(request.auth, session_id, "change")
    answers = Message.objects.filter(shown.SHOWN, chat=chat, pk=message_id, type=Message.Type.ASSISTANT)
    if not answers.exists() or not history.rate(chat.pk, message_id, UP_DOWN[payload.thumb]):
        raise MessageNotFound("The session has no answer of that id.")
    answers.update(comment=storable(payload.comment))
    return shown.outs(answers.select_related("turn"))[0]
