"""What of the chat goes into a call: the window that fits, and a summary of what no longer does."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from typing import Any

from llm_wrapper import history, prompts
from llm_wrapper.conf import conf
from llm_wrapper.errors import InvalidProviderResponse, LLMWrapperError, TurnCancelled
from llm_wrapper.events import Event, LLMCallFinished, LLMCallStarted, TextDelta
from llm_wrapper.transport import counting
from llm_wrapper.types import Completion, ConfigChoice, ModelRequest, PromptSpec

from .effects import CallModel, CallOutcome, Effect, do
from .progress import Progress

log = logging.getLogger("llm_wrapper.turn")

# The tokenizer that counts is not the model's own: so much of the window is left free.
MARGIN = 0.1
# Tokens kept for the answer where no max_tokens says how many it may have.
ANSWER_TOKENS = 4096
# How much is summed up at once where it is not known what the model has room for.
SUMMED_TOKENS = 16_000
# JSON has about three characters a token; rather too many tokens than too few.
CHARS_PER_TOKEN_OF_JSON = 3


def fitting_window(
    progress: Progress, choice: ConfigChoice, tools: list[dict[str, Any]]
) -> Generator[Effect | Event, Any, history.Window]:
    """The window of the next call. Where the prompt wants one, a summary of what is left out is made first, by a call
    of its own; where that fails the turn goes on without it."""
    window: history.Window = yield do(_window, progress, choice, tools)
    if window.unsummed is None:
        return window
    to_sum_up = yield do(_to_sum_up, progress, choice, window.unsummed)
    if to_sum_up is None:
        return window
    yield from _sum_up(progress, choice, to_sum_up)
    return (yield do(_window, progress, choice, tools))


def _window(progress: Progress, choice: ConfigChoice, tools: list[dict[str, Any]]) -> Any:
    spec = progress.job.spec
    return progress.journal.window(
        progress.state,
        limit=spec.history_window if spec.history_window is not None else conf.history_window,
        budget=_budget(spec, choice, tools),
        summarise=spec.summarise_left_out and not progress.summary_failed,
        replay_rendered=spec.replay_rendered,
    )


def _budget(spec: PromptSpec, choice: ConfigChoice, tools: list[dict[str, Any]]) -> history.Budget | None:
    """What the messages of a call may take: what the model has room for, and no more than the prompt says. None where
    neither is known."""
    known = [tokens for tokens in (spec.history_tokens, _room(spec, choice, tools)) if tokens is not None]
    return history.Budget(min(known), counting.count_tokens) if known else None


def _room(spec: PromptSpec, choice: ConfigChoice, tools: list[dict[str, Any]]) -> int | None:
    """How many tokens of messages the model has room for beside the tools' definitions and the answer; None where its
    context window is not known."""
    size = choice.context_window
    if size is None and not choice.model.startswith("demo/"):
        size = counting.context_window(choice.price_model, choice.model)
    if size is None:
        return None
    params = {**choice.params, **prompts.model_params(spec)}
    asked = params.get("max_completion_tokens") or params.get("max_tokens")
    answer = min(asked if isinstance(asked, int) else ANSWER_TOKENS, size // 2)
    defined = len(json.dumps(tools)) // CHARS_PER_TOKEN_OF_JSON if tools else 0
    return max(int(size * (1 - MARGIN)) - answer - defined, 0)


def _to_sum_up(progress: Progress, choice: ConfigChoice, positions: tuple[int, int]) -> Any:
    spec = progress.job.spec
    room = _room(spec, choice, [])
    if room is None:
        room = max(spec.history_tokens or 0, SUMMED_TOKENS)
    return progress.journal.to_sum_up(
        progress.state,
        positions,
        instructions=spec.summary_instructions,
        room=history.Budget(room, counting.count_tokens),
    )


def _sum_up(progress: Progress, choice: ConfigChoice, request_rows: Any) -> Generator[Effect | Event, Any, None]:
    journal, state, job = progress.journal, progress.state, progress.job
    request = ModelRequest(
        config=choice,
        messages=request_rows.messages,
        timeout=min(choice.timeout or conf.call_timeout, progress.time_left()),
    )
    call = yield do(
        journal.start_summary, state, choice, request_rows, prompt_version=job.version, timeout=request.timeout
    )
    progress.call = call
    yield LLMCallStarted(
        llm_call_id=call.pk, config_name=choice.name, model=choice.model, attempt=state.calls, **progress.ids
    )
    outcome: CallOutcome = yield CallModel(request, _no_text, _keep_nothing)
    completion, error = outcome.completion, outcome.error
    if completion is not None and completion.text:
        yield do(journal.save_summary, state, call, completion, request_rows, latency=outcome.latency)
        progress.count(completion)
        yield LLMCallFinished(
            llm_call_id=call.pk,
            config_name=choice.name,
            latency=outcome.latency,
            usage=completion.usage,
            cost=completion.cost,
            **progress.ids,
        )
        return
    if error is None:
        error = _empty(completion)
    yield from _went_without(progress, call, outcome, error)


def _empty(completion: Completion | None) -> LLMWrapperError:
    """The error of a summary without a text, with what the call took all the same."""
    error = InvalidProviderResponse("The summary came back empty.")
    if completion is not None:
        error.usage, error.cost, error.price_source = completion.usage, completion.cost, completion.price_source
    return error


def _went_without(
    progress: Progress, call: Any, outcome: CallOutcome, error: LLMWrapperError
) -> Generator[Effect | Event, Any, None]:
    cancelled = isinstance(error, TurnCancelled)
    yield do(progress.journal.fail_call, call, error, partial_text="", latency=outcome.latency, cancelled=cancelled)
    yield LLMCallFinished(
        llm_call_id=call.pk,
        config_name=call.config_name,
        error_code=error.code,
        latency=outcome.latency,
        **progress.ids,
    )
    if cancelled:
        raise error
    log.warning("Turn %s goes on without a summary: %s (%s)", progress.state.turn_id, error, error.code)
    progress.summary_failed = True


def _no_text(text: str) -> TextDelta:
    raise AssertionError("A summary is not streamed.")


def _keep_nothing(text: str) -> None:
    raise AssertionError("A summary is not streamed.")
