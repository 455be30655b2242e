"""Fakes for the tests of projects that use this package. No network, no key, no litellm import.

with scripted_model(tool_call("refund", order=7), "Done."):
    reply = wrapper.send_user_message_and_get_response("Refund order 7")
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from django.test.utils import override_settings

from llm_wrapper import configs, transport
from llm_wrapper.errors import ProviderError, RateLimited, RealCallBlocked, StreamCut
from llm_wrapper.models import LLMCall
from llm_wrapper.types import Completion, ModelRequest, TextChunk, ToolCallRequest, Usage

__all__ = [
    "ScriptedModel",
    "assertNumLLMCalls",
    "block_real_calls",
    "cut_stream",
    "delayed",
    "failure",
    "rate_limit",
    "scripted_model",
    "text",
    "tool_call",
    "tool_calls",
]


@dataclass(frozen=True)
class Step:
    """One scripted answer."""

    completion: Completion | None = None
    error: ProviderError | None = None
    chunks: tuple[str, ...] = ()
    delay: float = 0.0


def text(answer: str, *, usage: Usage | None = None, cost: Decimal | None = None) -> Step:
    """An answer; streamed word by word."""
    pieces = tuple(piece + " " for piece in answer.split(" "))
    chunks = (*pieces[:-1], pieces[-1][:-1])
    usage = usage or Usage(input_tokens=10, output_tokens=len(pieces))
    return Step(Completion(text=answer, finish_reason="stop", usage=usage, cost=cost), chunks=chunks)


_numbers = itertools.count(1)


def tool_calls(*calls: tuple[str, Any]) -> Step:
    """An answer that asks for several tools: pairs of function name and arguments (a dict, or raw JSON text)."""
    requests = tuple(
        ToolCallRequest(
            id=f"call_{next(_numbers)}",
            name=name,
            arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
        )
        for name, arguments in calls
    )
    usage = Usage(input_tokens=10, output_tokens=5)
    return Step(Completion(text="", tool_calls=requests, finish_reason="tool_calls", usage=usage))


def tool_call(name: str, **arguments: Any) -> Step:
    """An answer that asks for one tool."""
    return tool_calls((name, arguments))


def failure(error: ProviderError) -> Step:
    """A call that fails with this error."""
    return Step(error=error)


def rate_limit(retry_after: float | None = None) -> Step:
    """A call that is rate limited; `retry_after` in seconds."""
    return failure(RateLimited("The scripted model is rate limited.", retry_after=retry_after))


def cut_stream(*chunks: str) -> Step:
    """An answer that breaks off after these chunks."""
    return Step(error=StreamCut("The scripted model broke off its answer."), chunks=chunks)


def delayed(seconds: float, step: Step | str) -> Step:
    """The step, after a wait."""
    return replace(_step(step), delay=seconds)


def _step(step: Step | str) -> Step:
    return text(step) if isinstance(step, str) else step


@dataclass
class ScriptedModel:
    """A transport that answers by script, one step per call, whichever config asks. `requests` holds every
    request as it was made. A call past the end of the script raises RealCallBlocked."""

    steps: Sequence[Step | str]
    requests: list[ModelRequest] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _next(self, request: ModelRequest) -> Step:
        with self._lock:
            self.requests.append(request)
            if len(self.requests) > len(self.steps):
                raise RealCallBlocked(
                    f"The scripted model has {len(self.steps)} steps, and this is call {len(self.requests)}. "
                    "Add a step, or look for a call that should not happen."
                )
            return _step(self.steps[len(self.requests) - 1])

    def complete(self, request: ModelRequest) -> Completion:
        step = self._next(request)
        time.sleep(step.delay)
        return _outcome(step)

    async def acomplete(self, request: ModelRequest) -> Completion:
        step = self._next(request)
        await asyncio.sleep(step.delay)
        return _outcome(step)

    def stream(self, request: ModelRequest) -> Generator[TextChunk | Completion, None, None]:
        step = self._next(request)
        time.sleep(step.delay)
        for chunk in step.chunks:
            yield TextChunk(chunk)
        yield _outcome(step)

    async def astream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | Completion, None]:
        step = self._next(request)
        await asyncio.sleep(step.delay)
        for chunk in step.chunks:
            yield TextChunk(chunk)
        yield _outcome(step)


def _outcome(step: Step) -> Completion:
    if step.error is not None:
        raise step.error
    return step.completion or Completion(text="", finish_reason="stop")


@contextmanager
def scripted_model(*steps: Step | str) -> Iterator[ScriptedModel]:
    """Answer all LLM calls of this process by script. A plain string is an answer. Cooling configs are
    warmed up at the end, so that one test's rate limit does not reach the next."""
    model = ScriptedModel(steps)
    with transport.using(model):
        try:
            yield model
        finally:
            for name in {request.config.name for request in model.requests}:
                configs.warm_up(name)


@contextmanager
def block_real_calls() -> Iterator[None]:
    """Let every call that would reach a model raise RealCallBlocked; scripted and demo ones pass."""
    with override_settings(LLM_WRAPPER_BLOCK_REAL_CALLS=True):
        yield


@contextmanager
def assertNumLLMCalls(number: int) -> Iterator[None]:
    """Fail unless exactly `number` LLM calls are recorded inside the block, failed ones included."""
    before = set(LLMCall.objects.values_list("pk", flat=True))
    yield
    made = LLMCall.objects.exclude(pk__in=before).order_by("pk")
    if len(made) != number:
        listed = "\n".join(f"  {call.turn}: {call}" for call in made) or "  none"
        raise AssertionError(f"{len(made)} LLM calls were made, {number} expected:\n{listed}")
