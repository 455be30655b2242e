"""Where a running turn stands, its lease, and how steps are written.

Whoever writes for a turn first renews its lease with a statement that matches only while the turn is running and its
fencing number is this worker's. Where it matches nothing the turn was ended or taken over, and `TurnLost` stops the
worker before it writes anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connections
from django.db.models import F, Subquery
from django.db.models.functions import Now

from llm_wrapper.conf import conf
from llm_wrapper.errors import TurnLost
from llm_wrapper.models import ChatHistory, Message, ToolCall, Turn

from .text import storable
from .transcript import Append


@dataclass
class TurnState:
    """Where a running turn stands. Only the turn's own worker writes to the chat, so this stays true.

    `leased_until` is on this process's monotonic clock. `messages` are what the next call sends, read once and
    then kept up with each step.
    """

    turn: Turn
    fence: int
    chat_id: int
    position: int
    system_message_id: int | None
    user_message: Message
    config_name: str = ""
    calls: int = 0
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    leased_until: float = 0.0
    first_position: int = 0
    messages: list[dict[str, Any]] | None = None

    @property
    def turn_id(self) -> int:
        return int(self.turn.pk)

    def checkpoint(self) -> dict[str, Any]:
        """The state as it is now, for `restore`."""
        messages = None if self.messages is None else list(self.messages)
        return {**vars(self), "messages": messages, "tool_calls": dict(self.tool_calls)}

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Forget what a transaction that was rolled back noted here."""
        vars(self).update(checkpoint)

    def wrote(self, message: Message) -> None:
        """Take note of a step of this turn."""
        self.position = message.position
        if self.messages is not None:
            self.messages.append(message.provider_message(rendered=True))


def new_steps(chat_id: int, after: int, steps: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Write steps behind position `after`; each is the keyword arguments of a Message. The caller adds the entries."""
    messages = [
        Message(chat_id=chat_id, position=after + number, **{key: storable(value) for key, value in step.items()})
        for number, step in enumerate(steps, start=1)
    ]
    return Message.objects.bulk_create(messages)


def write_steps(chat_id: int, after: int, steps: Sequence[Mapping[str, Any]], **columns: Any) -> list[Message]:
    """Steps, their transcript entries, and further columns of the chat, in the caller's transaction."""
    messages = new_steps(chat_id, after, steps)
    if messages:
        columns["chat_history"] = Append(
            [message.entry() for message in messages], columns.get("chat_history", "chat_history")
        )
        columns["last_position"] = messages[-1].position
    ChatHistory.objects.filter(pk=chat_id).update(updated_at=Now(), **columns)
    return messages


def renew(state: TurnState, seconds: float = 0.0, **columns: Any) -> None:
    """Renew the lease for work that may take `seconds`, or stop if the turn is no longer ours."""
    lease = conf.turn_lease + seconds
    started = time.monotonic()
    running = Turn.objects.filter(pk=state.turn_id, status=Turn.Status.RUNNING, fence=state.fence)
    if not running.update(**{"lease_expires_at": Now() + timedelta(seconds=lease), **columns}):
        raise lost(state)
    state.leased_until = started + lease


def lost(state: TurnState) -> TurnLost:
    return TurnLost(
        f"Turn {state.turn_id} was ended by another worker, because its lease ran out. Nothing more was written."
    )


def renew_for(state: TurnState, seconds: float) -> None:
    """Renew the lease for work of so many seconds, unless it lasts that long anyway."""
    if state.leased_until - time.monotonic() < seconds + conf.turn_lease / 2:
        renew(state, seconds)


def tool_step(turn: Turn, provider_id: str, name: str, content: str) -> dict[str, Any]:
    return {
        "type": Message.Type.TOOL,
        "text": content,
        "payload": {"tool_call_id": provider_id, "name": name},
        "turn": turn,
    }


def lock_chat(chat_id: int) -> Any:
    """The chat, held until the transaction ends, with `running_turn_id` and `system_text`.

    The lock is a statement of its own: what is read after it is sure to be the newest, which PostgreSQL does
    not promise for the joined parts of one locking query.
    """
    connection = connections[ChatHistory.objects.db]
    if connection.features.has_select_for_update:
        ChatHistory.objects.select_for_update().only("pk").get(pk=chat_id)
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        # SQLite then locks the database at a transaction's first write; a read before it could be outdated.
        Turn.objects.filter(pk=0).update(number=0)
    running = Turn.objects.filter(chat=chat_id, status=Turn.Status.RUNNING)
    return (
        ChatHistory.objects.defer("chat_history", "current_context_variables")
        .annotate(running_turn_id=Subquery(running.values("pk")[:1]), system_text=F("system_message__text"))
        .get(pk=chat_id)
    )
