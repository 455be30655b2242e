"""What is written of conversations: the stages of a turn, the transcript, and the views of it."""

from .stages import (
    TurnState,
    add_steps,
    add_turn_step,
    create_chat,
    fail_call,
    fail_turn,
    finish_tool,
    open_turn,
    remember,
    repair,
    save_answer,
    save_partial,
    start_call,
    start_tool,
    window,
)
from .views import context_of, processed_messages, rate, stored_reply, thumbs_counts

__all__ = [
    "TurnState",
    "add_steps",
    "add_turn_step",
    "context_of",
    "create_chat",
    "fail_call",
    "fail_turn",
    "finish_tool",
    "open_turn",
    "processed_messages",
    "rate",
    "remember",
    "repair",
    "save_answer",
    "save_partial",
    "start_call",
    "start_tool",
    "stored_reply",
    "thumbs_counts",
    "window",
]
