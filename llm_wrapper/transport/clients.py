"""litellm keeps its HTTP clients for later calls; this closes them when nobody can use them any more.

An async client belongs to the event loop it was made in. litellm keeps one set for each loop and does not notice
when a loop ends, so that each `asyncio.run` would leave open connections behind.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

_closers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = WeakKeyDictionary()


async def close_with_this_loop(module: Any) -> None:
    """Close the running loop's clients at its end.

    A loop tells nobody that it ends, except its async generators: `asyncio.run` and asgiref close those that are
    still open, and this keeps one open for the purpose.
    """
    loop = asyncio.get_running_loop()
    if loop not in _closers:
        _closers[loop] = _closer(module, id(loop))
        await anext(_closers[loop])


async def _closer(module: Any, loop_id: int) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await _drop_queued_logging()
        cache = module.in_memory_llm_clients_cache
        for key in [key for key in cache.cache_dict if str(key).endswith(f"-{loop_id}")]:
            client = cache.cache_dict.pop(key)
            cache.ttl_dict.pop(key, None)
            await _aclose(client)


async def _drop_queued_logging() -> None:
    """litellm queues its success callbacks; without this it carries them into the next loop, and warns of it."""
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await GLOBAL_LOGGING_WORKER.clear_queue()


async def _aclose(client: Any) -> None:
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    result = close() if close is not None else None
    if inspect.isawaitable(result):
        await result


def own_async_client(module: Any, model: str) -> dict[str, Any]:
    """The `client` argument for providers whose streams litellm would send through one client for all event loops:
    the next loop closes it under the streams of the last one."""
    provider = model.partition("/")[0]
    if provider not in ("anthropic", "gemini", "vertex_ai"):
        return {}
    from litellm.llms.custom_httpx.http_handler import get_async_httpx_client

    return {"client": get_async_httpx_client(llm_provider=provider)}


def close_at_exit(module: Any) -> None:
    """Close the clients of sync calls when the process ends."""
    atexit.register(_close_sync_clients, module)


def _close_sync_clients(module: Any) -> None:
    shared = vars(module).get("module_level_client")
    for client in [*module.in_memory_llm_clients_cache.cache_dict.values(), shared]:
        close = getattr(client, "close", None)
        if close is not None and not inspect.iscoroutinefunction(close):
            close()
