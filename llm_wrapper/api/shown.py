"""Rows as the API shows them: sessions with their newest messages, and pages of messages."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db.models import Max, Q, Sum

from llm_wrapper.models import ChatHistory, Message, Turn

from . import cursors
from .schemas import MessageOut, MessagePage, SessionOut, SessionSummary, Thumb

# Newest messages that come with a session.
NEWEST = 50

ANSWERS = Q(type=Message.Type.ASSISTANT)
# Key lookups are null where the key is missing, so both ways to be shown are named.
NOT_HIDDEN = Q(payload__show_in_user_history__isnull=True) | Q(payload__show_in_user_history=True)
SHOWN = NOT_HIDDEN & (Q(type=Message.Type.USER) | (ANSWERS & ~Q(text="")))
THUMBS: dict[int | None, Thumb] = {1: "up", -1: "down"}


def summary(chat: ChatHistory) -> dict[str, Any]:
    """The fields of a SessionSummary."""
    return {
        "session_id": chat.public_id,
        "title": chat.title,
        "status": chat.status,
        "prompt": chat.prompt_template.name if chat.prompt_template else None,
        "total_tokens": chat.output_tokens_count,
        "total_cost": float(chat.cost),
        "total_cost_exact": exact(chat.cost),
        "unpriced_calls": chat.unpriced_calls,
        "created_at": chat.created_at,
        "updated_at": chat.updated_at,
    }


def session(chat: ChatHistory) -> dict[str, Any]:
    """The fields of a SessionOut: what the chat is now, with its newest messages."""
    page = messages(chat, limit=NEWEST)
    return {
        **summary(chat),
        "answering": chat.turns.filter(status=Turn.Status.RUNNING).exists(),
        "messages": page.items,
        "older": page.next,
    }


def session_out(chat: ChatHistory) -> SessionOut:
    return SessionOut(**session(chat))


def summary_out(chat: ChatHistory) -> SessionSummary:
    return SessionSummary(**summary(chat))


def messages(chat: ChatHistory, *, limit: int, before: int | None = None) -> MessagePage:
    """The newest messages before a position, oldest first. A turn that was answered anew is not among them, nor is one
    that failed to do so."""
    replaced = Q(turn__replaced_by__isnull=False) | Q(turn__replaces__isnull=False)
    rows = chat.messages.filter(SHOWN).exclude(replaced, left_context_at__isnull=False)
    if before is not None:
        rows = rows.filter(position__lt=before)
    found = list(rows.select_related("turn").order_by("-position")[: limit + 1])
    shown, more = found[:limit][::-1], len(found) > limit
    return MessagePage(items=outs(shown), next=cursors.write(shown[0].position) if more else None)


def outs(steps: Iterable[Message]) -> list[MessageOut]:
    """Messages as they are shown. What the calls of a turn before its last answer cost, which asked for tools, is
    part of that answer: it is what this response took."""
    steps = list(steps)
    turns = {step.turn_id for step in steps if step.type == Message.Type.ASSISTANT and step.turn_id}
    calls = Message.objects.filter(ANSWERS, turn__in=turns)
    hidden: dict[int | None, Any] = {
        row["turn"]: row for row in calls.exclude(SHOWN).values("turn").annotate(Sum("tokens"), Sum("cost"))
    }
    last = dict(calls.filter(SHOWN, turn__in=list(hidden)).values_list("turn").annotate(Max("position")))
    return [out(step, hidden.get(step.turn_id) if last.get(step.turn_id) == step.position else None) for step in steps]


def out(step: Message, besides: dict[str, Any] | None = None) -> MessageOut:
    """One step as it is shown; `besides` are the tokens and cost of the calls that led to it."""
    is_answer = step.type == Message.Type.ASSISTANT
    tokens: int | None = 0
    cost: Decimal | None = Decimal(0)
    if is_answer and (step.llm_call_id is not None or step.payload.get("incomplete")):
        tokens, cost = step.tokens, step.cost
        if besides is not None and tokens is not None:
            tokens += besides["tokens__sum"] or 0
        if besides is not None and cost is not None:
            cost += besides["cost__sum"] or 0
    incomplete = bool(step.payload.get("incomplete"))
    turn = step.turn
    return MessageOut(
        id=step.pk,
        role="assistant" if is_answer else "user",
        content=step.text,
        tokens=tokens,
        cost=None if cost is None else float(cost),
        cost_exact=None if cost is None else exact(cost),
        created_at=step.date_created,
        config=step.payload.get("llm_config_name") if is_answer else None,
        incomplete=incomplete,
        error_code=(turn.error_code or None) if turn is not None and (incomplete or not is_answer) else None,
        thumb=THUMBS.get(step.thumb),
        comment=step.comment,
    )


def exact(cost: Decimal) -> str:
    """A cost in full, without an exponent and without zeros at its end."""
    text = format(cost, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
