"""The stages of a running turn: calls, answers and tool calls. Each is one short transaction, or one statement."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptVersion, ToolCall, Turn
from llm_wrapper.types import Completion, ConfigChoice, ToolCallRequest, ToolResult, Usage

from . import prepared
from .database import stage, statement
from .state import TurnState, lost, renew, renew_for, tool_step, write_steps
from .text import storable
from .windowing import Window


@statement
def start_call(
    state: TurnState,
    choice: ConfigChoice,
    *,
    route: Mapping[str, Any],
    window: Window,
    prompt_version: PromptVersion | None,
    request_params: Mapping[str, Any],
    streamed: bool,
    timeout: float,
) -> LLMCall:
    """Put the call on record before it is made."""
    return open_call(
        state,
        choice,
        timeout,
        prompt_version=prompt_version,
        first_position=window.first_position,
        last_position=state.position,
        system_message_id=state.system_message_id,
        request_params=storable(dict(request_params)),
        route=dict(route),
        streamed=streamed,
    )


def open_call(state: TurnState, choice: ConfigChoice, timeout: float, **columns: Any) -> LLMCall:
    """The row of a call that is about to be made. Raises TurnCancelled where somebody asked to stop the turn since it
    was opened."""
    if state.calls:
        renew(state, timeout)
    else:
        renew_for(state, timeout)
    state.calls += 1
    call = LLMCall(
        turn=state.turn,
        user_id=state.user_id,
        attempt=state.calls,
        config_name=choice.name,
        model=choice.model,
        **columns,
    )
    prepared.insert(call)
    return call


@statement
def save_partial(state: TurnState, call: LLMCall, text: str, timeout: float) -> None:
    """Keep what has arrived of an answer, and show that the turn is alive."""
    renew(state, timeout)
    prepared.update(LLMCall, {"pk": call.pk}, {"partial_text": storable(text)})


@stage
def fail_call(call: LLMCall, error: LLMWrapperError, *, partial_text: str, latency: float, cancelled: bool) -> None:
    """Close a call that gave no answer, with what it cost where the provider said. One that a take-over closed
    meanwhile is left as it is."""
    usage: Usage = getattr(error, "usage", None) or Usage()
    cost: Decimal | None = getattr(error, "cost", None)
    columns = {
        "status": LLMCall.Status.CANCELLED if cancelled else LLMCall.Status.FAILED,
        "error_code": error.code,
        "error_message": storable(str(error)),
        "partial_text": storable(partial_text),
        "latency": latency,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": cost,
        "price_source": getattr(error, "price_source", ""),
        "finished_at": prepared.DatabaseNow(),
    }
    closed = prepared.update(LLMCall, {"pk": call.pk, "status": LLMCall.Status.RUNNING}, columns)
    if closed and usage != Usage():
        prepared.update(ChatHistory, {"pk": call.turn.chat_id}, spent(usage, cost))  # type: ignore[union-attr]


@stage
def save_answer(
    state: TurnState,
    call: LLMCall,
    completion: Completion,
    *,
    latency: float,
    time_to_first_token: float | None,
    final: bool,
    author: Any = None,
) -> Message:
    """Close the call and commit its answer with usage and cost; `final` ends the turn in the same transaction.
    `author` is the user that the answer is stored under."""
    # Whoever asks to stop now comes too late for this answer: it is there, and was paid for.
    if final:
        ended: dict[str, Any] = {
            "status": Turn.Status.DONE,
            "finished_at": prepared.DatabaseNow(),
            "lease_expires_at": None,
        }
        renew(state, to_end_it=True, **ended)
    else:
        renew(state, to_end_it=True)
    columns = close_call(call, completion, latency=latency, time_to_first_token=time_to_first_token)
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
                "user": author,
                "tokens": completion.usage.output_tokens,
                "cost": completion.cost,
            }
        ],
        **columns,
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


def close_call(
    call: LLMCall, completion: Completion, *, latency: float, time_to_first_token: float | None
) -> dict[str, Any]:
    """Close a call that was answered; gives what that adds to the chat's counters, for the same transaction."""
    usage = completion.usage
    answered = {
        "status": LLMCall.Status.DONE,
        "model": completion.model or call.model,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": completion.cost,
        "price_source": completion.price_source,
        "latency": latency,
        "time_to_first_token": time_to_first_token,
        "finish_reason": completion.finish_reason[:50],
        "response_id": storable(completion.response_id)[:200],
        "partial_text": "",
        "finished_at": prepared.DatabaseNow(),
    }
    prepared.update(LLMCall, {"pk": call.pk}, answered)
    return spent(usage, completion.cost)


def spent(usage: Usage, cost: Decimal | None) -> dict[str, Any]:
    """The columns of a chat to which a call's tokens and cost are added."""
    return {
        "input_tokens_count": prepared.Plus(usage.input_tokens or 0),
        "output_tokens_count": prepared.Plus(usage.output_tokens or 0),
        "cost": prepared.Plus(cost or 0),
        "unpriced_calls": prepared.Plus(int(cost is None)),
    }


@statement
def start_tool(state: TurnState, request: ToolCallRequest, timeout: float) -> None:
    """Put on record that a tool is about to run: after a crash it is known that it may have had its effect.

    Matches only while the call is pending, and a take-over ends that: so a worker that was taken over does not
    run the tool after all. Raises TurnCancelled where somebody asked to stop the turn.
    """
    renew(state, timeout)
    pending = {"pk": state.tool_calls[request.id].pk, "status": ToolCall.Status.PENDING}
    if not prepared.update(ToolCall, pending, {"status": ToolCall.Status.RUNNING}):
        raise lost(state)


@stage
def finish_tool(state: TurnState, request: ToolCallRequest, result: ToolResult, duration: float) -> Message:
    """Commit a tool's result and the step that tells the model of it: also where the turn is to stop, since the tool
    has run."""
    renew(state, to_end_it=True)
    ended = {
        "status": result.status,
        "result": storable(result.content),
        "error_code": result.code,
        "duration": duration,
    }
    prepared.update(ToolCall, {"pk": state.tool_calls[request.id].pk}, ended)
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
