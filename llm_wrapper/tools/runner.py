"""Runs a prepared call, in the sandbox or as a registered function, and always comes back with a result."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async

from llm_wrapper.conf import conf
from llm_wrapper.errors import SyncInAsyncContext
from llm_wrapper.types import ToolResult

from . import sandbox
from .call import PreparedCall
from .pool import PoolUnavailable, library
from .registry import ToolFailure
from .result import NOT_AVAILABLE, NotText, ToolTimeout, done, failed, mask, shorten, trace

logger = logging.getLogger("llm_wrapper.tools")


def run(call: PreparedCall) -> ToolResult:
    """Run the tool, in this thread, and give the text for the model; a failing tool gives a failed result.

    Source is stopped at its timeout, and so is an async function. A plain registered function is not: it
    runs in the calling thread, whose database connection and transaction it shares, and a thread cannot be
    killed. Raises SyncInAsyncContext for an async function inside a running event loop, and MissingExtra.
    """
    function = call.definition.function
    if function is None:
        library()
    elif call.definition.is_async and sandbox.in_event_loop():
        raise SyncInAsyncContext(f"Tool {call.tool.name} is async: use `arun` inside an event loop.")
    try:
        value = sandbox.run(_program(call)) if function is None else _call(call, function)
        return done(value, _max_output(call))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool's failure is a result, whatever it raised
        return _failure(call, error)


async def arun(call: PreparedCall) -> ToolResult:
    """Like `run`, in an event loop. A plain function runs in the thread where Django's ORM may be used.

    Cancelling it stops source and async functions; a plain function runs on to its end. Raises MissingExtra.
    """
    function = call.definition.function
    if function is None:
        library()
    try:
        value = await (sandbox.arun(_program(call)) if function is None else _acall(call, function))
        return done(value, _max_output(call))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as in run
        return _failure(call, error)


def _call(call: PreparedCall, function: Callable[..., Any]) -> Any:
    value = function(**call.keywords())
    # async_to_sync and not asyncio.run, so that the ORM inside stays on this thread's connection.
    return async_to_sync(_in_time)(value, time_limit(call)) if inspect.isawaitable(value) else value


async def _acall(call: PreparedCall, function: Callable[..., Any]) -> Any:
    if not call.definition.is_async:
        return await sync_to_async(function, thread_sensitive=True)(**call.keywords())
    return await _in_time(function(**call.keywords()), time_limit(call))


async def _in_time(work: Awaitable[Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds) as clock:
            return await work
    except TimeoutError:
        # The function may have raised one of its own.
        if clock.expired():
            raise ToolTimeout from None
        raise


def _program(call: PreparedCall) -> sandbox.Program:
    def report(name: str, error: Exception) -> None:
        text = trace(error, call.injected)
        logger.error("Tool %s: the host function %s failed\n%s", call.tool.name, name, text)

    return sandbox.Program(
        code=call.tool.code,
        function=call.definition.function_name,
        is_async=call.definition.is_async,
        keywords=call.keywords(),
        timeout=time_limit(call),
        max_memory=int(call.tool.bounds.get("max_memory") or conf.tool_max_memory),
        report=report,
    )


def time_limit(call: PreparedCall) -> float:
    """Seconds the tool may run."""
    return float(call.tool.bounds.get("timeout") or conf.tool_timeout)


def _max_output(call: PreparedCall) -> int:
    return int(call.tool.bounds.get("max_output") or conf.tool_max_output)


def _failure(call: PreparedCall, error: BaseException) -> ToolResult:
    """What the model gets for `error`: enough to act on, nothing that the project did not mean to tell."""
    name = call.tool.name
    if isinstance(error, ToolFailure):
        logger.info("Tool %s gave up on purpose", name)
        return failed(shorten(str(error)), "tool_failure")
    if isinstance(error, ToolTimeout | sandbox.SandboxTimeout):
        logger.warning("Tool %s was stopped after %s s", name, time_limit(call))
        return failed(f"The tool was stopped: it took longer than {time_limit(call):g} seconds.", "tool_timeout")
    if isinstance(error, PoolUnavailable):
        logger.error("Tool %s did not run: %s", name, error)
        return failed(NOT_AVAILABLE)
    if isinstance(error, sandbox.SandboxError):
        message = shorten(mask(str(error), call.injected))
        logger.error("Tool %s failed: %s (%s)", name, message, "; ".join(error.where))
        return failed(f"The tool failed: {message}")
    if isinstance(error, NotText):
        logger.error("Tool %s returned what is neither text nor JSON: %s", name, mask(str(error), call.injected))
        return failed("The tool failed: its result is neither text nor JSON.")
    logger.error("Tool %s failed\n%s", name, trace(error, call.injected))
    return failed(f"The tool failed with an internal error ({type(error).__name__}).")
