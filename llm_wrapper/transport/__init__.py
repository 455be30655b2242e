"""The way to a model. Only this package knows litellm, and loads it at the first real call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

from llm_wrapper.types import Completion, ModelRequest, TextChunk


class Transport(Protocol):
    """What a turn needs of a way to a model. Every method raises only `ProviderError` (and `RealCallBlocked`).

    The streams yield text as it arrives and, as their last item, the `Completion`.
    """

    def complete(self, request: ModelRequest) -> Completion: ...

    async def acomplete(self, request: ModelRequest) -> Completion: ...

    def stream(self, request: ModelRequest) -> Generator[TextChunk | Completion, None, None]: ...

    def astream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | Completion, None]: ...


_in_use: list[Transport] = []


def current() -> Transport:
    """The transport in use: litellm's, unless `using` put another in its place."""
    if not _in_use:
        from .client import LiteLLMTransport

        _in_use.append(LiteLLMTransport())
    return _in_use[-1]


@contextmanager
def using(transport: Transport) -> Iterator[None]:
    """Send all calls of this process through `transport` inside the block."""
    current()
    _in_use.append(transport)
    try:
        yield
    finally:
        _in_use.remove(transport)
