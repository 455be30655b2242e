"""Tool source runs here: in Monty, an interpreter of its own in a worker process, never in this one.

It has no files, no network and no environment, only the functions that the project registered; its sleeps
return at once. Every call gets a fresh session, so nothing that one call changes is seen by the next.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async

from llm_wrapper.errors import SyncInAsyncContext

from .pool import GRACE, async_session, library, session
from .registry import ToolFailure, host_functions
from .result import shorten

MAX_FRAMES = 20

_ARGUMENTS = "__llm_tool_arguments__"
# What a host function raised reaches the source as one of these, else as RuntimeError.
_PASSED_ON = frozenset(
    {
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "LookupError",
        "PermissionError",
        "FileNotFoundError",
    }
)


class SandboxError(Exception):
    """Source failed in the sandbox. `where` lists its frames, innermost last, as 'line 3 in name'."""

    def __init__(self, message: str, where: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.where = where


class SandboxTimeout(SandboxError):
    """Source was stopped because its time was up."""


@dataclass(frozen=True)
class Program:
    """Source, the function in it to call, and the bounds: `timeout` in seconds, `max_memory` in bytes.

    `report` is told the name and the exception of a host function that failed.
    """

    code: str
    function: str
    is_async: bool
    keywords: Mapping[str, Any] = field(repr=False)
    timeout: float
    max_memory: int
    report: Callable[[str, Exception], None]

    @property
    def limits(self) -> dict[str, Any]:
        return {"max_feed_duration_secs": self.timeout, "max_memory": self.max_memory}


@dataclass(frozen=True)
class _HostCall:
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)


# What the conversation asks its driver for: a step of the interpreter, or host functions to be called.
_Action = Callable[[], Any] | list[_HostCall]


def run(program: Program) -> Any:
    """What the function returns, as plain Python values.

    Host functions run in this thread, where a blocking one cannot be stopped. Raises SandboxError,
    SandboxTimeout, PoolUnavailable, or MissingExtra.
    """
    with _errors(), session(program.limits) as worker:
        conversation = _conversation(worker, program)
        action = next(conversation, None)
        answer: Any = None
        while action is not None:
            answer = _call_all(action, program) if isinstance(action, list) else action()
            action = _send(conversation, answer)
        return answer.output


async def arun(program: Program) -> Any:
    """Like `run`, off the event loop. Plain host functions run in Django's thread for synchronous code."""
    with _errors():
        async with async_session(program.limits) as worker:
            try:
                async with asyncio.timeout(program.timeout + GRACE):
                    conversation = _conversation(worker, program)
                    action = next(conversation, None)
                    answer: Any = None
                    while action is not None:
                        if isinstance(action, list):
                            answer = await _acall_all(action, program)
                        else:
                            answer = await action()
                        action = _send(conversation, answer)
                    return answer.output
            except TimeoutError:
                raise SandboxTimeout("its time was up") from None


def _send(conversation: Generator[_Action, Any, None], answer: Any) -> _Action | None:
    try:
        return conversation.send(answer)
    except StopIteration:
        return None


def _conversation(worker: Any, program: Program) -> Generator[_Action, Any, None]:
    """Run the program, asking for each step and each call; ends when a step gave the final value.

    One logic for both drivers: the sandbox itself never calls into this process.
    """
    monty = library()
    deadline = time.monotonic() + program.timeout
    hosts = host_functions()
    futures: dict[int, _HostCall] = {}
    call = f"{program.function}(**{_ARGUMENTS})"
    source = f"{program.code}\n{'await ' if program.is_async else ''}{call}"
    inputs = {_ARGUMENTS: dict(program.keywords)}
    pause = yield partial(worker.feed_start, source, inputs=inputs, print_callback=_drop_output)
    while not isinstance(pause, monty.MontyComplete):
        if isinstance(pause, monty.FutureSnapshot | monty.AsyncFutureSnapshot):
            calls = [futures.pop(call_id) for call_id in pause.pending_call_ids]
            _check(deadline)
            outcomes = yield calls
            pause = yield partial(pause.resume, dict(zip(pause.pending_call_ids, outcomes, strict=True)))
        elif isinstance(pause, monty.NameLookupSnapshot | monty.AsyncNameLookupSnapshot):
            known = {"value": _stub(pause.variable_name)} if pause.variable_name in hosts else {}
            pause = yield partial(pause.resume, **known)
        elif pause.is_os_function:
            pause = yield pause.resume_not_handled
        elif pause.function_name not in hosts:
            error = {"exc_type": "NameError", "message": f"name {pause.function_name!r} is not defined"}
            pause = yield partial(pause.resume, error)
        else:
            name = pause.function_name
            host_call = _HostCall(name, hosts[name], pause.args, pause.kwargs)
            if host_call.is_async:
                futures[pause.call_id] = host_call
                pause = yield partial(pause.resume, {"future": ...})
            else:
                _check(deadline)
                outcomes = yield [host_call]
                pause = yield partial(pause.resume, outcomes[0])


def _call_all(calls: list[_HostCall], program: Program) -> list[dict[str, Any]]:
    if all(not call.is_async for call in calls):
        return [_call(call, program) for call in calls]
    if in_event_loop():
        raise SyncInAsyncContext("An async host function cannot be run from here: use `arun` instead of `run`.")
    return async_to_sync(_acall_all)(calls, program)


def _call(call: _HostCall, program: Program) -> dict[str, Any]:
    try:
        return {"return_value": call.function(*call.args, **call.kwargs)}
    except Exception as error:  # noqa: BLE001 - any failure of a host function goes to the source and to the log
        return _raised(call, error, program)


async def _acall_all(calls: list[_HostCall], program: Program) -> list[dict[str, Any]]:
    return await asyncio.gather(*(_acall(call, program) for call in calls))


async def _acall(call: _HostCall, program: Program) -> dict[str, Any]:
    function = call.function if call.is_async else sync_to_async(call.function, thread_sensitive=True)
    try:
        async with asyncio.timeout(program.timeout):
            return {"return_value": await function(*call.args, **call.kwargs)}
    except Exception as error:  # noqa: BLE001 - as in _call
        return _raised(call, error, program)


def _raised(call: _HostCall, error: Exception, program: Program) -> dict[str, Any]:
    if isinstance(error, ToolFailure):
        return {"exc_type": "RuntimeError", "message": shorten(str(error))}
    program.report(call.name, error)
    kind = type(error).__name__
    return {
        "exc_type": kind if kind in _PASSED_ON else "RuntimeError",
        "message": f"{call.name} failed ({kind})",
    }


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SandboxTimeout("its time was up")


def _drop_output(stream: str, text: str) -> None:
    """Printed text goes nowhere: the model reads what a tool returns."""


def _stub(name: str) -> Callable[[], None]:
    """What stands for a host function that the source keeps as a value; calls of it come back by name."""

    def stub() -> None: ...

    stub.__name__ = name
    return stub


def in_event_loop() -> bool:
    """True if an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _errors() -> Iterator[None]:
    """Monty's exceptions become ours."""
    monty = library()
    try:
        yield
    except monty.MontyCrashedError as error:
        kind = SandboxTimeout if error.timed_out else SandboxError
        raise kind("its worker had to be stopped") from error
    except monty.MontyRuntimeError as error:
        if isinstance(error.exception(), TimeoutError) and "time limit exceeded" in str(error):
            raise SandboxTimeout("its time was up", _frames(error)) from None
        raise SandboxError(error.display("type-msg"), _frames(error)) from None
    except monty.MontyError as error:
        raise SandboxError(f"{type(error).__name__}: {error}") from None


def _frames(error: Any) -> tuple[str, ...]:
    frames = error.traceback()[-MAX_FRAMES:]
    return tuple(f"line {frame.line} in {frame.function_name or 'the module'}" for frame in frames)
