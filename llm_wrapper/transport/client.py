"""Calls through litellm. One try each: whether to try again is decided by the turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import Any, cast

from llm_wrapper.conf import conf
from llm_wrapper.errors import LLMWrapperError, RealCallBlocked
from llm_wrapper.types import Completion, ModelRequest, TextChunk

from . import streams
from .answers import Assembler
from .clients import close_with_this_loop, own_async_client
from .deadline import within
from .library import litellm

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
        with closing(_outcomes(request)) as outcomes:
            return _completion(next(outcomes))

    async def acomplete(self, request: ModelRequest) -> Completion:
        _prepare(request)
        async with aclosing(_aoutcomes(request)) as outcomes:
            return _completion(await anext(outcomes))

    def stream(self, request: ModelRequest) -> Generator[Item, None, None]:
        _prepare(request)
        with closing(_outcomes(request)) as outcomes:
            for outcome in outcomes:
                yield _unwrapped(outcome)

    async def astream(self, request: ModelRequest) -> AsyncGenerator[Item, None]:
        _prepare(request)
        async with aclosing(_aoutcomes(request)) as outcomes:
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


def _completion(outcome: Item | LLMWrapperError) -> Completion:
    """The outcome of a call that is not streamed."""
    return cast(Completion, _unwrapped(outcome))


# -- sync ------------------------------------------------------------------------------------------------


def _outcomes(request: ModelRequest) -> Generator[Item | LLMWrapperError, None, None]:
    """The text as it arrives where it is streamed, and at the end the completion or the error."""
    assembler = Assembler(request)
    error = None
    try:
        with closing(within(request.timeout, lambda: _call(assembler))) as items:
            yield from items
    except TimeoutError as exc:
        error = assembler.failed(exc)
    if error is not None:
        yield error


def _call(assembler: Assembler) -> Generator[Item | LLMWrapperError, None, None]:
    request = assembler.request
    last: Completion | LLMWrapperError
    try:
        answer = litellm().completion(**arguments(request))
        if request.stream:
            assembler.stream = answer
            streams.guard(answer)
            for chunk in answer:
                text = assembler.add(chunk)
                if text:
                    yield TextChunk(text)
                if answer.sent_stream_usage:
                    # Nothing comes after the usage, and litellm would put the whole answer together once more.
                    break
        last = assembler.streamed() if request.stream else assembler.whole(answer)
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        last = assembler.failed(exc)
    finally:
        # An abandoned stream must let go of its connection, so that the provider stops writing.
        if assembler.stream is not None:
            streams.close(assembler.stream)
    yield last


# -- async -----------------------------------------------------------------------------------------------


async def _aoutcomes(request: ModelRequest) -> AsyncGenerator[Item | LLMWrapperError, None]:
    """The async twin of `_outcomes`. An event loop can stop waiting, so this needs no thread."""
    assembler = Assembler(request)
    deadline = asyncio.get_running_loop().time() + request.timeout
    last: Completion | LLMWrapperError
    try:
        async with asyncio.timeout_at(deadline):
            answer = await _acompletion(request)
        if request.stream:
            assembler.stream = answer
            streams.guard(answer)
            chunks = aiter(answer)
            while True:
                # Not around the whole loop: the time in which the caller works with a chunk is its own.
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                text = assembler.add(chunk)
                if text:
                    yield TextChunk(text)
        last = assembler.streamed() if request.stream else assembler.whole(answer)
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        last = assembler.failed(exc)
    finally:
        if assembler.stream is not None:
            await streams.aclose(assembler.stream)
    yield last


async def _acompletion(request: ModelRequest) -> Any:
    module = litellm()
    await close_with_this_loop(module)
    return await module.acompletion(**arguments(request), **own_async_client(module, request.config.model))
