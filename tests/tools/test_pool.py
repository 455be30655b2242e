"""Rules of the sandbox's worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from llm_wrapper.tools import pool


def script(body: str) -> str:
    """What a fresh process prints that runs `body`."""
    head = """
    import os, sys, time
    from django.conf import settings
    settings.configure()
    from llm_wrapper.tools import pool, prepare, run
    from llm_wrapper.types import ToolSpec
    TOOL = ToolSpec("t", "def f():\\n    return 40 + 2", {"name": "f"})
    def call():
        return run(prepare(TOOL, "{}", {})).content
    """
    text = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=30).stdout


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_starts_before_the_first_use() -> None:
    """Importing the package neither imports the sandbox nor starts a process."""
    assert script("print(pool._pools.started, 'pydantic_monty' in sys.modules)") == "False False\n"


def test_a_child_forked_before_the_first_use_has_its_own_workers() -> None:
    """Web servers fork workers after loading the project; the sandbox works in them."""
    body = """
    child = os.fork()
    if not child:
        print("42" in call(), flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
    print("42" in call())
    """
    assert script(body) == "True\n0\nTrue\n"


def test_a_child_forked_after_the_first_use_is_told_at_once() -> None:
    """The sandbox's threads do not survive a fork: the child gets a result and the log says why; nothing hangs."""
    body = """
    call()
    child = os.fork()
    if not child:
        started = time.monotonic()
        print("not available" in call(), time.monotonic() - started < 1, flush=True)
        sys.exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
    print("42" in call())
    """
    assert script(body) == "True True\n0\nTrue\n"


def test_no_worker_outlives_its_process() -> None:
    """When the process ends, so do the workers of both pools."""
    body = """
    import asyncio
    from llm_wrapper.tools import arun
    call(); asyncio.run(arun(prepare(TOOL, "{}", {})))
    with pool.session({}) as worker:
        worker.feed_run("1"); print(worker.worker_pid)
    async def pid():
        async with pool.async_session({}) as worker:
            await worker.feed_run("1"); print(worker.worker_pid)
    asyncio.run(pid())
    """
    pids = [int(line) for line in script(body).split()]
    assert len(set(pids)) == 2
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_closed_pool_starts_again() -> None:
    """After `close` the next call starts new workers."""
    assert script('a = call(); pool.close(); print(a == call(), "42" in a)') == "True True\n"


def test_a_busy_sandbox_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker gets free in time, the call does not run and says so."""
    monkeypatch.setattr(pool, "_pools", pool._Pools())
    monkeypatch.setattr(pool, "CHECKOUT_TIMEOUT", 0.1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    limits = {"max_feed_duration_secs": 1.0}
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(pool.session(limits))
        with pytest.raises(pool.PoolUnavailable, match="busy"), pool.session(limits):
            pass
    with pool.session(limits) as worker:
        assert worker.feed_run("1 + 1") == 2
    pool.close()
