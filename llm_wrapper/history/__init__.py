"""What is written of conversations: the stages of a turn, the transcript, and the views of it."""

from .chats import add_steps, create_chat, remember, standing
from .ending import expired_turns, fail_turn, lose_call, repair, restart_tool, stop_turn, take_over
from .opening import open_turn
from .running import (
    add_turn_step,
    fail_call,
    finish_tool,
    save_answer,
    save_partial,
    start_call,
    start_tool,
)
from .state import TurnState
from .summaries import save_summary, start_summary, to_sum_up
from .views import context_of, newest_question, processed_messages, rate, stored_reply, thumbs_counts
from .windowing import Budget, Window, window

__all__ = [
    "Budget",
    "TurnState",
    "Window",
    "add_steps",
    "add_turn_step",
    "context_of",
    "create_chat",
    "expired_turns",
    "fail_call",
    "fail_turn",
    "finish_tool",
    "lose_call",
    "newest_question",
    "open_turn",
    "processed_messages",
    "rate",
    "remember",
    "repair",
    "restart_tool",
    "save_answer",
    "save_partial",
    "save_summary",
    "standing",
    "start_call",
    "start_summary",
    "start_tool",
    "stop_turn",
    "stored_reply",
    "take_over",
    "thumbs_counts",
    "to_sum_up",
    "window",
]
