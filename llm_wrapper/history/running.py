"""The stages of a running turn: calls, answers and tool calls. Each is one short transaction, or one statement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import F
from django.db.models.functions import Now

from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.models import LLMCall, Message, PromptVersion, ToolCall, Turn
from llm_wrapper.models.journal import provider_messages, sent_steps
from llm_wrapper.types import Completion, ConfigChoice, ToolCallRequest, ToolResult

from .database import stage, statement
from .state import TurnState, lost, renew, renew_for, tool_step, write_steps
from .text import storable


def window(state: TurnState, *, limit: int | None, replay_rendered: bool) -> tuple[int, list[dict[str, Any]]]:
    """The messages of the next call and the position of the first of them that is not pinned.

    With a `limit` these are the newest messages, begun at a user message so that a tool call is never
    parted from its result, and always reaching back to this turn's own message.
    """
    if state.messages is not None:
        return state.first_position, list(state.messages)
    first = 1
    if limit is not None:
        start = max(state.position - limit + 1, 1)
        own = state.user_message.position
        candidates = Message.objects.filter(
            chat=state.chat_id, type=Message.Type.USER, position__gte=start, position__lte=own
        )
        first = candidates.order_by("position").values_list("position", flat=True).first() or own
    steps = sent_steps(state.chat_id, first=first, last=state.position, system_id=state.system_message_id)
    state.first_position, state.messages = first, provider_messages(steps, state.turn_id, replay_rendered)
    return first, list(state.messages)


@statement
def start_call(
    state: TurnState,
    choice: ConfigChoice,
    *,
    route: Mapping[str, Any],
    first_position: int,
    prompt_version: PromptVersion | None,
    request_params: Mapping[str, Any],
    streamed: bool,
    timeout: float,
) -> LLMCall:
    """Put the call on record before it is made."""
    renew_for(state, timeout)
    state.calls += 1
    return LLMCall.objects.create(
        turn=state.turn,
        attempt=state.calls,
        config_name=choice.name,
        model=choice.model,
        prompt_version=prompt_version,
        first_position=first_position,
        last_position=state.position,
        system_message_id=state.system_message_id,
        request_params=storable(dict(request_params)),
        route=dict(route),
        streamed=streamed,
    )


@statement
def save_partial(state: TurnState, call: LLMCall, text: str, timeout: float) -> None:
    """Keep what has arrived of an answer, and show that the turn is alive."""
    renew(state, timeout)
    LLMCall.objects.filter(pk=call.pk).update(partial_text=storable(text))


@statement
def fail_call(call: LLMCall, error: LLMWrapperError, *, partial_text: str, latency: float, cancelled: bool) -> None:
    """Close a call that gave no answer. One that a take-over closed meanwhile is left as it is."""
    LLMCall.objects.filter(pk=call.pk, status=LLMCall.Status.RUNNING).update(
        status=LLMCall.Status.CANCELLED if cancelled else LLMCall.Status.FAILED,
        error_code=error.code,
        error_message=storable(str(error)),
        partial_text=storable(partial_text),
        latency=latency,
        finished_at=Now(),
    )


@stage
def save_answer(
    state: TurnState,
    call: LLMCall,
    completion: Completion,
    *,
    latency: float,
    time_to_first_token: float | None,
    final: bool,
) -> Message:
    """Close the call and commit its answer with usage and cost; `final` ends the turn in the same transaction."""
    if final:
        renew(state, status=Turn.Status.DONE, finished_at=Now(), lease_expires_at=None)
    else:
        renew(state)
    usage = completion.usage
    LLMCall.objects.filter(pk=call.pk).update(
        status=LLMCall.Status.DONE,
        model=completion.model or call.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=completion.cost,
        price_source=completion.price_source,
        latency=latency,
        time_to_first_token=time_to_first_token,
        finish_reason=completion.finish_reason[:50],
        response_id=storable(completion.response_id)[:200],
        partial_text="",
        finished_at=Now(),
    )
    payload: dict[str, Any] = {
        "llm_config_name": call.config_name,
        "message_generation_time": round(latency, 1),
    }
    if completion.tool_calls:
        payload["tool_calls"] = [request.as_message_part() for request in completion.tool_calls]
    (message,) = write_steps(
        state.chat_id,
        state.position,
        [
            {
                "type": Message.Type.ASSISTANT,
                "text": completion.text,
                "payload": payload,
                "turn": state.turn,
                "llm_call": call,
                "tokens": usage.output_tokens,
                "cost": completion.cost,
            }
        ],
        input_tokens_count=F("input_tokens_count") + (usage.input_tokens or 0),
        output_tokens_count=F("output_tokens_count") + (usage.output_tokens or 0),
        cost=F("cost") + (completion.cost or 0),
        unpriced_calls=F("unpriced_calls") + int(completion.cost is None),
        llm_config_name=call.config_name,
    )
    state.wrote(message)
    if completion.tool_calls:
        rows = [
            ToolCall(
                turn=state.turn,
                llm_call=call,
                provider_id=storable(request.id)[:200],
                tool=storable(request.name)[:100],
                arguments=storable(request.arguments),
            )
            for request in completion.tool_calls
        ]
        for request, row in zip(completion.tool_calls, ToolCall.objects.bulk_create(rows), strict=True):
            state.tool_calls[request.id] = row
    return message


@statement
def start_tool(state: TurnState, request: ToolCallRequest, timeout: float) -> None:
    """Put on record that a tool is about to run: after a crash it is known that it may have had its effect.

    Matches only while the call is pending, and a take-over ends that: so a worker that was taken over does not
    run the tool after all.
    """
    renew_for(state, timeout)
    pending = ToolCall.objects.filter(pk=state.tool_calls[request.id].pk, status=ToolCall.Status.PENDING)
    if not pending.update(status=ToolCall.Status.RUNNING):
        raise lost(state)


@stage
def finish_tool(state: TurnState, request: ToolCallRequest, result: ToolResult, duration: float) -> Message:
    """Commit a tool's result and the step that tells the model of it."""
    renew(state)
    ToolCall.objects.filter(pk=state.tool_calls[request.id].pk).update(
        status=result.status,
        result=storable(result.content),
        error_code=result.code,
        duration=duration,
    )
    (message,) = write_steps(
        state.chat_id, state.position, [tool_step(state.turn, request.id, request.name, result.content)]
    )
    state.wrote(message)
    del state.tool_calls[request.id]
    return message


@stage
def add_turn_step(state: TurnState, step: Mapping[str, Any]) -> Message:
    """Add one more step to a running turn, such as the request to repair an answer."""
    renew(state)
    (message,) = write_steps(state.chat_id, state.position, [{"turn": state.turn, **step}])
    state.wrote(message)
    return message
