"""Summaries of what no longer fits into the window: each a step of the chat, made by a recorded call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_wrapper.models import LLMCall, Message, PromptVersion
from llm_wrapper.models.journal import SUMMARY_INSTRUCTIONS, summary_request, summed_steps
from llm_wrapper.types import Completion, ConfigChoice

from . import prepared
from .database import stage, statement
from .running import close_call, open_call
from .state import TurnState, renew, write_steps

# More than so many characters are not summed up at once: the call must fit, too. The newest are taken.
MAX_CHARS = 60_000


@dataclass(frozen=True)
class SummaryRequest:
    """What is to be summed up: the steps from `first` to `last`, on top of the summary `previous`."""

    first: int
    last: int
    previous: Message | None
    instructions: str
    messages: list[dict[str, Any]]


def to_sum_up(state: TurnState, positions: tuple[int, int], *, instructions: str) -> SummaryRequest:
    """The request that sums up the steps at these positions (first, last)."""
    first, last = positions
    previous = (
        Message.objects.filter(chat=state.chat_id, type=Message.Type.SUMMARY, left_context_at=None)
        .order_by("position")
        .last()
    )
    steps: list[Message] = []
    length = 0
    newest_first = summed_steps(state.chat_id, first, last).order_by("-position")
    for step in newest_first.iterator(chunk_size=200):
        length += len(step.text)
        if length > MAX_CHARS and steps:
            break
        steps.append(step)
    steps.reverse()
    told = instructions or SUMMARY_INSTRUCTIONS
    return SummaryRequest(
        first=steps[0].position if steps else first,
        last=last,
        previous=previous,
        instructions=told,
        messages=summary_request(told, previous, steps),
    )


@statement
def start_summary(
    state: TurnState,
    choice: ConfigChoice,
    request: SummaryRequest,
    *,
    prompt_version: PromptVersion | None,
    timeout: float,
) -> LLMCall:
    """Put the call on record before it is made. Its `system_message` is the summary that it goes on from."""
    return open_call(
        state,
        choice,
        timeout,
        purpose=LLMCall.Purpose.SUMMARY,
        prompt_version=prompt_version,
        first_position=request.first,
        last_position=request.last,
        system_message=request.previous,
        request_params={"timeout": timeout, "summary_instructions": request.instructions},
    )


@stage
def save_summary(
    state: TurnState, call: LLMCall, completion: Completion, request: SummaryRequest, *, latency: float
) -> Message:
    """Commit the summary as a pinned step in place of the one before it."""
    renew(state)
    columns = close_call(call, completion, latency=latency, time_to_first_token=None)
    step = {
        "type": Message.Type.SUMMARY,
        "text": completion.text,
        "payload": {
            "until": request.last,
            "system_generated": True,
            "show_in_user_history": False,
            "llm_config_name": call.config_name,
        },
        "pinned": True,
        "turn": state.turn,
        "llm_call": call,
        "tokens": completion.usage.output_tokens,
        "cost": completion.cost,
    }
    (message,) = write_steps(state.chat_id, state.position, [step], **columns)
    if request.previous is not None:
        prepared.update(Message, {"pk": request.previous.pk}, {"left_context_at": message.position})
    state.position = message.position
    state.window = None
    return message
