"""Chats outside of their turns: made, added to, and held against a second turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.db.models.functions import Now

from llm_wrapper.errors import TurnInProgress
from llm_wrapper.models import ChatHistory, Message, Turn

from . import prepared
from .database import stage
from .ending import repair
from .state import LockedChat, lock_chat, write_steps
from .text import storable
from .transcript import MergeObject


@stage
def create_chat(
    *,
    user: Any = None,
    prompt_template_id: int | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
    remembered: Mapping[str, Any] | None = None,
    **columns: Any,
) -> ChatHistory:
    """A new chat with its first steps (system and initial messages), committed as one."""
    chat = ChatHistory.objects.create(
        user=user,
        prompt_template_id=prompt_template_id,
        current_context_variables=storable(dict(remembered or {})),
        **columns,
    )
    if steps:
        add_steps(chat, steps)
    return chat


@stage
def add_steps(chat: ChatHistory, steps: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Add steps to a chat outside of a turn. Raises TurnInProgress while a turn runs."""
    locked = lock_chat(chat.pk)
    if end_if_crashed(locked):
        locked = lock_chat(chat.pk)
    messages = write_steps(chat.pk, locked.last_position, steps)
    for message in messages:
        if message.type == Message.Type.SYSTEM:
            ChatHistory.objects.filter(pk=chat.pk).update(system_message=message)
    chat.refresh_from_db()
    return messages


class Standing(NamedTuple):
    """What a turn needs to know of its chat before it is opened."""

    current_context_variables: dict[str, Any]
    last_position: int


def standing(chat_id: int) -> Standing:
    """Where a chat stands. Raises ChatHistory.DoesNotExist."""
    rows = prepared.select(_standing, pk=chat_id)
    if not rows:
        raise ChatHistory.DoesNotExist(f"There is no chat {chat_id}; it may have been deleted.")
    return Standing(*rows[0])


def _standing() -> QuerySet[Any, Any]:
    chats = ChatHistory.objects.filter(pk=prepared.Given("pk", ChatHistory._meta.pk)).order_by()
    return chats.values_list(*Standing._fields)


def remember(chat_id: int, values: Mapping[str, Any], *, known: Mapping[str, Any]) -> None:
    """Lay values over the chat's remembered context variables. Where the chat knows them already, nothing is written:
    a write waits for the disk."""
    fresh = news(values, known)
    if fresh:
        changes = {"current_context_variables": MergeObject("current_context_variables", fresh)}
        prepared.update(ChatHistory, {"pk": chat_id}, changes)


def news(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are not among the known ones, as the database can hold them."""
    return {name: value for name, value in storable(dict(values)).items() if known.get(name, known) != value}


def end_if_crashed(chat: LockedChat) -> bool:
    """Raise TurnInProgress if a turn is alive on the chat; end one whose lease has run out as crashed, and say so."""
    if chat.running_turn_id is None:
        return False
    if Turn.objects.filter(pk=chat.running_turn_id, lease_expires_at__gt=Now()).exists():
        raise TurnInProgress(
            f"Chat {chat.pk} is still answering an earlier message. Wait for its end, or stop it, and send again."
        )
    repair(Turn.objects.get(pk=chat.running_turn_id))
    return True
