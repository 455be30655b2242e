"""Calls through litellm. One try each: whether to try again is decided by the turn."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from llm_wrapper.conf import conf
from llm_wrapper.errors import LLMWrapperError, ProviderTimeout, RealCallBlocked
from llm_wrapper.types import Completion, ModelRequest, TextChunk

from .answers import Assembler
from .failures import from_litellm, provider_error
from .library import litellm


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
    """The transport of real life."""

    # In each method the exception is raised anew outside the `except` block and from frames without the key:
    # litellm's own exceptions hold requests, and with them the key, in their chain.

    def complete(self, request: ModelRequest) -> Completion:
        refuse_if_blocked(request)
        answer, error = _attempt(request, lambda: _whole(request, litellm().completion(**arguments(request))))
        if error is not None:
            raise error
        return answer

    async def acomplete(self, request: ModelRequest) -> Completion:
        refuse_if_blocked(request)
        answer, error = None, None
        try:
            answer = _whole(request, await litellm().acompletion(**arguments(request)))
        except Exception as exc:  # noqa: BLE001 (mapped, and raised below)
            error = _own(request, exc)
        if error is not None:
            raise error
        assert answer is not None
        return answer

    def stream(self, request: ModelRequest) -> Generator[TextChunk | Completion, None, None]:
        refuse_if_blocked(request)
        assembler, deadline = Assembler(request), time.monotonic() + request.timeout
        chunks, error = _attempt(request, lambda: iter(litellm().completion(**arguments(request))))
        try:
            while error is None:
                chunk, error = _attempt(request, lambda: next(chunks, None))
                if error is not None or chunk is None:
                    break
                text, error = _attempt(request, lambda chunk=chunk: _take(assembler, chunk, deadline))
                if text:
                    yield TextChunk(text)
        finally:
            # An abandoned stream must let go of its connection.
            close = getattr(getattr(chunks, "completion_stream", None), "close", None)
            if close is not None:
                close()
        if error is not None:
            raise error
        yield assembler.completion()

    async def astream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | Completion, None]:
        refuse_if_blocked(request)
        assembler, deadline = Assembler(request), time.monotonic() + request.timeout
        error, chunks = None, None
        try:
            chunks = (await litellm().acompletion(**arguments(request))).__aiter__()
        except Exception as exc:  # noqa: BLE001 (mapped, and raised below)
            error = _own(request, exc)
        try:
            while error is None:
                text = ""
                try:
                    text = _take(assembler, await anext(chunks), deadline)
                except StopAsyncIteration:
                    break
                except Exception as exc:  # noqa: BLE001 (mapped, and raised below)
                    error = _own(request, exc)
                if text:
                    yield TextChunk(text)
        finally:
            close = getattr(getattr(chunks, "completion_stream", None), "aclose", None)
            if close is not None:
                await close()
        if error is not None:
            raise error
        yield assembler.completion()


def refuse_if_blocked(request: ModelRequest) -> None:
    """Raise RealCallBlocked where the settings forbid calls that reach a model."""
    if conf.block_real_calls and not request.config.model.startswith("demo/"):
        raise RealCallBlocked(
            f"LLM_WRAPPER_BLOCK_REAL_CALLS is set, and config {request.config.name!r} would call "
            f"{request.config.model}. Use llm_wrapper.testing.scripted_model() or a DemoConfig in tests."
        )


def _attempt(request: ModelRequest, do: Callable[[], Any]) -> tuple[Any, LLMWrapperError | None]:
    """What `do` gives, or the package's own error for what it raised."""
    try:
        return do(), None
    except Exception as exc:  # noqa: BLE001 (mapped, and raised by the caller)
        return None, _own(request, exc)


def _own(request: ModelRequest, exc: Exception) -> LLMWrapperError:
    if isinstance(exc, LLMWrapperError):
        return exc
    return from_litellm(request, exc)


def _whole(request: ModelRequest, response: Any) -> Completion:
    assembler = Assembler(request)
    assembler.add(response)
    return assembler.completion()


def _take(assembler: Assembler, chunk: Any, deadline: float) -> str:
    if time.monotonic() > deadline:
        raise provider_error(assembler.request, ProviderTimeout, "the answer took longer than the timeout")
    return assembler.add(chunk)
