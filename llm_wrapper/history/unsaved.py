"""The stages of a turn without a database: for one answer that belongs to no chat."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.types import Completion, ConfigChoice, ToolCallRequest, ToolResult

from .windowing import Window


@dataclass
class UnsavedState:
    """Where the turn stands; the messages live only here."""

    turn: Any = None
    turn_id: int | None = None
    chat_id: int | None = None
    user_message: Any = None
    config_name: str = ""
    calls: int = 0
    tool_calls: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)


class UnsavedJournal:
    """Same functions as `llm_wrapper.history`; nothing is stored."""

    def open_turn(
        self,
        chat_id: Any,
        *,
        text: str,
        rendered_text: str | None = None,
        system_text: str | None = None,
        initial_steps: Any = (),
        **ignored: Any,
    ) -> UnsavedState:
        state = UnsavedState()
        if system_text:
            state.messages.append({"role": "system", "content": system_text})
        state.messages += [{"role": step["type"], "content": step["text"]} for step in initial_steps]
        content = text if rendered_text is None else rendered_text
        if content:
            state.messages.append({"role": "user", "content": content})
        return state

    def window(self, state: UnsavedState, **ignored: Any) -> Window:
        return Window(1, list(state.messages))

    def start_call(self, state: UnsavedState, choice: ConfigChoice, **ignored: Any) -> Any:
        state.calls += 1
        return SimpleNamespace(pk=None, config_name=choice.name)

    def lose_call(self, *ignored: Any) -> None:
        return None

    def save_partial(self, *ignored: Any) -> None:
        return None

    def fail_call(self, call: Any, error: LLMWrapperError, **ignored: Any) -> None:
        return None

    def save_answer(self, state: UnsavedState, call: Any, completion: Completion, **ignored: Any) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": completion.text or None}
        if completion.tool_calls:
            message["tool_calls"] = [request.as_message_part() for request in completion.tool_calls]
        state.messages.append(message)
        return SimpleNamespace(pk=None)

    def add_turn_step(self, state: UnsavedState, step: dict[str, Any]) -> None:
        state.messages.append({"role": step["type"], "content": step["text"]})

    def start_tool(self, *ignored: Any) -> None:
        return None

    def finish_tool(self, state: UnsavedState, request: ToolCallRequest, result: ToolResult, duration: float) -> None:
        state.messages.append(
            {"role": "tool", "tool_call_id": request.id, "name": request.name, "content": result.content}
        )

    def fail_turn(self, state: UnsavedState, error: LLMWrapperError, **ignored: Any) -> None:
        return None
