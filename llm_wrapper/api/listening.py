"""A turn that runs on its own, whoever listens: a caller who goes away stops neither the turn nor its answer.

On an event loop it is a task of its own, elsewhere a thread. Events go through a bounded buffer; a listener who reads
too slowly is left behind, and finds the answer in the session.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections

from llm_wrapper import history
from llm_wrapper.errors import InternalError, LLMWrapperError
from llm_wrapper.events import Event
from llm_wrapper.turn import TurnJob, adrive, drive, run_turn

log = logging.getLogger("llm_wrapper.api")

# Events that wait for a listener at most.
BUFFER = 2_000
# Threads for the database work of all turns on event loops of this process, each with a connection of its own: so
# many turns wait for their models at once without holding a connection each.
LANES = 8

_lanes: list[ThreadPoolExecutor] = []
_next_lane = itertools.count()
_running: set[asyncio.Task[None]] = set()

# Seconds of silence after which listeners get None, to show that the turn is alive.
SILENCE = 15.0

END = object()


class LeftBehind(Exception):
    """The listener read too slowly, and is told nothing more."""


class Ear:
    """Where a turn tells what happens: events, and then an error or the end."""

    def __init__(self, put: Callable[[Any], None]) -> None:
        self._put = put
        self.deaf = False

    def tell(self, item: Any) -> None:
        if self.deaf:
            return
        try:
            self._put(item)
        except (queue.Full, asyncio.QueueFull):
            self.deaf = True


# -- on an event loop ------------------------------------------------------------------------------------


async def alisten(job: TurnJob) -> AsyncGenerator[Event | None, None]:
    """Run the turn in a task of its own and yield its events, or None after a silence. Raises what
    the turn raises."""
    heard: asyncio.Queue[Any] = asyncio.Queue(BUFFER)
    ear = Ear(heard.put_nowait)
    task = asyncio.create_task(_arun(job, ear))
    _running.add(task)  # the loop itself holds tasks only weakly
    task.add_done_callback(_running.discard)
    try:
        while not (ear.deaf and heard.empty()):
            try:
                item = await asyncio.wait_for(heard.get(), SILENCE)
            except TimeoutError:
                item = None
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
        raise LeftBehind
    finally:
        ear.deaf = True


async def _arun(job: TurnJob, ear: Ear) -> None:
    if not _lanes:
        _lanes.extend(ThreadPoolExecutor(1, thread_name_prefix=f"llm_wrapper-{number}") for number in range(LANES))
    # The thread of the request that began the turn ends with that request, and the turn may not.
    async with ThreadSensitiveContext(executor=_lanes[next(_next_lane) % LANES]):
        await sync_to_async(close_old_connections)()
        try:
            async with aclosing(adrive(run_turn(job, history))) as events:
                async for event in events:
                    ear.tell(event)
            ear.tell(END)
        except LLMWrapperError as error:
            ear.tell(error)
        except Exception:
            log.exception("A turn of chat %s failed", job.chat_id)
            ear.tell(_bug())
        finally:
            await sync_to_async(close_old_connections)()


# -- on a thread -----------------------------------------------------------------------------------------


def listen(job: TurnJob) -> Generator[Event | None, None, None]:
    """Run the turn in a thread of its own and yield its events, or None after a silence. Raises what
    the turn raises."""
    heard: queue.Queue[Any] = queue.Queue(BUFFER)
    ear = Ear(heard.put_nowait)
    # A process that ends does not wait for it: the turn's lease runs out then, and it is repaired like any other.
    threading.Thread(target=_run, args=(job, ear), name=f"turn of chat {job.chat_id}", daemon=True).start()
    try:
        while not (ear.deaf and heard.empty()):
            try:
                item = heard.get(timeout=SILENCE)
            except queue.Empty:
                item = None
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
        raise LeftBehind
    finally:
        ear.deaf = True


def _run(job: TurnJob, ear: Ear) -> None:
    try:
        for event in drive(run_turn(job, history)):
            ear.tell(event)
        ear.tell(END)
    except LLMWrapperError as error:
        ear.tell(error)
    except Exception:
        log.exception("A turn of chat %s failed", job.chat_id)
        ear.tell(_bug())
    finally:
        connections.close_all()


def _bug() -> InternalError:
    return InternalError("The turn failed in a way that is not known; the traceback is in the log.")
