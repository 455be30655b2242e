"""Django signals for the stages of a turn, for logging and telemetry.

Each is sent with `sender` the event's class and `event` the event, before the event goes on to the caller.
A receiver that raises is logged by Django and does not touch the turn.
"""

from __future__ import annotations

from django.dispatch import Signal

from . import events

turn_started = Signal()
llm_call_started = Signal()
llm_call_finished = Signal()
tool_call_started = Signal()
tool_call_finished = Signal()
turn_finished = Signal()
turn_failed = Signal()

SIGNAL_OF: dict[type[events.Event], Signal] = {
    events.TurnStarted: turn_started,
    events.LLMCallStarted: llm_call_started,
    events.LLMCallFinished: llm_call_finished,
    events.ToolCallStarted: tool_call_started,
    events.ToolCallFinished: tool_call_finished,
    events.TurnFinished: turn_finished,
    events.TurnFailed: turn_failed,
}
