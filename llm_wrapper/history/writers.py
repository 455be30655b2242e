"""One writer at a time in this process, in the order of asking, where the database is an SQLite file.

SQLite lets one writer in and has no queue: the others ask again after a sleep, and whoever asks at the right moment is
next. Where the file is busy all the time, some of many threads are passed over until their `timeout` is up, though
each step takes milliseconds. So the threads of a process line up here, and only the first asks SQLite.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError

SQLITE_TIMEOUT = 5.0  # of Python's sqlite3, where Django's OPTIONS name none


class Line:
    """A lock that is handed over in the order of asking. The thread that holds it may take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._holder: int | None = None

    @contextmanager
    def hold(self, timeout: float) -> Iterator[None]:
        """Hold the lock. Raises OperationalError after `timeout` seconds of waiting."""
        me = threading.get_ident()
        if self._holder == me:
            yield
            return
        self._enter(me, timeout)
        try:
            yield
        finally:
            with self._guard:
                self._hand_over()

    def _enter(self, me: int, timeout: float) -> None:
        called = threading.Lock()
        called.acquire()
        with self._guard:
            if self._holder is None:
                self._holder = me
                return
            self._waiting.append((me, called))
        came = False
        try:
            came = called.acquire(timeout=timeout)
        finally:
            if not came:
                self._leave(me, called)
        if not came:
            raise OperationalError(f"database is locked: other threads of this process wrote for {timeout:g} seconds")

    def _leave(self, me: int, called: threading.Lock) -> None:
        with self._guard:
            if (me, called) in self._waiting:
                self._waiting.remove((me, called))
            else:  # called at the very moment in which it gave up
                self._hand_over()

    def _hand_over(self) -> None:
        self._holder = None
        if self._waiting:
            self._holder, called = self._waiting.popleft()
            called.release()


_lines: dict[str, Line] = {}
# The threads that stood in line do not exist in a forked process.
os.register_at_fork(after_in_child=_lines.clear)


@contextmanager
def in_line(connection: Any) -> Iterator[None]:
    """Wait for this thread's turn to write. Raises OperationalError where that takes longer than the connection's
    `timeout`. Does nothing inside a transaction, which may have its lock, nor on a database that queues by itself."""
    if connection.vendor != "sqlite" or not connection.get_autocommit():
        yield
        return
    timeout = connection.settings_dict["OPTIONS"].get("timeout", SQLITE_TIMEOUT)
    with _lines.setdefault(connection.alias, Line()).hold(timeout):
        yield
