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
from .windowing import TOKENIZER, TOKENS_PER_MESSAGE, Budget


@dataclass(frozen=True)
class SummaryRequest:
    """What is to be summed up: the steps from `first` to `last`, on top of the summary `previous`. Of a longer step
    only `step_chars` characters are shown."""

    first: int
    last: int
    previous: Message | None
    instructions: str
    step_chars: int
    messages: list[dict[str, Any]]


def to_sum_up(
    state: TurnState, positions: tuple[int, int], *, instructions: str, room: Budget
) -> SummaryRequest | None:
    """The request that sums up the steps at these positions (first, last); None where nothing was said there.

    Of more than has `room` the newest is taken, and of a step that is very long its beginning.
    """
    first, last = positions
    previous = (
        Message.objects.filter(chat=state.chat_id, type=Message.Type.SUMMARY, left_context_at=None)
        .order_by("position")
        .last()
    )
    told = instructions or SUMMARY_INSTRUCTIONS
    left = room.tokens - sum(room.count(text) for text in (told, previous.text if previous else ""))
    left -= 3 * TOKENS_PER_MESSAGE  # the two messages, and what stands before the summary so far
    step_chars = max(left // 2, 1)
    steps: list[Message] = []
    newest_first = summed_steps(state.chat_id, first, last).order_by("-position")
    for step in newest_first.iterator(chunk_size=200):
        tokens = _tokens(step, step_chars, room)
        while not steps and tokens > left and step_chars > 1:
            step_chars //= 2
            tokens = _tokens(step, step_chars, room)
        if steps and tokens > left:
            break
        left -= tokens
        steps.append(step)
    if not steps:
        return None
    steps.reverse()
    return SummaryRequest(
        first=steps[0].position,
        # Not `last`: what is out of the context now, because it is being answered anew, may come back behind it.
        last=steps[-1].position,
        previous=previous,
        instructions=told,
        step_chars=step_chars,
        messages=summary_request(told, previous, steps, step_chars),
    )


def _tokens(step: Message, chars: int, room: Budget) -> int:
    """How many tokens a step has at most in the request."""
    known = step.token_counts.get(TOKENIZER)
    if known is None or len(step.text) > chars:
        return room.count(step.text[:chars]) + TOKENS_PER_MESSAGE
    return int(known)


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
        request_params={
            **choice.params,
            "timeout": timeout,
            "summary_instructions": request.instructions,
            "summary_step_chars": request.step_chars,
        },
    )


@stage
def save_summary(
    state: TurnState, call: LLMCall, completion: Completion, request: SummaryRequest, *, latency: float
) -> Message:
    """Commit the summary as a pinned step in place of the one before it."""
    renew(state, to_end_it=True)
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
