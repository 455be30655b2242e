"""The same work in several processes at once, each with victims of its own, on one database."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connections

LANES = max(os.cpu_count() or 2, 2)


def in_lanes(work: Callable[[int], dict[str, int]], *, seconds: int) -> Counter[str]:
    """Do the work in each lane, given its number; gives the sum of what they counted. A lane that fails, or has not
    ended after so many seconds, fails the test."""
    connections.close_all()
    lanes = [_fork(work, number, seconds) for number in range(LANES)]
    total: Counter[str] = Counter()
    failures = []
    for number, (pid, pipe) in enumerate(lanes):
        with os.fdopen(pipe) as said:
            told = said.read()
        _, status = os.waitpid(pid, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended == 0:
            total.update(json.loads(told))
        elif ended == -signal.SIGALRM:
            failures.append(f"lane {number} had not ended after {seconds} seconds")
        else:
            failures.append(told or f"lane {number} ended with {ended}")
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)
    return total


def _fork(work: Callable[[int], dict[str, int]], number: int, seconds: int) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        os.close(read)
        signal.alarm(seconds)
        with os.fdopen(write, "w") as tell:
            try:
                json.dump(work(number), tell)
            except BaseException:
                tell.write(traceback.format_exc())
                raise
        os._exit(0)
    finally:
        os._exit(1)
