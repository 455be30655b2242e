"""The worker processes of the sandbox: started at first use, never shared across a fork."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from llm_wrapper.errors import MissingExtra

MAX_RECURSION = 200
MAX_HOST_CALLS = 1_000
CHECKOUT_TIMEOUT = 10.0
RECYCLE_WORKER_AFTER = 500
# The interpreter stops itself at its time limit; past the grace, in seconds, its worker is killed.
GRACE = 0.5


class PoolUnavailable(Exception):
    """No worker could be had, so nothing ran."""


class _Pools:
    """The pools of this process. Monty's sync and async doors need one each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sync: Any = None
        self.asynchronous: Any = None

    @property
    def started(self) -> bool:
        return self.sync is not None or self.asynchronous is not None


_pools = _Pools()
_inherited: list[_Pools] = []


def library() -> Any:
    """The module `pydantic_monty`, imported at first use. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module("pydantic_monty")
    except ImportError as error:
        raise MissingExtra(
            'A tool\'s source runs in a sandbox that is not installed: pip install "llm_wrapper[sandbox]". '
            "Tools whose code is a dotted path work without it."
        ) from error


@contextmanager
def session(limits: Mapping[str, Any]) -> Iterator[Any]:
    """A fresh session in a worker of its own, which is cleaned or replaced afterwards.

    `limits` are Monty's `max_feed_duration_secs` and `max_memory`. Raises PoolUnavailable, MissingExtra.
    """
    with ExitStack() as stack:
        try:
            worker = stack.enter_context(_sync_pool().checkout(**_options(limits)))
        except TimeoutError:
            raise PoolUnavailable("All workers of the tool sandbox are busy.") from None
        yield worker


@asynccontextmanager
async def async_session(limits: Mapping[str, Any]) -> AsyncIterator[Any]:
    """Like `session`, for code in an event loop; the loops of a process may share the pool."""
    async with AsyncExitStack() as stack:
        pool = await _async_pool()
        try:
            worker = await stack.enter_async_context(pool.checkout(**_options(limits)))
        except TimeoutError:
            raise PoolUnavailable("All workers of the tool sandbox are busy.") from None
        yield worker


def close() -> None:
    """End the workers of this process; the next use starts new ones."""
    global _pools
    old, _pools = _pools, _Pools()
    if old.sync is not None:
        old.sync.__exit__(None, None, None)
    # The async workers end when their pool is freed: there may be no event loop to close them in.


def _options(limits: Mapping[str, Any]) -> dict[str, Any]:
    bounds = {**limits, "max_recursion_depth": MAX_RECURSION, "max_suspensions": MAX_HOST_CALLS}
    # A real sleep is outside the time limit and would hold the worker.
    return {"limits": bounds, "os_policy": {"sleep": "zero"}, "script_name": "tool.py"}


def _pool_options() -> dict[str, Any]:
    return {
        "min_processes": 1,
        "max_processes": max(4, os.cpu_count() or 1),
        "checkout_timeout": CHECKOUT_TIMEOUT,
        "max_checkouts_per_worker": RECYCLE_WORKER_AFTER,
        "feed_duration_limit_grace": GRACE,
    }


def _sync_pool() -> Any:
    monty = library()
    _refuse_after_fork()
    with _pools.lock:
        if _pools.sync is None:
            _pools.sync = monty.Monty(**_pool_options()).__enter__()
        return _pools.sync


async def _async_pool() -> Any:
    monty = library()
    _refuse_after_fork()
    if _pools.asynchronous is None:
        pool = monty.AsyncMonty(**_pool_options())
        await pool.__aenter__()
        with _pools.lock:
            if _pools.asynchronous is None:
                _pools.asynchronous = pool
                return pool
        # Another thread was faster.
        await pool.__aexit__(None, None, None)
    return _pools.asynchronous


def _refuse_after_fork() -> None:
    if _inherited:
        raise PoolUnavailable(
            "The tool sandbox was used before this process was forked, and its threads do not survive it. "
            "Run tools only in the workers, or start the workers with 'spawn' or 'forkserver'."
        )


def _after_fork() -> None:
    global _pools
    if _pools.started:
        # Kept, since freeing them here would touch the parent's workers.
        _inherited.append(_pools)
    _pools = _Pools()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
