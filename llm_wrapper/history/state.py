"""Where a running turn stands, its lease, and how steps are written.

Whoever writes for a turn first renews its lease with a statement that matches only while the turn is running and its
fencing number is this worker's. Where it matches nothing the turn was ended or taken over, and `TurnLost` stops the
worker before it writes anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import OuterRef, QuerySet, Subquery

from llm_wrapper.conf import conf
from llm_wrapper.errors import LLMWrapperError, TurnCancelled, TurnLost
from llm_wrapper.models import ChatHistory, Message, ToolCall, Turn

from . import prepared
from .text import storable
from .transcript import Append


@dataclass
class TurnState:
    """Where a running turn stands. Only the turn's own worker writes to the chat, so this stays true.

    `user_id` is whose message it answers: its author, else the owner of the chat.
    `leased_until` is on this process's monotonic clock. `window` is what the next call sends, read once and
    then kept up with each step.
    """

    turn: Turn
    fence: int
    chat_id: int
    position: int
    system_message_id: int | None
    user_message: Message
    user_id: Any = None
    config_name: str = ""
    calls: int = 0
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    leased_until: float = 0.0
    window: Any = None
    window_bounds: tuple[Any, ...] = ()

    @property
    def turn_id(self) -> int:
        return int(self.turn.pk)

    def checkpoint(self) -> dict[str, Any]:
        """The state as it is now, for `restore`."""
        return {**vars(self), "tool_calls": dict(self.tool_calls)}

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Forget what a transaction that was rolled back noted here."""
        vars(self).update(checkpoint)

    def wrote(self, message: Message) -> None:
        """Take note of a step of this turn."""
        self.position = message.position
        if self.window is not None:
            self.window = self.window.with_message(message.provider_message(rendered=True))


def write_steps(chat_id: int, after: int, steps: Sequence[Mapping[str, Any]], **columns: Any) -> list[Message]:
    """Write steps behind position `after`, their transcript entries, and further columns of the chat, in the
    caller's transaction. Each step is the keyword arguments of a Message."""
    messages = [
        Message(chat_id=chat_id, position=after + number, **{key: storable(value) for key, value in step.items()})
        for number, step in enumerate(steps, start=1)
    ]
    # The bulk pays where many steps are added; a turn writes one or two at a time.
    if len(messages) > 4:
        Message.objects.bulk_create(messages)
    else:
        for message in messages:
            prepared.insert(message)
    if messages:
        columns["chat_history"] = Append([message.entry() for message in messages], columns.get("chat_history"))
        columns["last_position"] = messages[-1].position
    prepared.update(ChatHistory, {"pk": chat_id}, {"updated_at": prepared.DatabaseNow(), **columns})
    return messages


def renew(state: TurnState, seconds: float = 0.0, *, to_end_it: bool = False, **columns: Any) -> None:
    """Renew the lease for work that may take `seconds`, or stop if the turn is no longer ours.

    Raises TurnCancelled where somebody asked to stop it, unless what is written comes to an end (`to_end_it`): an
    answer, a result, the turn itself.
    """
    lease = conf.turn_lease + seconds
    started = time.monotonic()
    ours = {"pk": state.turn_id, "status": Turn.Status.RUNNING, "fence": state.fence}
    if not to_end_it:
        ours["stop_requested_at"] = None
    if not prepared.update(Turn, ours, {"lease_expires_at": prepared.InSeconds(lease), **columns}):
        raise _why_not(state)
    state.leased_until = started + lease


def _why_not(state: TurnState) -> LLMWrapperError:
    asked = Turn.objects.filter(
        pk=state.turn_id, status=Turn.Status.RUNNING, fence=state.fence, stop_requested_at__isnull=False
    )
    return TurnCancelled.stopped() if asked.exists() else lost(state)


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


class LockedChat(NamedTuple):
    """A chat as it stands while the lock on it is held."""

    pk: int
    user_id: Any
    last_position: int
    transcript_start: int
    turn_count: int
    llm_config_name: str
    current_context_variables: dict[str, Any]
    system_message_id: int | None
    system_text: str | None
    running_turn_id: int | None


def lock_chat(chat_id: int) -> LockedChat:
    """The chat, held until the transaction ends. Raises ChatHistory.DoesNotExist.

    The lock is a statement of its own: what is read after it is sure to be the newest, which PostgreSQL does
    not promise for the joined parts of one locking query.
    """
    connection = connections[ChatHistory.objects.db]
    if connection.features.has_select_for_update:
        prepared.select(_chat_lock, pk=chat_id)
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        # SQLite then locks the database at a transaction's first write; a read before it could be outdated.
        Turn.objects.filter(pk=0).update(number=0)
    rows = prepared.select(_locked_chat, pk=chat_id)
    if not rows:
        raise ChatHistory.DoesNotExist(f"There is no chat {chat_id}; it may have been deleted.")
    return LockedChat(*rows[0])


def _chat_lock() -> QuerySet[Any, Any]:
    return ChatHistory.objects.select_for_update().filter(pk=_chat_id()).order_by().values_list("pk")


def _locked_chat() -> QuerySet[Any, Any]:
    running = Turn.objects.filter(chat=OuterRef("pk"), status=Turn.Status.RUNNING).order_by()
    columns = [*LockedChat._fields[:-2], "system_message__text", "running"]
    chats = ChatHistory.objects.filter(pk=_chat_id()).order_by()
    return chats.annotate(running=Subquery(running.values("pk")[:1])).values_list(*columns)


def _chat_id() -> prepared.Given:
    return prepared.Given("pk", ChatHistory._meta.pk)
