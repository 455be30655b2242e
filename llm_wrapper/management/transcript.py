"""Sessions as a terminal shows them: what was said, and what was sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from llm_wrapper.conf import conf
from llm_wrapper.models import LLMCall, Message

from .terminal import Terminal, one_line, shown

# Of a tool's arguments and result, as much as helps to follow; all of it is in the admin.
LONGEST_TOOL_LINE = 300


def write_steps(terminal: Terminal, steps: Iterable[Message], *, me: Any = None) -> None:
    """Write the steps of a session. Those of the user `me`, and those of nobody in particular, are "you"."""
    for step in steps:
        label, style = _label(step, me)
        terminal.say(f"{label} > ", style, end="")
        terminal.say(_said(step), end="")
        marks = _marks(step)
        terminal.say(f"  ({', '.join(marks)})" if marks else "", "dim")


def write_sent(terminal: Terminal, call: LLMCall) -> None:
    """Write what a call sent, message by message."""
    about = [f"{call.config_name} ({call.model})", call.status]
    if call.cache_hit:
        about.append("answered from the cache: nothing was sent")
    if call.left_out:
        about.append(f"{call.left_out} earlier step(s) left out")
    params = {key: value for key, value in call.request_params.items() if key != "tools"}
    about += [f"{key}={value}" for key, value in params.items()]
    tools = call.request_params.get("tools", [])
    if tools:
        about.append("tools " + ", ".join(tool["function"]["name"] for tool in tools))
    terminal.say(one_line("; ".join(about)), "dim")
    for message in call.sent_messages():
        terminal.say(f"{one_line(message['role'])} | ", "bold", end="")
        lines = [message.get("content") or "", *map(json.dumps, message.get("tool_calls") or [])]
        terminal.say(shown("\n".join(line for line in lines if line)))


def asked_for(name: str, arguments: str) -> str:
    """A tool call, on one line."""
    return f"asks for {one_line(name)}({one_line(arguments, LONGEST_TOOL_LINE)})"


def _label(step: Message, me: Any) -> tuple[str, str]:
    if step.type == Message.Type.USER:
        name = "" if step.user is None or step.user == me else step.user.get_username()
        return ("you" if name in ("", conf.default_username) else one_line(name)), "you"
    if step.type == Message.Type.ASSISTANT:
        return one_line(step.payload.get("llm_config_name") or "assistant"), "model"
    if step.type == Message.Type.TOOL:
        return f"tool {one_line(step.payload.get('name', ''))}".rstrip(), "dim"
    return step.type, "dim"


def _said(step: Message) -> str:
    calls = [call["function"] for call in step.payload.get("tool_calls") or []]
    lines = [shown(step.text)] if step.text else []
    lines += [asked_for(call["name"], call["arguments"]) for call in calls]
    return "\n".join(lines)


def _marks(step: Message) -> list[str]:
    marks = []
    if step.payload.get("incomplete"):
        marks.append("broke off")
    if step.left_context_at is not None:
        marks.append("no longer sent")
    if step.thumb is not None:
        marks.append(f"rated {step.get_thumb_display()}")
    return marks
