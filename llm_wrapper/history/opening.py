"""The first stage of a turn: the user's message and the turn, committed as one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections, transaction

from llm_wrapper.conf import conf
from llm_wrapper.errors import CannotRegenerate, IdempotencyConflict, InsideTransaction, TurnInProgress
from llm_wrapper.models import ChatHistory, Message, Turn

from . import prepared
from .chats import end_if_crashed, news
from .database import stage
from .ending import repair
from .state import LockedChat, TurnState, lock_chat, write_steps
from .text import storable
from .transcript import DropOldest, MergeObject


def open_turn(chat_id: int, **turn: Any) -> TurnState | Turn:
    """Commit the user's message and open its turn: from here on the message cannot be lost.

    Takes the arguments of `_open_turn`. Raises InsideTransaction where the caller could still roll it back.
    """
    connection = connections[ChatHistory.objects.db]
    # `durable` is how Django says that a transaction must be the outermost; a TestCase's own does not count.
    if connection.in_atomic_block:
        try:
            with transaction.atomic(durable=True):
                pass
        except RuntimeError:
            raise InsideTransaction(
                "A turn was started inside a transaction. It commits each step, so that a crash loses nothing, and "
                "cannot do so there. Send after the transaction; with ATOMIC_REQUESTS, put "
                "@transaction.non_atomic_requests on the view."
            ) from None
    return _open_turn(chat_id, **turn)


@stage
def _open_turn(
    chat_id: int,
    *,
    text: str,
    rendered_text: str | None = None,
    system_text: str | None = None,
    initial_steps: Sequence[Mapping[str, Any]] = (),
    user: Any = None,
    payload: Mapping[str, Any] | None = None,
    remembered: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    replaces: int | None = None,
) -> TurnState | Turn:
    """The rows of a new turn, in the caller's transaction.

    `system_text` is the system prompt of this turn; it becomes a step only where it differs from the one in
    force. An empty one puts none in force, None leaves the one in force. `replaces` is the turn whose answer this one
    gives anew: it must be the newest, and leaves the context. Returns the finished turn instead if
    `idempotency_key` was used before for the same message. Raises TurnInProgress, or IdempotencyConflict if the
    key belongs to another message, or CannotRegenerate.
    """
    chat = lock_chat(chat_id)
    if idempotency_key is not None:
        earlier = Turn.objects.filter(chat=chat_id, idempotency_key=idempotency_key).first()
        if earlier is not None:
            repair(earlier)  # does nothing unless its worker is gone
            earlier.refresh_from_db()
            return _same_request(earlier, storable(text))
    if end_if_crashed(chat):
        chat = lock_chat(chat_id)
    if replaces is not None:
        _refuse_unless_newest(chat_id, replaces)
    lease, started = conf.turn_lease + conf.call_timeout, time.monotonic()
    turn = Turn(chat_id=chat_id, number=chat.turn_count + 1, idempotency_key=idempotency_key, replaces_id=replaces)
    prepared.insert(turn, lease_expires_at=prepared.InSeconds(lease))
    steps: list[dict[str, Any]] = []
    new_system = bool(system_text) and chat.system_text != storable(system_text)
    if new_system:
        steps.append({"type": Message.Type.SYSTEM, "text": system_text, "turn": turn})
    steps.extend(dict(step) for step in initial_steps)
    steps.append(
        {
            "type": Message.Type.USER,
            "text": text,
            "rendered_text": rendered_text,
            "user": user,
            "payload": dict(payload or {}),
            "turn": turn,
        }
    )
    columns: dict[str, Any] = {"turn_count": turn.number, **_trim(chat)}
    fresh = news(remembered or {}, chat.current_context_variables)
    if fresh:
        columns["current_context_variables"] = MergeObject("current_context_variables", fresh)
    messages = write_steps(chat_id, chat.last_position, steps, **columns)
    if replaces is not None:
        stays = [Message.Type.SYSTEM, Message.Type.SUMMARY]
        left = Message.objects.filter(turn=replaces, left_context_at=None).exclude(type__in=stays)
        left.update(left_context_at=messages[-1].position)
    system_id = messages[0].pk if new_system else chat.system_message_id if system_text != "" else None
    if system_id != chat.system_message_id:
        prepared.update(ChatHistory, {"pk": chat_id}, {"system_message": system_id})
    return TurnState(
        turn=turn,
        fence=turn.fence,
        chat_id=chat_id,
        position=messages[-1].position,
        system_message_id=system_id,
        user_message=messages[-1],
        user_id=messages[-1].user_id or chat.user_id,
        config_name=chat.llm_config_name,
        leased_until=started + lease,
    )


def _refuse_unless_newest(chat_id: int, turn_id: int) -> None:
    """Raise CannotRegenerate if the turn is not of this chat, or something was said after it."""
    turn = Turn.objects.filter(pk=turn_id, chat=chat_id).first()
    later = Message.objects.filter(chat=chat_id, type=Message.Type.USER, left_context_at=None)
    if turn is None or later.filter(turn__number__gt=turn.number).exists():
        raise CannotRegenerate(
            "Only the newest answer of a chat can be given anew, and there is a newer message. Load the chat again."
        )


def _same_request(turn: Turn, text: str) -> Turn:
    asked = turn.messages.filter(type=Message.Type.USER).order_by("position").first()
    if asked is None or asked.text != text:
        raise IdempotencyConflict(
            f"The idempotency key {turn.idempotency_key!r} was used for another message of this chat. "
            "Use a new key for a new message."
        )
    if turn.status == Turn.Status.RUNNING:
        raise TurnInProgress("The message with this idempotency key is being answered now. Ask again later.")
    return turn


def _trim(chat: LockedChat) -> dict[str, Any]:
    """Cut the transcript back to its limit, in batches, so that most steps only append."""
    limit = conf.transcript_limit
    held = chat.last_position - chat.transcript_start + 1
    if limit is None or held <= limit + max(limit // 4, 1):
        return {}
    excess = held - limit
    return {"chat_history": DropOldest(excess), "transcript_start": prepared.Plus(excess)}
