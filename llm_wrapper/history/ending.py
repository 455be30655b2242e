"""The ends of a turn that has no answer: failed, cancelled, crashed, or taken over to be answered after all."""

from __future__ import annotations

import time
from datetime import timedelta

from django.db import models
from django.db.models import F
from django.db.models.functions import Now

from llm_wrapper import tools
from llm_wrapper.conf import conf
from llm_wrapper.errors import LLMWrapperError, TurnCancelled
from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn
from llm_wrapper.types import ToolResult

from . import prepared
from .database import stage
from .state import TurnState, lock_chat, renew, tool_step, write_steps
from .text import storable


def lose_call(call: LLMCall) -> None:
    """Close a call that was started on a turn which was taken over meanwhile."""
    LLMCall.objects.filter(pk=call.pk, status=LLMCall.Status.RUNNING).update(
        status=LLMCall.Status.LOST, error_code="lost", finished_at=Now()
    )


@stage
def fail_turn(state: TurnState, error: LLMWrapperError, *, partial_text: str = "", cancelled: bool = False) -> None:
    """End a turn without an answer, so that the chat goes on: the error, what had arrived, and a result for
    each tool call that has none are kept."""
    status = Turn.Status.CANCELLED if cancelled else Turn.Status.FAILED
    renew(
        state,
        to_end_it=True,
        status=status,
        finished_at=prepared.DatabaseNow(),
        lease_expires_at=None,
        error_code=error.code,
        error_message=storable(str(error)),
    )
    # A call whose end could not be stored, or whose caller went away before it was made, is open still.
    arrived = _lose_calls(state.turn)
    _close_open_ends(state.turn, state.position, partial_text or arrived)


@stage
def repair(turn: Turn) -> None:
    """End a turn whose worker is gone. What it was doing becomes `lost` or `unknown`, nothing is run again."""
    ended = Turn.objects.filter(pk=turn.pk, status=Turn.Status.RUNNING, lease_expires_at__lte=Now()).update(
        status=Turn.Status.FAILED,
        error_code="crashed",
        error_message="The worker that ran this turn stopped before it ended.",
        finished_at=Now(),
        lease_expires_at=None,
    )
    if not ended:
        return
    partial = _lose_calls(turn)
    position = ChatHistory.objects.values_list("last_position", flat=True).get(pk=turn.chat_id)
    _close_open_ends(turn, position, partial)


def stop_turn(chat_id: int, *, wait: float = 2.0) -> Turn | None:
    """Stop the turn that runs on the chat, in whichever process; None where none runs.

    Its worker ends it at its next write and keeps all that has arrived. Where it has not done so after `wait` seconds
    (it waits for a model or a tool), the turn is ended here, and the worker can write no more.
    """
    turn = Turn.objects.filter(chat=chat_id, status=Turn.Status.RUNNING).first()
    if turn is None:
        return None
    Turn.objects.filter(pk=turn.pk, status=Turn.Status.RUNNING).update(stop_requested_at=Now())
    until = time.monotonic() + wait
    while time.monotonic() < until:
        time.sleep(min(0.1, wait))
        turn.refresh_from_db()
        if turn.status != Turn.Status.RUNNING:
            return turn
    _stop_now(turn.pk)
    turn.refresh_from_db()
    return turn


@stage
def _stop_now(turn_id: int) -> None:
    running = Turn.objects.filter(pk=turn_id, status=Turn.Status.RUNNING)
    ended = running.update(
        status=Turn.Status.CANCELLED,
        fence=F("fence") + 1,
        error_code=TurnCancelled.code,
        error_message=str(TurnCancelled.stopped()),
        finished_at=Now(),
        lease_expires_at=None,
    )
    if not ended:
        return
    turn = Turn.objects.get(pk=turn_id)
    position = lock_chat(turn.chat_id).last_position
    _close_open_ends(turn, position, _lose_calls(turn))


def expired_turns() -> models.QuerySet[Turn]:
    """Turns whose worker shows no sign of life any more, by the database's clock."""
    return Turn.objects.filter(status=Turn.Status.RUNNING, lease_expires_at__lte=Now()).order_by("pk")


@stage
def take_over(turn_id: int) -> tuple[TurnState, list[ToolCall]] | None:
    """Make a crashed turn this worker's own, to end it with an answer; None if it is alive or another was faster.

    The former worker can write no more. Its calls become `lost`. Gives the tool calls that have no result yet.
    """
    lease, started = conf.turn_lease + conf.call_timeout, time.monotonic()
    taken = (
        expired_turns()
        .filter(pk=turn_id)
        .update(fence=F("fence") + 1, lease_expires_at=Now() + timedelta(seconds=lease))
    )
    if not taken:
        return None
    turn = Turn.objects.get(pk=turn_id)
    chat = lock_chat(turn.chat_id)
    _lose_calls(turn)
    without_result = list(turn.tool_calls.filter(status__in=[ToolCall.Status.PENDING, ToolCall.Status.RUNNING]))
    asked = turn.messages.filter(type=Message.Type.USER).earliest("position")
    state = TurnState(
        turn=turn,
        fence=turn.fence,
        chat_id=turn.chat_id,
        position=chat.last_position,
        system_message_id=chat.system_message_id,
        user_message=asked,
        user_id=asked.user_id or chat.user_id,
        config_name=chat.llm_config_name,
        calls=turn.llm_calls.count(),
        tool_calls={row.provider_id: row for row in without_result},
        leased_until=started + lease,
    )
    return state, without_result


def restart_tool(state: TurnState, row: ToolCall) -> None:
    """Put an interrupted tool call back to where it may be started."""
    renew(state)
    ToolCall.objects.filter(pk=row.pk).update(status=ToolCall.Status.PENDING)


def _lose_calls(turn: Turn) -> str:
    """Close the calls that a dead worker left open; gives what had arrived of the last one."""
    lost = turn.llm_calls.filter(status=LLMCall.Status.RUNNING)
    partial = lost.order_by("attempt").values_list("partial_text", flat=True).last() or ""
    lost.update(
        status=LLMCall.Status.LOST,
        error_code="lost",
        error_message="The worker stopped before the answer was saved; the provider may have billed it.",
        finished_at=Now(),
    )
    return partial


def _close_tool(row: models.QuerySet[ToolCall], result: ToolResult) -> int:
    return row.update(status=result.status, result=result.content, error_code=result.code)


def _close_open_ends(turn: Turn, position: int, partial_text: str) -> None:
    """Give every tool call without a result one (providers refuse a history without it), keep the partial
    answer as a step, and let a turn that has neither leave the context: its message would only stand there
    unanswered."""
    steps = []
    for row in turn.tool_calls.filter(status__in=[ToolCall.Status.PENDING, ToolCall.Status.RUNNING]):
        # Another worker may start it at this moment, so what is not pending any more counts as running.
        this, result = ToolCall.objects.filter(pk=row.pk), tools.not_run()
        if not _close_tool(this.filter(status=ToolCall.Status.PENDING), result):
            result = tools.unknown_outcome()
            _close_tool(this, result)
        steps.append(tool_step(turn, row.provider_id, row.tool, result.content))
    if partial_text:
        steps.append(
            {
                "type": Message.Type.ASSISTANT,
                "text": partial_text,
                "payload": {"incomplete": True},
                "turn": turn,
            }
        )
    if steps:
        write_steps(turn.chat_id, position, steps)
    elif not turn.messages.filter(type=Message.Type.ASSISTANT).exists():
        stays = [Message.Type.SYSTEM, Message.Type.SUMMARY]
        turn.messages.exclude(type__in=stays).update(left_context_at=position + 1)
        if turn.replaces_id is not None:
            # What was to be answered anew keeps the answer that it has.
            asked = turn.messages.filter(type=Message.Type.USER).order_by("position").values_list("position").first()
            if asked is not None:
                Message.objects.filter(turn=turn.replaces_id, left_context_at=asked[0]).update(left_context_at=None)
