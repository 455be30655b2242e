"""The two drivers of a turn: one sync, one async. They do the I/O that the turn asks for, and nothing else.

A caller that stops listening, or is interrupted, does not leave the turn hanging: the driver tells the turn
that it was cancelled and goes on carrying out its effects, without events, until it has ended in the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import Any

from asgiref.sync import sync_to_async

from llm_wrapper import tools, transport
from llm_wrapper.errors import LLMWrapperError, SyncInAsyncContext, TurnCancelled, TurnLost
from llm_wrapper.events import Event
from llm_wrapper.signals import SIGNAL_OF
from llm_wrapper.types import TextChunk

from .effects import CallModel, CallOutcome, Do, Machine, RunTool, Sleep

# How often, in seconds, what has arrived of a streamed answer is saved.
KEEP_EVERY = 1.0


def cancelled() -> TurnCancelled:
    return TurnCancelled("The caller stopped listening before the turn ended; what had arrived is kept.")


class Listening:
    """Collects one call's text and times; both drivers use it, so that they differ only in how they wait."""

    def __init__(self, call: CallModel) -> None:
        self.call = call
        self.text: list[str] = []
        self.started = self.kept = time.monotonic()
        self.first: float | None = None

    def heard(self, chunk: TextChunk) -> Event:
        if self.first is None:
            self.first = time.monotonic() - self.started
        self.text.append(chunk.text)
        return self.call.on_text(chunk.text)

    def due(self) -> str | None:
        """The text so far if it is time to save it."""
        now = time.monotonic()
        if now - self.kept < KEEP_EVERY:
            return None
        self.kept = now
        return "".join(self.text)

    def outcome(self, completion: Any, error: LLMWrapperError | None) -> CallOutcome:
        latency = time.monotonic() - self.started
        return CallOutcome(completion, error, "".join(self.text), latency, self.first)


# -- sync ------------------------------------------------------------------------------------------------


def drive(machine: Machine) -> Generator[Event, None, None]:
    """Run a turn and yield its events. Raises what the turn raises."""
    refuse_running_loop()
    sent: Any = None
    thrown: BaseException | None = None
    stopped: BaseException | None = None
    while True:
        try:
            wanted = machine.throw(thrown) if thrown is not None else machine.send(sent)
        except StopIteration:
            break
        except (TurnCancelled, TurnLost):
            if stopped is None:
                raise
            break
        sent, thrown = None, None
        try:
            if isinstance(wanted, Event):
                _send_signal(wanted)
                if stopped is None:
                    yield wanted
            elif isinstance(wanted, CallModel):
                listening = Listening(wanted)
                try:
                    sent = yield from _call(listening)
                except (GeneratorExit, KeyboardInterrupt) as exc:
                    stopped = exc
                    sent = listening.outcome(None, cancelled())
            else:
                sent = _perform(wanted)
        except (GeneratorExit, KeyboardInterrupt) as exc:
            stopped, thrown = exc, cancelled()
        except Exception as exc:  # noqa: BLE001 (handed to the turn, which ends itself and raises it)
            thrown = exc
    if isinstance(stopped, KeyboardInterrupt):
        raise stopped


def _call(listening: Listening) -> Generator[Event, None, CallOutcome]:
    call = listening.call
    via = transport.current()
    completion, error = None, None
    try:
        if not call.request.stream:
            completion = via.complete(call.request)
        else:
            with closing(via.stream(call.request)) as items:
                for item in items:
                    if not isinstance(item, TextChunk):
                        completion = item
                        continue
                    yield listening.heard(item)
                    due = listening.due()
                    if due is not None:
                        call.keep(due)
    except LLMWrapperError as exc:
        error = exc
    return listening.outcome(completion, error)


def _perform(wanted: Do | RunTool | Sleep) -> Any:
    if isinstance(wanted, Do):
        return wanted.function(*wanted.args, **wanted.kwargs)
    if isinstance(wanted, Sleep):
        return time.sleep(wanted.seconds)
    started = time.monotonic()
    result = tools.run(wanted.prepared)
    return result, time.monotonic() - started


def _send_signal(event: Event) -> None:
    signal = SIGNAL_OF.get(type(event))
    if signal is not None and signal.receivers:
        signal.send_robust(sender=type(event), event=event)


def refuse_running_loop() -> None:
    """Raise SyncInAsyncContext if an event loop runs in this thread: blocking it would stop all it serves."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SyncInAsyncContext(
        "This is the sync door, and an event loop is running in this thread. Use the async twin: the method of the "
        "same name with an 'a' in front (acreate, asend_user_message_and_get_response, astream_user_message)."
    )


# -- async -----------------------------------------------------------------------------------------------


async def adrive(machine: Machine) -> AsyncGenerator[Event, None]:
    """Run a turn on the event loop and yield its events. Raises what the turn raises."""
    sent: Any = None
    thrown: BaseException | None = None
    stopped: BaseException | None = None
    told = False  # whether the turn knows that it was stopped
    while True:
        try:
            wanted = machine.throw(thrown) if thrown is not None else machine.send(sent)
        except StopIteration:
            break
        except (TurnCancelled, TurnLost):
            if stopped is None:
                raise
            break
        sent, thrown = None, None
        try:
            if isinstance(wanted, Event):
                await _asend_signal(wanted)
                if stopped is None:
                    yield wanted
                elif not told:
                    thrown, told = cancelled(), True
            elif isinstance(wanted, CallModel):
                listening = Listening(wanted)
                if stopped is not None and not told:
                    sent, told = listening.outcome(None, cancelled()), True
                    continue
                try:
                    async with aclosing(_acall(listening)) as items:
                        async for item in items:
                            if isinstance(item, CallOutcome):
                                sent = item
                            else:
                                yield item
                except (GeneratorExit, asyncio.CancelledError) as exc:
                    stopped, told = exc, True
                    sent = listening.outcome(None, cancelled())
            elif isinstance(wanted, Do):
                # A thread cannot be stopped: wait for what it does to the rows, and tell the turn after that.
                work = asyncio.ensure_future(_aperform(wanted))
                try:
                    sent = await asyncio.shield(work)
                except asyncio.CancelledError as exc:
                    stopped = exc
                    sent = await work
            else:
                sent = await _aperform(wanted)
        except (GeneratorExit, asyncio.CancelledError) as exc:
            stopped, thrown, told = exc, cancelled(), True
        except Exception as exc:  # noqa: BLE001 (handed to the turn, which ends itself and raises it)
            thrown = exc
    if isinstance(stopped, asyncio.CancelledError):
        raise stopped


async def _acall(listening: Listening) -> AsyncGenerator[Event | CallOutcome, None]:
    call = listening.call
    via = transport.current()
    completion, error = None, None
    try:
        if not call.request.stream:
            completion = await via.acomplete(call.request)
        else:
            async with aclosing(via.astream(call.request)) as items:
                async for item in items:
                    if not isinstance(item, TextChunk):
                        completion = item
                        continue
                    yield listening.heard(item)
                    due = listening.due()
                    if due is not None:
                        await sync_to_async(call.keep)(due)
    except LLMWrapperError as exc:
        error = exc
    yield listening.outcome(completion, error)


async def _aperform(wanted: Do | RunTool | Sleep) -> Any:
    if isinstance(wanted, Do):
        return await sync_to_async(wanted.function)(*wanted.args, **wanted.kwargs)
    if isinstance(wanted, Sleep):
        return await asyncio.sleep(wanted.seconds)
    started = time.monotonic()
    result = await tools.arun(wanted.prepared)
    return result, time.monotonic() - started


async def _asend_signal(event: Event) -> None:
    signal = SIGNAL_OF.get(type(event))
    if signal is not None and signal.receivers:
        await signal.asend_robust(sender=type(event), event=event)
