"""One answered call: choose a config, call it, and leave it for another where it is limited, slow or dead."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tenacity import Retrying, retry_if_exception, wait_none

from llm_wrapper import configs, prompts, tools
from llm_wrapper.conf import conf
from llm_wrapper.errors import (
    AllConfigsUnavailable,
    InternalError,
    ProviderError,
    TurnCancelled,
)
from llm_wrapper.events import (
    Event,
    LLMCallFinished,
    LLMCallStarted,
    StreamReset,
    TextDelta,
)
from llm_wrapper.types import (
    Completion,
    ConfigChoice,
    ModelRequest,
)

from .effects import CallModel, CallOutcome, Effect, do
from .progress import Progress


def _may_fail_over(error: BaseException) -> bool:
    return isinstance(error, ProviderError) and error.fails_over


def call_model(progress: Progress) -> Generator[Effect | Event, Any, tuple[Any, Completion, CallOutcome]]:
    """One answered call. A config that is limited, slow or dead is left for another where the job allows it."""
    job = progress.job
    causes: dict[str, ProviderError] = {}
    policy = Retrying(
        retry=retry_if_exception(lambda error: job.fail_over and _may_fail_over(error)),
        wait=wait_none(),
        sleep=lambda seconds: None,
        reraise=True,
    )
    for attempt in policy:
        with attempt:
            choice, route = yield from _choose(progress, causes)
            try:
                return (yield from _try(progress, choice, route))
            except ProviderError as error:
                causes[choice.name] = error
                if job.fail_over and error.fails_over and progress.unsaved_text:
                    progress.unsaved_text = ""
                    yield StreamReset(reason=error.code, **progress.ids)
                raise
    raise AssertionError("unreachable: the policy returns or raises")


def _choose(
    progress: Progress, causes: dict[str, ProviderError]
) -> Generator[Effect | Event, Any, tuple[ConfigChoice, dict[str, Any]]]:
    try:
        choice, route = yield do(
            configs.choose,
            progress.job.config_names,
            sticky=progress.state.config_name or progress.job.sticky or None,
            exclude={name: error.code for name, error in causes.items()},
            needs_tools=bool(progress.job.spec.tools),
        )
    except AllConfigsUnavailable as error:
        error.causes = {**causes, **error.causes}
        raise
    progress.state.config_name = choice.name
    draw = progress.job.draw
    if route["why"] == "sticky" and draw.get("chosen") == choice.name:
        route = {**route, "drawn": draw["why"]}
    return choice, route


def _try(
    progress: Progress, choice: ConfigChoice, route: dict[str, Any]
) -> Generator[Effect | Event, Any, tuple[Any, Completion, CallOutcome]]:
    """One try on one config, on record whatever happens."""
    job, state, journal = progress.job, progress.state, progress.journal
    limit = job.spec.history_window if job.spec.history_window is not None else conf.history_window
    first, messages = yield do(journal.window, state, limit=limit, replay_rendered=job.spec.replay_rendered)
    request = ModelRequest(
        config=choice,
        messages=messages,
        tools=[tools.visible_spec(tool) for tool in job.spec.tools] if choice.tools_enabled else [],
        params=prompts.model_params(job.spec),
        response_format=job.response_format,
        stream=job.stream and choice.stream,
        timeout=choice.timeout or conf.call_timeout,
    )
    call = yield do(
        journal.start_call,
        state,
        choice,
        route=route,
        first_position=first,
        prompt_version=job.version,
        request_params=_shown_params(request),
        streamed=request.stream,
        timeout=request.timeout,
    )
    progress.call = call
    yield LLMCallStarted(
        llm_call_id=call.pk,
        config_name=choice.name,
        model=choice.model,
        attempt=state.calls,
        route=route,
        **progress.ids,
    )

    def on_text(text: str) -> TextDelta:
        progress.deltas += 1
        return TextDelta(text=text, number=progress.deltas, **progress.ids)

    outcome: CallOutcome = yield CallModel(
        request, on_text, lambda text: journal.save_partial(state, call, text, request.timeout)
    )
    progress.unsaved_text = outcome.partial_text
    if outcome.completion is not None:
        yield do(configs.clear, choice.name)
        return call, outcome.completion, outcome
    error = outcome.error or InternalError("The call ended with neither an answer nor an error.")
    yield do(
        journal.fail_call,
        call,
        error,
        partial_text=outcome.partial_text,
        latency=outcome.latency,
        cancelled=isinstance(error, TurnCancelled),
    )
    yield LLMCallFinished(
        llm_call_id=call.pk,
        config_name=choice.name,
        error_code=error.code,
        latency=outcome.latency,
        **progress.ids,
    )
    if _may_fail_over(error):
        retry_after = getattr(error, "retry_after", None)
        yield do(configs.cool, choice.name, retry_after=retry_after, reason=error.code)
    raise error


def _shown_params(request: ModelRequest) -> dict[str, Any]:
    """What was sent besides the messages, without anything secret."""
    shown = {**request.config.params, **request.params, "timeout": request.timeout}
    if request.tools:
        shown["tools"] = request.tools
    if request.response_format is not None:
        shown["response_format"] = request.response_format.model_json_schema()
    return shown
