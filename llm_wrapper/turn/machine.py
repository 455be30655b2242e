"""The one turn logic, as a plain generator: it yields effects and events, and is sent the outcomes.

It does no I/O, so it serves the sync and the async driver alike, and a test can stop it at every single effect.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from typing import Any

from llm_wrapper import prompts
from llm_wrapper.conf import conf
from llm_wrapper.errors import (
    InternalError,
    LLMWrapperError,
    PromptError,
    ResponseFormatError,
    TooManyToolRounds,
    TurnCancelled,
    TurnInProgress,
    TurnLost,
)
from llm_wrapper.events import (
    Event,
    LLMCallFinished,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from llm_wrapper.types import (
    Completion,
    LLMReply,
)

from . import cached
from .calling import call_model
from .effects import Effect, Machine, Sleep, do
from .job import TurnJob
from .progress import Progress
from .render import logged, render
from .tool_runs import finish_interrupted, run_tool

log = logging.getLogger("llm_wrapper.turn")


Answering = Generator[Effect | Event, Any, LLMReply]


def run_turn(job: TurnJob, journal: Any) -> Machine:
    """The turn of `job`. `journal` holds the stages in the database: the module `llm_wrapper.history`, or
    something with the same functions."""
    # An effect, so that an expensive template holds up a thread and not the event loop.
    rendered, render_error = yield do(render, job)
    state = yield from _open(job, journal, rendered)
    if not hasattr(state, "turn_id"):  # the turn of an earlier request with this idempotency key
        yield from _repeat(journal, state)
        return
    progress = Progress(job, journal, state)
    yield from _to_its_end(progress, _begin(progress, render_error))


def resume_turn(job: TurnJob, journal: Any, turn_id: int) -> Machine:
    """Take over a turn whose worker is gone, and end it with an answer. Does nothing where the turn is alive.

    Tool calls that were not started are run now. One that was interrupted is run again, with the same
    `tool_call_key`, only if its tool is declared idempotent; otherwise the model is told that its outcome is unknown.
    """
    taken = yield do(journal.take_over, turn_id)
    if taken is None:
        return
    state, without_result = taken
    progress = Progress(job, journal, state)
    yield from _to_its_end(progress, _go_on(progress, without_result))


def _begin(progress: Progress, render_error: PromptError | None) -> Answering:
    message_id = getattr(progress.state.user_message, "pk", None)
    yield TurnStarted(message_id=message_id, **progress.ids)
    if render_error is not None:
        raise render_error
    return (yield from _answer(progress))


def _go_on(progress: Progress, without_result: Sequence[Any]) -> Answering:
    for row in without_result:
        yield from finish_interrupted(progress, row)
    return (yield from _answer(progress))


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
                    replaces=job.replaces,
                    remembered=prompts.remembered(job.spec, job.context),
                    payload=logged(job),
                    **rendered,
                )
            )
        except TurnInProgress:
            if waited >= job.wait:
                raise
        pause = min(0.2, job.wait - waited)
        yield Sleep(pause)
        waited += pause


def _to_its_end(progress: Progress, answering: Answering) -> Generator[Effect | Event, Any, None]:
    """Carry out the answering, and close the turn whatever happens in it."""
    journal, state = progress.journal, progress.state
    try:
        reply = yield from answering
    except TurnLost:
        if progress.call is not None:
            yield do(journal.lose_call, progress.call)
        raise
    except LLMWrapperError as error:
        if not progress.finished:
            yield from _fail(progress, error)
        raise
    except Exception:
        log.exception("Turn %s failed", state.turn_id)
        yield from _fail(progress, InternalError("A step of the turn failed; the traceback is in the log."))
        raise
    yield TurnFinished(reply=reply, message_id=reply.id, usage=reply.usage, cost=reply.cost, **progress.ids)


# -- answer ----------------------------------------------------------------------------------------------


def _answer(progress: Progress) -> Answering:
    """Call the model and run the tools it asks for, until it answers."""
    for number in range(conf.max_tool_rounds + 2):
        call, completion, outcome = yield from call_model(progress)
        problems = "" if completion.tool_calls else _parse(progress, completion)
        final = not completion.tool_calls and not problems
        progress.unsaved_text = ""
        if final and progress.job.response_cache is not None:
            yield do(cached.keep, progress.job.response_cache, progress.request, completion)
        message = yield do(
            progress.journal.save_answer,
            progress.state,
            call,
            completion,
            latency=outcome.latency,
            time_to_first_token=outcome.time_to_first_token,
            final=final,
            author=progress.job.llm_user,
        )
        progress.finished = final
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
            yield from run_tool(progress, request, refuse=number >= conf.max_tool_rounds)
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
