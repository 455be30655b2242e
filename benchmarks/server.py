"""A mock of OpenAI's chat API on 127.0.0.1: one process, raw sockets, ready-made answers.

It answers `/v1/chat/completions` with a text, with a tool call where tools are offered and none has run, and with
200 server-sent events where a stream is asked for. Below `/limited/v1` every call gets a 429. `/counts` says how
many calls each path had; `/reset` forgets them. Bodies are searched, not parsed, so that the server stays far
faster than every client.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from .workload import ANSWER, MODEL, STREAM_PIECES, TOOL_ARGUMENTS, TOOL_NAME

CHUNK_PAUSE = 0.001
RETRY_AFTER = 10
LIMIT_DELAY = 0.1

USAGE = {"prompt_tokens": 600, "completion_tokens": 60, "total_tokens": 660}
counts: Counter[str] = Counter()


def _response(body: Any, status: str = "200 OK", extra: str = "") -> bytes:
    raw = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n{extra}\r\n".encode()
        + raw
    )


def _answer(message: dict[str, Any], finish_reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL}
    return _response({**head, "choices": [choice], "usage": USAGE})


def _event(delta: dict[str, Any] | None, finish_reason: str | None = None, usage: Any = None) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return _framed(b"data: " + json.dumps({**head, "choices": choices, "usage": usage}).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


TEXT = _answer({"content": ANSWER}, "stop")
TOOL_CALL = _answer(
    {
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": TOOL_NAME, "arguments": TOOL_ARGUMENTS}}
        ],
    },
    "tool_calls",
)
LIMITED = _response(
    {"error": {"message": "Rate limit reached.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}},
    "429 Too Many Requests",
    f"Retry-After: {RETRY_AFTER}\r\n",
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_EVENTS = [_event({"role": "assistant", "content": piece}) for piece in STREAM_PIECES]
STREAM_TAIL = _event({}, "stop") + _event(None, usage=USAGE) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _has(body: bytes, key: bytes, value: bytes) -> bool:
    return b'"%s":%s' % (key, value) in body or b'"%s": %s' % (key, value) in body


class Connection(asyncio.Protocol):
    """One client's connection; requests on it come one after the other."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, bytearray()

    def connection_lost(self, exc: Exception | None) -> None:
        self.buffer.clear()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (request := self._next_request()) is not None:
            self._answer(*request)

    def _next_request(self) -> tuple[str, bytes] | None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = bytes(self.buffer[:end]).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if headers.get(b"transfer-encoding") == b"chunked":
            stop = self.buffer.find(b"0\r\n\r\n", end + 4)
            length = stop + 5 - end - 4
        else:
            length = int(headers.get(b"content-length", b"0"))
        if length < 0 or len(self.buffer) < end + 4 + length:
            return None
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        return lines[0].split(b" ")[1].decode(), body

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/counts":
            self.transport.write(_response(dict(counts)))
            return
        if path == "/reset":
            counts.clear()
            self.transport.write(_response({}))
            return
        counts[path.partition("/v1/")[0] or "/"] += 1
        if path.startswith("/limited/"):
            asyncio.get_running_loop().call_later(LIMIT_DELAY, self.transport.write, LIMITED)
        elif _has(body, b"stream", b"true"):
            self.transport.write(STREAM_HEAD)
            self._stream(0, asyncio.get_running_loop().time())
        elif b'"tools"' in body and not _has(body, b"role", b'"tool"'):
            self.transport.write(TOOL_CALL)
        else:
            self.transport.write(TEXT)

    def _stream(self, sent: int, started: float) -> None:
        """One event each pause, however late the loop is."""
        if self.transport.is_closing():
            return
        loop = asyncio.get_running_loop()
        while sent < len(STREAM_EVENTS) and started + sent * CHUNK_PAUSE <= loop.time():
            self.transport.write(STREAM_EVENTS[sent])
            sent += 1
        if sent == len(STREAM_EVENTS):
            self.transport.write(STREAM_TAIL)
        else:
            loop.call_at(started + sent * CHUNK_PAUSE, self._stream, sent, started)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
