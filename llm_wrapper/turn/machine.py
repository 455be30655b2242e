"""The one turn logic, as a plain generator: it yields effects and events, and is sent the outcomes.

It does no I/O, so it serves the sync and the async driver alike, and a test can stop it at every single effect.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenacity import Retrying, retry_if_exception, wait_none

from llm_wrapper import configs, prompts, tools
from llm_wrapper.conf import conf
from llm_wrapper.errors import (
    AllConfigsUnavailable,
    InternalError,
    LLMWrapperError,
    PromptError,
    ProviderError,
    ResponseFormatError,
    TooManyToolRounds,
    TurnCancelled,
    TurnInProgress,
    TurnLost,
)
from llm_wrapper.events import (
    Event,
    LLMCallFinished,
    LLMCallStarted,
    StreamReset,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from llm_wrapper.types import (
    Completion,
    ConfigChoice,
    LLMReply,
    ModelRequest,
    ToolCallRequest,
    ToolResult,
    Usage,
)

from .effects import CallModel, CallOutcome, Effect, Machine, RunTool, Sleep, do
from .job import TurnJob

log = logging.getLogger("llm_wrapper.turn")


@dataclass
class Progress:
    """What a running turn has gathered so far."""

    job: TurnJob
    journal: Any
    state: Any
    call: Any = None
    deltas: int = 0
    unsaved_text: str = ""
    tool_runs: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    cost: Any = 0
    repaired: bool = False
    parsed: Any = None

    @property
    def ids(self) -> dict[str, Any]:
        return {"turn_id": self.state.turn_id, "chat_id": self.state.chat_id}

    def count(self, completion: Completion) -> None:
        """Add a call's usage and cost to the turn's; one unknown makes the sum unknown."""
        self.usage = Usage(
            **{
                name: _sum(getattr(self.usage, name), getattr(completion.usage, name))
                for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
            }
        )
        self.cost = None if self.cost is None or completion.cost is None else self.cost + completion.cost


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def run_turn(job: TurnJob, journal: Any) -> Machine:
    """The turn of `job`. `journal` holds the stages in the database: the module `llm_wrapper.history`, or
    something with the same functions."""
    # An effect, so that an expensive template holds up a thread and not the event loop.
    rendered, render_error = yield do(_render, job)
    state = yield from _open(job, journal, rendered)
    if not hasattr(state, "turn_id"):  # the turn of an earlier request with this idempotency key
        yield from _repeat(journal, state)
        return
    progress = Progress(job, journal, state)
    yield TurnStarted(message_id=getattr(state.user_message, "pk", None), **progress.ids)
    yield from _to_its_end(progress, (), render_error)


def resume_turn(job: TurnJob, journal: Any, turn_id: int) -> Machine:
    """Take over a turn whose worker is gone, and end it with an answer. Does nothing where the turn is alive.

    Tool calls that were not started are run now. One that was interrupted is run again, with the same
    `tool_call_key`, only if its tool is declared idempotent; otherwise the model is told that its outcome is unknown.
    """
    taken = yield do(journal.take_over, turn_id)
    if taken is None:
        return
    state, without_result = taken
    yield from _to_its_end(Progress(job, journal, state), without_result, None)


def _open(job: TurnJob, journal: Any, rendered: dict[str, Any]) -> Generator[Effect | Event, Any, Any]:
    """Open the turn, or wait for the one that runs on the chat, as long as the job says."""
    waited = 0.0
    while True:
        try:
            return (
                yield do(
                    journal.open_turn,
                    job.chat_id,
                    text=job.message,
                    user=job.user,
                    idempotency_key=job.idempotency_key,
                    remembered=prompts.remembered(job.spec, job.context),
                    payload=_logged(job),
                    **rendered,
                )
            )
        except TurnInProgress:
            if waited >= job.wait:
                raise
        pause = min(0.2, job.wait - waited)
        yield Sleep(pause)
        waited += pause


def _to_its_end(
    progress: Progress, without_result: Sequence[Any], render_error: PromptError | None
) -> Generator[Effect | Event, Any, None]:
    """Answer, and close the turn whatever happens."""
    journal, state = progress.journal, progress.state
    try:
        if render_error is not None:
            raise render_error
        for row in without_result:
            yield from _finish_interrupted(progress, row)
        reply = yield from _answer(progress)
    except TurnLost:
        if progress.call is not None:
            yield do(journal.lose_call, progress.call)
        raise
    except LLMWrapperError as error:
        yield from _fail(progress, error)
        raise
    except Exception:
        log.exception("Turn %s failed", state.turn_id)
        yield from _fail(progress, InternalError("A step of the turn failed; the traceback is in the log."))
        raise
    yield TurnFinished(reply=reply, message_id=reply.id, usage=reply.usage, cost=reply.cost, **progress.ids)


# -- render ----------------------------------------------------------------------------------------------


def _render(job: TurnJob) -> tuple[dict[str, Any], PromptError | None]:
    """System prompt, initial messages and user message. Missing variables are raised at once, before anything
    is stored; any other failure is given back, so that the user's message is stored first."""
    prompts.require(job.spec, job.context)
    try:
        return {
            "system_text": prompts.render_system(job.spec, job.context) if job.spec.system else None,
            "initial_steps": initial_steps(job.spec, job.context) if job.initial else (),
            "rendered_text": prompts.render_user(job.spec, job.message, job.context) if job.spec.user else None,
        }, None
    except PromptError as error:
        return {}, error


def initial_steps(spec: Any, context: Any) -> list[dict[str, Any]]:
    """The initial messages of a prompt as steps. They stay in every call's window."""
    return [
        {
            "type": message["role"],
            "text": message["content"],
            "pinned": True,
            "payload": {"system_generated": True, "show_in_user_history": False},
        }
        for message in prompts.render_initial(spec, context)
    ]


def _logged(job: TurnJob) -> dict[str, Any]:
    logged = prompts.logged(job.spec, job.context)
    return {"context_vars": logged} if logged else {}


# -- answer ----------------------------------------------------------------------------------------------


def _answer(progress: Progress) -> Generator[Effect | Event, Any, LLMReply]:
    """Call the model and run the tools it asks for, until it answers."""
    for number in range(conf.max_tool_rounds + 2):
        call, completion, outcome = yield from _call(progress)
        problems = "" if completion.tool_calls else _parse(progress, completion)
        final = not completion.tool_calls and not problems
        progress.unsaved_text = ""
        message = yield do(
            progress.journal.save_answer,
            progress.state,
            call,
            completion,
            latency=outcome.latency,
            time_to_first_token=outcome.time_to_first_token,
            final=final,
        )
        progress.count(completion)
        yield LLMCallFinished(
            llm_call_id=call.pk,
            config_name=call.config_name,
            latency=outcome.latency,
            usage=completion.usage,
            cost=completion.cost,
            **progress.ids,
        )
        if final:
            return LLMReply(
                completion.text,
                id=message.pk,
                turn=progress.state.turn,
                chat_id=progress.state.chat_id,
                tool_calls=progress.tool_runs,
                usage=progress.usage,
                cost=progress.cost,
                config_name=call.config_name,
                parsed=progress.parsed,
            )
        if problems:
            yield from _ask_for_repair(progress, problems)
        for request in completion.tool_calls:
            yield from _run_tool(progress, request, refuse=number >= conf.max_tool_rounds)
    raise TooManyToolRounds(
        f"The model asked for tools in more than {conf.max_tool_rounds} calls in a row "
        "(LLM_WRAPPER_MAX_TOOL_ROUNDS) and gave no answer. Look at the tools' results, or raise the limit."
    )


def _parse(progress: Progress, completion: Completion) -> str:
    """Validate the answer against the response format; gives what is wrong with it, '' where nothing is."""
    from pydantic import ValidationError

    wanted = progress.job.response_format
    if wanted is None:
        return ""
    try:
        progress.parsed = wanted.model_validate_json(completion.text)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)[:20]
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in found)
    return ""


def _ask_for_repair(progress: Progress, problems: str) -> Generator[Effect | Event, Any, None]:
    """Tell the model, once, what was wrong with its answer."""
    if progress.repaired:
        name = progress.job.response_format.__name__
        raise ResponseFormatError(f"The answer is not a valid {name}, also after one repair: {problems}")
    progress.repaired = True
    step = {
        "type": "user",
        "text": f"Your last answer does not fit the required JSON format: {problems}. "
        "Answer again with the corrected JSON and nothing else.",
        "payload": {"system_generated": True, "show_in_user_history": False},
    }
    yield do(progress.journal.add_turn_step, progress.state, step)


# -- call ------------------------------------------------------------------------------------------------


def _may_fail_over(error: BaseException) -> bool:
    return isinstance(error, ProviderError) and error.fails_over


def _call(progress: Progress) -> Generator[Effect | Event, Any, tuple[Any, Completion, CallOutcome]]:
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
        params=dict(job.spec.model_params),
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


# -- tools -----------------------------------------------------------------------------------------------


def _run_tool(progress: Progress, request: ToolCallRequest, *, refuse: bool) -> Generator[Effect | Event, Any, None]:
    """Run one tool call. Whatever goes wrong in it becomes a result that the model can read."""
    state, journal = progress.state, progress.journal
    yield ToolCallStarted(tool_call_id=request.id, name=request.name, arguments=request.arguments, **progress.ids)
    prepared = _prepare(progress, request, refuse)
    duration = 0.0
    if isinstance(prepared, ToolResult):
        result = prepared
    else:
        yield do(journal.start_tool, state, request, tools.time_limit(prepared))
        result, duration = yield RunTool(prepared)
    yield do(journal.finish_tool, state, request, result, duration)
    progress.tool_runs.append(
        {
            "id": request.id,
            "name": request.name,
            "arguments": request.arguments,
            "status": result.status,
            "content": result.content,
        }
    )
    yield ToolCallFinished(
        tool_call_id=request.id,
        name=request.name,
        status=result.status,
        content=result.content,
        error_code=result.code,
        duration=duration,
        **progress.ids,
    )


def _prepare(progress: Progress, request: ToolCallRequest, refuse: bool) -> Any:
    if refuse or len(progress.tool_runs) >= conf.max_tool_calls:
        return tools.limit_reached()
    known = {tool.function_name: tool for tool in progress.job.spec.tools}
    tool = known.get(request.name)
    if tool is None:
        return tools.unknown_tool(request.name, sorted(known))
    # The same for every run of this one tool call, so that a tool can tell a second run from a second call.
    row = progress.state.tool_calls.get(request.id)
    key = f"{progress.state.turn_id}:{row.pk}" if row is not None else request.id
    return tools.prepare(tool, request.arguments, {**progress.job.context, "tool_call_key": key})


def _finish_interrupted(progress: Progress, row: Any) -> Generator[Effect | Event, Any, None]:
    """Give a result to a tool call that a dead worker left without one."""
    request = ToolCallRequest(id=row.provider_id, name=row.tool, arguments=row.arguments)
    if row.status == "running":
        tool = {tool.function_name: tool for tool in progress.job.spec.tools}.get(row.tool)
        if tool is None or not tool.idempotent:
            yield do(progress.journal.finish_tool, progress.state, request, tools.unknown_outcome(), 0.0)
            return
        yield do(progress.journal.restart_tool, progress.state, row)
    yield from _run_tool(progress, request, refuse=False)


# -- ends ------------------------------------------------------------------------------------------------


def _fail(progress: Progress, error: LLMWrapperError) -> Generator[Effect | Event, Any, None]:
    yield do(
        progress.journal.fail_turn,
        progress.state,
        error,
        partial_text=progress.unsaved_text,
        cancelled=isinstance(error, TurnCancelled),
    )
    yield TurnFailed(
        error_code=error.code,
        error_message=str(error),
        retryable=error.retryable,
        retry_after=getattr(error, "retry_after", None),
        **progress.ids,
    )


def _repeat(journal: Any, turn: Any) -> Generator[Effect | Event, Any, None]:
    """Give the stored outcome of a turn that was asked for before."""
    reply = yield do(journal.stored_reply, turn)
    yield TurnFinished(
        reply=reply,
        message_id=reply.id,
        usage=reply.usage,
        cost=reply.cost,
        turn_id=turn.pk,
        chat_id=turn.chat_id,
    )
