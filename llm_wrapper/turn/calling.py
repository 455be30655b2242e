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
    InvalidProviderResponse,
    ProviderError,
    ProviderTimeout,
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

from . import cached
from .effects import CallModel, CallOutcome, Effect, do
from .progress import Progress
from .windows import fitting_window

# An answer that cannot be used may be the fault of what was asked: this is enough to keep a broken provider from being
# called by all at once, and too little for one user to shut the others out of a healthy one.
REST_AFTER_BAD_ANSWER = 1.0


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
            if progress.unsaved_text:
                # Only now: where no other config is left, what had arrived is all that there is, and is kept.
                progress.unsaved_text = ""
                yield StreamReset(reason=list(causes.values())[-1].code, **progress.ids)
            try:
                return (yield from _try_or_release(progress, choice, route))
            except ProviderError as error:
                causes[choice.name] = error
                raise
    raise AssertionError("unreachable: the policy returns or raises")


def _choose(
    progress: Progress, causes: dict[str, ProviderError]
) -> Generator[Effect | Event, Any, tuple[ConfigChoice, dict[str, Any]]]:
    progress.time_left()
    attempts = max(conf.max_attempts, 1)
    try:
        choice, route = yield do(
            configs.choose,
            progress.job.config_names,
            sticky=progress.state.config_name or progress.job.sticky or None,
            exclude={name: error.code for name, error in causes.items()},
            needs_tools=bool(progress.job.spec.tools),
            probe=len(causes) < attempts,
            any_model=progress.job.any_model,
        )
    except AllConfigsUnavailable as error:
        error.causes = {**causes, **error.causes}
        raise
    if len(causes) >= attempts:
        tried = ", ".join(f"{name[:100]} ({error.code})" for name, error in causes.items())
        raise AllConfigsUnavailable(
            f"{len(causes)} LLM configs were tried for one call and failed: {tried}. No more are tried "
            "(LLM_WRAPPER_MAX_ATTEMPTS). Try again, which begins with the others.",
            causes=causes,
        )
    progress.probing = choice.name if route.get("probe") else ""
    progress.state.config_name = choice.name
    draw = progress.job.draw
    if route["why"] == "sticky" and draw.get("chosen") == choice.name:
        route = {**route, "drawn": draw["why"]}
    return choice, route


def _try_or_release(
    progress: Progress, choice: ConfigChoice, route: dict[str, Any]
) -> Generator[Effect | Event, Any, tuple[Any, Completion, CallOutcome]]:
    """One try. If it was a probe and ended in a way that tells nothing of the config, another may probe it."""
    try:
        return (yield from _try(progress, choice, route))
    except Exception:
        if progress.probing:
            yield do(configs.release, choice.name)
        raise


def _try(
    progress: Progress, choice: ConfigChoice, route: dict[str, Any]
) -> Generator[Effect | Event, Any, tuple[Any, Completion, CallOutcome]]:
    """One try on one config, on record whatever happens."""
    job, state, journal = progress.job, progress.state, progress.journal
    allowed = choice.timeout or conf.call_timeout
    visible = [tools.visible_spec(tool) for tool in job.spec.tools] if choice.tools_enabled else []
    window = yield from fitting_window(progress, choice, visible)
    request = ModelRequest(
        config=choice,
        messages=window.messages,
        tools=visible,
        params=prompts.model_params(job.spec),
        response_format=job.response_format,
        stream=job.stream and choice.stream,
        timeout=min(allowed, progress.time_left()),
    )
    call = yield do(
        journal.start_call,
        state,
        choice,
        route=route,
        window=window,
        prompt_version=job.version,
        request_params=_shown_params(request),
        streamed=request.stream,
        timeout=request.timeout,
    )
    progress.call, progress.request = call, request
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

    def keep(text: str) -> None:
        # The config answers: no need to keep the others waiting until its answer is complete.
        _probe_ended_well(progress)
        journal.save_partial(state, call, text, request.timeout)

    outcome: CallOutcome | None = None
    if job.response_cache is not None:
        outcome = yield do(cached.find, job.response_cache, request, call)
    if outcome is None:
        outcome = yield CallModel(request, on_text, keep)
    elif request.stream and outcome.completion is not None:
        yield on_text(outcome.completion.text)
    progress.unsaved_text = outcome.partial_text
    if outcome.completion is not None:
        if progress.probing:
            yield do(_probe_ended_well, progress)
        return call, outcome.completion, outcome
    error = outcome.error or InternalError("The call ended with neither an answer nor an error.")
    # A provider may also say at once that something behind it took too long.
    waited = outcome.latency > 0.9 * request.timeout
    if isinstance(error, ProviderTimeout) and waited and request.timeout < allowed:
        # The turn's time ran out, not the call's: the config is not to blame.
        error = progress.time_is_up()
    if _may_fail_over(error):
        # Before the rows are written: the sooner the others know, the fewer run into the same failure.
        progress.probing = ""
        yield do(configs.cool, choice.name, retry_after=_rest_after(error), reason=error.code)
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
    raise error


def _probe_ended_well(progress: Progress) -> None:
    name, progress.probing = progress.probing, ""
    if name:
        configs.clear(name)


def _rest_after(error: BaseException) -> float | None:
    if isinstance(error, InvalidProviderResponse):
        return REST_AFTER_BAD_ANSWER
    return getattr(error, "retry_after", None)


def _shown_params(request: ModelRequest) -> dict[str, Any]:
    """What was sent besides the messages, without anything secret."""
    shown = {**request.config.params, **request.params, "timeout": request.timeout}
    if request.tools:
        shown["tools"] = request.tools
    if request.response_format is not None:
        shown["response_format"] = request.response_format.model_json_schema()
    return shown
