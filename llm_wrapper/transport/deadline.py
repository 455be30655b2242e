"""A deadline for blocking work.

The timeouts of sockets start anew with each byte, so a server that sends one byte now and then would hold a
sync caller for ever. Here the work happens in a thread of its own, and the caller waits no longer than agreed.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _End(Generic[T]):
    """The last thing in the queue, with what the work raised, if anything."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def within(seconds: float, work: Callable[[], Generator[T, None, None]]) -> Generator[T, None, None]:
    """Yield what `work()` yields, until `seconds` have passed: then TimeoutError.

    When the caller stops listening or the time is up, the work's generator is closed as soon as it comes back
    from the step it is in.
    """
    deadline = time.monotonic() + seconds
    items: SimpleQueue[T | _End[T]] = SimpleQueue()
    abandoned = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            with closing(work()) as made:
                for item in made:
                    items.put(item)
                    if abandoned.is_set():
                        break
        except BaseException as exc:  # noqa: BLE001 (raised to the caller, in its own thread)
            error = exc
        items.put(_End(error))

    context: Any = contextvars.copy_context()
    threading.Thread(target=context.run, args=(produce,), name="llm_wrapper.call", daemon=True).start()
    try:
        while True:
            try:
                item = items.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise TimeoutError from None
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        abandoned.set()
