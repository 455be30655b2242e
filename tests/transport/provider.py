"""A provider on loopback that speaks OpenAI's chat format, byte by byte as a test says.

Each call takes the next of `answers`, and the last one again and again. An answer is a function of the handler.
"""

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [says("Hello there.")]
        self.requests = []
        self.hung_up = threading.Event()
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def base(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_answer(self, path, headers, body):
        with self._lock:
            self.requests.append({"path": path, "headers": headers, "body": body})
            return self.answers[min(len(self.requests), len(self.answers)) - 1]

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""

    def stop(self):
        self.release.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.next_answer(self.path, headers, body)(self)

    def log_message(self, *args):
        pass

    def whole(self, data, status=200, headers=()):
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(raw)

    def start_stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def piece(self, data):
        raw = data if isinstance(data, bytes) else f"data: {json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def end_stream(self):
        self.wfile.write(b"0\r\n\r\n")

    def cut(self):
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


# -- answers ---------------------------------------------------------------------------------------------


def message(content=None, *, finish="stop", usage=USAGE, **more):
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
        ],
    }
    return {**data, "usage": usage} if usage is not None else data


def chunk(delta=None, finish=None, usage=None):
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return {**data, "usage": usage} if usage is not None else data


def text_chunks(*texts, usage=USAGE, finish="stop"):
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    chunks.append(chunk({}, finish=finish))
    return [*chunks, chunk(usage=usage)] if usage is not None else chunks


def tool_call(name, arguments, id="call_1", index=0):
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def says(text, *, usage=USAGE):
    """A plain answer, streamed word by word where a stream is asked for."""

    def answer(handler):
        if handler.server.requests[-1]["body"].get("stream"):
            streams(*text_chunks(*(word + " " for word in text.split(" ")), usage=usage))(handler)
        else:
            handler.whole(message(text, usage=usage))

    return answer


def sends(data, status=200, **headers):
    """A whole answer with this body."""
    return lambda handler: handler.whole(data, status, {key.replace("_", "-"): v for key, v in headers.items()})


def fails(status, words="No.", **headers):
    body = {"error": {"message": words, "type": "some_error", "param": None, "code": None}}
    return sends(body, status, **headers)


def streams(*chunks, done=True, cut=False, pause=0.0):
    """A stream of these chunks (dicts, or bytes as they are), cut off at the end where the test says so."""

    def answer(handler):
        handler.start_stream()
        for item in chunks:
            handler.piece(item)
            if pause:
                time.sleep(pause)
        if cut:
            time.sleep(0.05)
            handler.cut()
            return
        if done:
            handler.piece(b"data: [DONE]\n\n")
        handler.end_stream()

    return answer


MORE = {
    "openai": b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"role":"assistant","content":"more "},"finish_reason":null}]}\n\n',
    "anthropic": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"more "}}\n\n',
    "gemini": b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"more "}]}}]}\n\n',
    "ollama": b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"more "},'
    b'"done":false}\n',
}


def endless(format="openai"):
    """Chunks until the client hangs up, which sets `hung_up`."""

    def answer(handler):
        handler.start_stream()
        try:
            while not handler.server.release.is_set():
                handler.piece(MORE[format])
                time.sleep(0.01)
        except OSError:
            handler.server.hung_up.set()
        handler.close_connection = True

    return answer


def silent(handler):
    """No answer at all until the test ends."""
    handler.server.release.wait(20)
    handler.close_connection = True
