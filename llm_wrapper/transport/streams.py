"""What litellm does not say of a stream: whether it really ended, what was really counted, how to close it."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from typing import Any

DONE = "[DONE]"
# The same text inside a JSON string. litellm takes a line that holds DONE anywhere for the end of the stream, also
# where a model wrote those letters.
DONE_IN_TEXT = "[DONE\\u005d"


def guard(stream: Any) -> None:
    """Let nothing of the stream get lost in litellm's line parser. Call it before the first chunk is read."""
    lines = stream.completion_stream
    # The OpenAI SDK and some providers have parsers of their own, without this fault.
    if not hasattr(lines, "_handle_string_chunk"):
        return
    if hasattr(lines.streaming_response, "__anext__"):
        lines.streaming_response = _checked_async(lines.streaming_response)
    elif hasattr(lines.streaming_response, "__next__"):
        lines.streaming_response = lines.response_iterator = _checked_sync(lines.streaming_response)


def _checked_sync(lines: Any) -> Generator[Any, None, None]:
    with closing(lines):
        for line in lines:
            yield _checked(line)


async def _checked_async(lines: Any) -> AsyncGenerator[Any, None]:
    try:
        async for line in lines:
            yield _checked(line)
    finally:
        await lines.aclose()


def _checked(line: Any) -> Any:
    """The line, safe for litellm. Raises ValueError where it is broken: litellm would skip it without a word."""
    if not isinstance(line, str) or not line.startswith("data:"):
        return line
    data = line[5:].strip()
    if not data or data == DONE:
        return line
    json.loads(data)
    return line.replace(DONE, DONE_IN_TEXT)


def really_ended(stream: Any) -> bool:
    """Whether the provider said that its answer is complete. litellm says so of every stream that stops."""
    return bool(stream.received_finish_reason or stream.intermittent_finish_reason)


def reported_counts(stream: Any) -> set[str]:
    """Which of prompt_tokens and completion_tokens the provider counted itself; litellm guesses the others."""
    usages = [getattr(chunk, "usage", None) for chunk in stream.chunks]
    return {
        name
        for name in ("prompt_tokens", "completion_tokens")
        if any(getattr(usage, name, None) for usage in usages if usage is not None)
    }


def last_counts(stream: Any) -> tuple[Any, bool]:
    """The newest token counts that the provider sent (litellm's usage object or None), and whether they are final.

    Some providers count what goes in at the beginning, with an output that has only begun.
    """
    for chunk in reversed(stream.chunks):
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            return usage, really_ended(stream) or not chunk.choices
    return None, False


def close(stream: Any) -> None:
    """Let go of the connection, also in the middle of an answer."""
    for holder in _holders(stream):
        release = getattr(holder, "close", None)
        if release is not None:
            release()


async def aclose(stream: Any) -> None:
    """The async twin of `close`."""
    for holder in _holders(stream):
        release = getattr(holder, "aclose", None) or getattr(holder, "close", None)
        result = release() if release is not None else None
        if inspect.isawaitable(result):
            await result


def _holders(stream: Any) -> list[Any]:
    """What may hold the connection, from the inside out; each provider's stream is built in its own way."""
    source = stream.completion_stream
    names = ("streaming_response", "http_response", "response")
    return [*(getattr(source, name, None) for name in names), source]
