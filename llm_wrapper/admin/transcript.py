"""A conversation as the admin shows it: pages of steps, grouped by turn, with every call and tool run.

The number of queries does not depend on how long the page is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn

from . import formats
from .base import badge
from .formats import pretty, pretty_text

PAGE_SIZE = 100
SHOWN_ELSEWHERE = frozenset(
    (
        "tool_calls",
        "tool_call_id",
        "name",
        "system_generated",
        "show_in_user_history",
        "incomplete",
        "context_vars",
        "llm_config_name",
        "message_generation_time",
        "until",
    )
)


def run_badge(run: ToolCall | None) -> str:
    """The status of a tool's run, with the reason where it did not work."""
    return badge(run.status, title=run.error_code) if run else ""


@dataclass
class ToolRequest:
    """A tool call as the model asked for it, with the row of its run where there is one."""

    name: str
    arguments: str
    run: ToolCall | None = None

    @property
    def badge(self) -> str:
        return run_badge(self.run)


@dataclass
class Step:
    """One step and what belongs to it."""

    message: Message
    run: ToolCall | None = None

    kind = "step"

    @cached_property
    def asked(self) -> list[tuple[str, ToolRequest]]:
        """The tool calls that the step asks for, each with the id the model gave it."""
        return requested(self.message.payload) if self.message.type == Message.Type.ASSISTANT else []

    @property
    def requests(self) -> list[ToolRequest]:
        return [request for _, request in self.asked]

    @property
    def badge(self) -> str:
        return run_badge(self.run)

    @property
    def took(self) -> str:
        return formats.seconds(self.run.duration) if self.run else ""

    @property
    def title(self) -> str:
        """Whose step it is: the role, for a result the tool's name."""
        if self.message.type == Message.Type.TOOL:
            return str(self.message.payload.get("name") or (self.run.tool if self.run else "tool"))
        if self.message.type == Message.Type.SUMMARY:
            return f"summary of all up to step {self.message.payload.get('until', '?')}"
        return str(self.message.type)

    @property
    def figures(self) -> list[str]:
        """What the answer took: model, tokens, cost, latency."""
        call = self.message.llm_call
        if call is None:
            return []
        if call.cache_hit:
            return [call.model, "from the response cache"]
        tokens = [count for count in (call.input_tokens, call.output_tokens) if count is not None]
        return [
            call.model,
            f"{formats.count(call.input_tokens)} in, {formats.count(call.output_tokens)} out"
            if tokens
            else "tokens unknown",
            f"cost {formats.cost(call.cost)}",
            formats.seconds(call.latency),
        ]

    @property
    def rendered(self) -> str | None:
        """What was sent in place of the text, where that differs."""
        text = self.message.rendered_text
        return None if text == self.message.text else text

    @property
    def result(self) -> str:
        """The text, indented if it is JSON: what tools return."""
        return pretty_text(self.message.text)

    @property
    def details(self) -> list[tuple[str, str]]:
        """What else the step holds, as JSON under a heading."""
        payload = self.message.payload
        rest = {key: value for key, value in payload.items() if key not in SHOWN_ELSEWHERE}
        found = [("Context variables", payload.get("context_vars")), ("Further values", rest)]
        return [(heading, pretty(value)) for heading, value in found if value]

    @property
    def flags(self) -> list[str]:
        """What is unusual about the step, in words."""
        payload = self.message.payload
        flags = []
        if payload.get("incomplete"):
            flags.append("incomplete")
        if self.message.type == Message.Type.SUMMARY:
            return ["replaced by a newer one"] if self.has_left else ["in force"]
        if payload.get("system_generated"):
            flags.append("system generated")
        if payload.get("show_in_user_history") is False:
            flags.append("hidden from the user")
        if self.message.pinned:
            flags.append("pinned")
        if self.has_left:
            flags.append("no longer sent")
        return flags

    @property
    def has_left(self) -> bool:
        """Whether calls no longer send the step."""
        return self.message.left_context_at is not None


@dataclass
class Unanswered:
    """An LLM call that gave no step: it failed, or it is still running."""

    call: LLMCall

    kind = "call"


@dataclass
class Block:
    """The steps of one turn; those before the first turn have none."""

    turn: Turn | None
    items: list[Step | Unanswered]
    anew: Turn | None = None  # the turn that answers the same message anew

    @property
    def badge(self) -> str:
        return badge(self.turn.status) if self.turn else ""


@dataclass
class Page:
    """A part of a chat. `older` is the `before` of the page before it, None on the first one."""

    blocks: list[Block]
    older: int | None = None
    is_newest: bool = True


def page(chat: ChatHistory, before: int | None = None, size: int = PAGE_SIZE) -> Page:
    """The newest `size` steps of a chat, or those before a position. A turn is not cut, if it fits."""
    steps = chat.messages.select_related("llm_call", "user").order_by("-position")
    if before is not None:
        steps = steps.filter(position__lt=before)
    newest = list(steps[: size + 1])
    shown, beyond = newest[:size][::-1], newest[size:]
    cut_turn = beyond[0].turn_id if beyond else None
    if cut_turn is not None and shown[-1].turn_id != cut_turn:
        shown = [step for step in shown if step.turn_id != cut_turn]
    return Page(
        blocks=blocks(shown),
        older=shown[0].position if beyond else None,
        is_newest=before is None or before > chat.last_position,
    )


def blocks(steps: Sequence[Message]) -> list[Block]:
    """Steps of one chat, in order, grouped by turn, with the calls and tool runs of these turns."""
    turn_ids = {step.turn_id for step in steps if step.turn_id is not None}
    turns = Turn.objects.select_related("replaces").in_bulk(turn_ids)
    anew = {turn.replaces_id: turn for turn in Turn.objects.filter(replaces__in=turn_ids)}
    calls: dict[int | None, list[LLMCall]] = {}
    for call in LLMCall.objects.filter(turn__in=turn_ids).order_by("turn", "attempt"):
        calls.setdefault(call.turn_id, []).append(call)
    runs = {(run.llm_call_id, run.provider_id): run for run in ToolCall.objects.filter(turn__in=turn_ids)}
    return [
        Block(
            turn=turns.get(turn_id) if turn_id is not None else None,
            items=_items(list(group), calls.get(turn_id, []) if turn_id is not None else [], runs),
            anew=anew.get(turn_id),
        )
        for turn_id, group in groupby(steps, key=lambda step: step.turn_id)
    ]


def _items(
    steps: Iterable[Message], calls: Sequence[LLMCall], runs: dict[tuple[int, str], ToolCall]
) -> list[Step | Unanswered]:
    steps = list(steps)
    answered = {step.llm_call_id for step in steps}
    unanswered = [call for call in calls if call.pk not in answered and not _answered_earlier(call, steps)]
    asked: dict[str, ToolRequest] = {}
    items: list[Step | Unanswered] = []
    for message in steps:
        step = Step(message)
        if message.type in (Message.Type.ASSISTANT, Message.Type.SUMMARY):
            answering = message.llm_call
            while answering and unanswered and unanswered[0].attempt < answering.attempt:
                items.append(Unanswered(unanswered.pop(0)))
            for provider_id, request in step.asked:
                if message.llm_call_id is not None:
                    request.run = runs.get((message.llm_call_id, provider_id))
                asked[provider_id] = request
        elif message.type == Message.Type.TOOL:
            found = asked.get(str(message.payload.get("tool_call_id")))
            step.run = found.run if found else None
        items.append(step)
    return [*items, *map(Unanswered, unanswered)]


def _answered_earlier(call: LLMCall, steps: Sequence[Message]) -> bool:
    """Whether the call's answer stands before these steps, on the previous page."""
    return call.status == LLMCall.Status.DONE and bool(steps) and call.last_position + 1 < steps[0].position


def requested(message: dict[str, Any]) -> list[tuple[str, ToolRequest]]:
    """The tool calls that a message in OpenAI's format asks for, each with the id the model gave it."""
    parts = message.get("tool_calls")
    if not isinstance(parts, list):
        return []
    return [_request(part) for part in parts if isinstance(part, dict)]


def _request(part: dict[str, Any]) -> tuple[str, ToolRequest]:
    function = part.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments", "")
    text = pretty_text(arguments) if isinstance(arguments, str) else pretty(arguments)
    return str(part.get("id", "")), ToolRequest(name=str(function.get("name", "?")), arguments=text)
