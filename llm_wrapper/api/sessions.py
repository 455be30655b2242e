"""Sessions: started, listed, searched, read, renamed, archived and deleted."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from django.db.models import Exists, OuterRef, Q
from ninja import Query, Status

from llm_wrapper.history.text import storable
from llm_wrapper.models import ChatHistory, Message

from . import cursors, sending, shown
from .auth import READ, WRITE, CallersRequest, find_chat
from .routing import replies, router
from .schemas import SessionChange, SessionIn, SessionOut, SessionPage, SessionSummary

TAGS = ["sessions"]


@router.post("/sessions/", auth=WRITE, response=replies(SessionOut), tags=TAGS, summary="Start a session")
def start_session(request: CallersRequest, payload: SessionIn | None = None) -> SessionOut:
    """Without a body: a session without a prompt, answered by any config of `GET /models`."""
    wanted = payload or SessionIn.model_validate({})
    chat = sending.start_chat(
        request,
        prompt_name=wanted.prompt,
        context_vars=wanted.context_vars,
        config=wanted.config,
        title=wanted.title,
    )
    return shown.session_out(chat)


@router.get("/sessions/", auth=READ, response=replies(SessionPage), tags=TAGS, summary="List and search your sessions")
def list_sessions(
    request: CallersRequest,
    search: str = Query("", max_length=200, description="Words of a title or message."),
    status: Literal["active", "completed", "archived"] | None = None,
    cursor: str | None = Query(None, max_length=200, description="`next` of the page before."),
    limit: int = Query(50, ge=1, le=200),
) -> SessionPage:
    """Your own sessions, the last used first, a page at a time."""
    chats = ChatHistory.objects.filter(user=request.auth.user)
    if status is not None:
        chats = chats.filter(status=status)
    if search:
        words = storable(search)
        said = Message.objects.filter(shown.SHOWN, chat=OuterRef("pk"), text__icontains=words)
        chats = chats.filter(Q(title__icontains=words) | Exists(said))
    if cursor is not None:
        when, pk = cursors.read_moment(cursor)
        chats = chats.filter(Q(updated_at__lt=when) | Q(updated_at=when, pk__lt=pk))
    rows = list(
        chats.select_related("prompt_template")
        .defer("chat_history", "current_context_variables")
        .order_by("-updated_at", "-pk")[: limit + 1]
    )
    page, more = rows[:limit], len(rows) > limit
    return SessionPage(
        items=[shown.summary_out(chat) for chat in page],
        next=cursors.write(page[-1].updated_at.isoformat(), page[-1].pk) if more else None,
    )


@router.get("/sessions/{session_id}", auth=READ, response=replies(SessionOut, 404), tags=TAGS, summary="Read a session")
def read_session(request: CallersRequest, session_id: UUID) -> SessionOut:
    """The session with its newest messages; `older` leads to those before them."""
    return shown.session_out(find_chat(request.auth, session_id))


@router.patch(
    "/sessions/{session_id}",
    auth=WRITE,
    response=replies(SessionSummary, 404),
    tags=TAGS,
    summary="Rename or archive a session",
)
def change_session(request: CallersRequest, session_id: UUID, payload: SessionChange) -> SessionSummary:
    """An archived session takes no messages until it is active again."""
    chat = find_chat(request.auth, session_id, "change")
    columns = {name: storable(value) for name, value in payload.dict().items() if value is not None}
    if columns:
        # Its place in the list is that of its last use, which this is not.
        ChatHistory.objects.filter(pk=chat.pk).update(**columns)
        chat = find_chat(request.auth, session_id)
    return shown.summary_out(chat)


@router.delete(
    "/sessions/{session_id}", auth=WRITE, response=replies(None, 404, status=204), tags=TAGS, summary="Delete a session"
)
def delete_session(request: CallersRequest, session_id: UUID) -> Status[None]:
    """Its messages are gone for good, also one that is being answered. What was spent stays in your usage."""
    find_chat(request.auth, session_id, "delete").delete()
    return Status(204, None)
