"""Chats outside of their turns: made, added to, and held against a second turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models.functions import Now

from llm_wrapper.errors import TurnInProgress
from llm_wrapper.models import ChatHistory, Message, Turn

from .database import stage
from .ending import repair
from .state import lock_chat, write_steps
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
    refuse_if_running(locked)
    messages = write_steps(chat.pk, locked.last_position, steps)
    for message in messages:
        if message.type == Message.Type.SYSTEM:
            ChatHistory.objects.filter(pk=chat.pk).update(system_message=message)
    chat.refresh_from_db()
    return messages


def remember(chat_id: int, values: Mapping[str, Any]) -> None:
    """Lay values over the chat's remembered context variables."""
    if values:
        ChatHistory.objects.filter(pk=chat_id).update(
            current_context_variables=MergeObject("current_context_variables", storable(dict(values)))
        )


def refuse_if_running(chat: Any) -> None:
    """Raise TurnInProgress if a turn is alive on the chat; end it as crashed if its lease has run out."""
    if chat.running_turn_id is None:
        return
    if Turn.objects.filter(pk=chat.running_turn_id, lease_expires_at__gt=Now()).exists():
        raise TurnInProgress(
            f"Chat {chat.pk} is still answering an earlier message. Wait for its end, or stop it, and send again."
        )
    repair(Turn.objects.get(pk=chat.running_turn_id))
    chat.refresh_from_db(fields=["last_position", "transcript_start"])
