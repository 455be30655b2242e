"""Calls through litellm. One try each: whether to try again is decided by the turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import Any, TypeVar

from llm_wrapper.conf import conf
from llm_wrapper.errors import LLMWrapperError, RealCallBlocked
from llm_wrapper.types import Completion, ModelRequest, TextChunk

from . import streams
from .answers import Assembler
from .clients import close_with_this_loop, own_async_client
from .deadline import within
from .failures import own_error
from .library import litellm

T = TypeVar("T")
Item = TextChunk | Completion


def arguments(request: ModelRequest) -> dict[str, Any]:
    """Keyword arguments of `litellm.completion`. They hold the key: keep them inside this module."""
    kwargs: dict[str, Any] = {
        **request.config.params,
        **request.params,
        **request.config.credentials,
        "model": request.config.model,
        "messages": request.messages,
        "timeout": request.timeout,
        "stream": request.stream,
        # One layer decides about retries, and it is not the SDK.
        "max_retries": 0,
        "num_retries": 0,
    }
    if request.tools:
        kwargs["tools"] = request.tools
    if request.response_format is not None:
        kwargs["response_format"] = request.response_format
    if request.stream:
        kwargs["stream_options"] = {"include_usage": True}
    return kwargs


class LiteLLMTransport:
    """The transport of real life.

    litellm's exceptions and frames hold the key. So the functions that call it give their error back as a value,
    made anew, and these methods raise it from frames that hold nothing secret.
    """

    def complete(self, request: ModelRequest) -> Completion:
        _prepare(request)
        with closing(_timed(request, _whole)) as outcomes:
            return _completion(next(outcomes))

    async def acomplete(self, request: ModelRequest) -> Completion:
        _prepare(request)
        return _completion(await _awhole(request))

    def stream(self, request: ModelRequest) -> Generator[Item, None, None]:
        _prepare(request)
        with closing(_timed(request, _pieces)) as outcomes:
            for outcome in outcomes:
                yield _unwrapped(outcome)

    async def astream(self, request: ModelRequest) -> AsyncGenerator[Item, None]:
        _prepare(request)
        async with aclosing(_apieces(request)) as outcomes:
            async for outcome in outcomes:
                yield _unwrapped(outcome)


def _prepare(request: ModelRequest) -> None:
    """Refuse a call that the settings forbid; load litellm before the call's clock starts."""
    if conf.block_real_calls and not request.config.model.startswith("demo/"):
        raise RealCallBlocked(
            f"LLM_WRAPPER_BLOCK_REAL_CALLS is set, and config {request.config.name!r} would call "
            f"{request.config.model}. Use llm_wrapper.testing.scripted_model() or a DemoConfig in tests."
        )
    litellm()


def _unwrapped(outcome: Item | LLMWrapperError) -> Item:
    if isinstance(outcome, LLMWrapperError):
        raise outcome
    return outcome


def _completion(outcome: Completion | LLMWrapperError) -> Completion:
    if isinstance(outcome, LLMWrapperError):
        raise outcome
    return outcome


# -- sync ------------------------------------------------------------------------------------------------


def _timed(
    request: ModelRequest, work: Callable[[ModelRequest], Generator[T, None, None]]
) -> Generator[T | LLMWrapperError, None, None]:
    error = None
    try:
        with closing(within(request.timeout, lambda: work(request))) as items:
            yield from items
    except TimeoutError as exc:
        error = own_error(request, exc)
    if error is not None:
        yield error


def _whole(request: ModelRequest) -> Generator[Completion | LLMWrapperError, None, None]:
    try:
        outcome: Completion | LLMWrapperError = Assembler(request).whole(litellm().completion(**arguments(request)))
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        outcome = own_error(request, exc)
    yield outcome


def _pieces(request: ModelRequest) -> Generator[Item | LLMWrapperError, None, None]:
    assembler, stream = Assembler(request), None
    last: Completion | LLMWrapperError
    try:
        stream = litellm().completion(**arguments(request))
        streams.guard(stream)
        for chunk in stream:
            text = assembler.add(chunk)
            if text:
                yield TextChunk(text)
        last = assembler.streamed(stream)
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        last = own_error(request, exc)
    finally:
        # An abandoned stream must let go of its connection, so that the provider stops writing.
        if stream is not None:
            streams.close(stream)
    yield last


# -- async -----------------------------------------------------------------------------------------------


async def _acompletion(request: ModelRequest) -> Any:
    module = litellm()
    await close_with_this_loop(module)
    return await module.acompletion(**arguments(request), **own_async_client(module, request.config.model))


async def _awhole(request: ModelRequest) -> Completion | LLMWrapperError:
    try:
        async with asyncio.timeout(request.timeout):
            response = await _acompletion(request)
        return Assembler(request).whole(response)
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        return own_error(request, exc)


async def _apieces(request: ModelRequest) -> AsyncGenerator[Item | LLMWrapperError, None]:
    assembler, stream = Assembler(request), None
    last: Completion | LLMWrapperError
    deadline = asyncio.get_running_loop().time() + request.timeout
    try:
        async with asyncio.timeout_at(deadline):
            stream = await _acompletion(request)
        streams.guard(stream)
        chunks = aiter(stream)
        while True:
            # Not around the whole loop: the time in which the caller works with a chunk is its own.
            async with asyncio.timeout_at(deadline):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            text = assembler.add(chunk)
            if text:
                yield TextChunk(text)
        last = assembler.streamed(stream)
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        last = own_error(request, exc)
    finally:
        if stream is not None:
            await streams.aclose(stream)
    yield last
