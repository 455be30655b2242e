"""Real servers for the API: uvicorn in this process, and WSGI servers in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from django.core.asgi import get_asgi_application
from django.db import connection

from llm_wrapper.testing import ScriptedModel

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class SlowModel(ScriptedModel):
    """Answers by script, and waits before each piece of text."""

    pause: float = 0.02

    def stream(self, request):
        for item in super().stream(request):
            time.sleep(self.pause)
            yield item

    async def astream(self, request):
        async for item in super().astream(request):
            await asyncio.sleep(self.pause)
            yield item


@contextlib.contextmanager
def asgi_server() -> Iterator[str]:
    """The site on uvicorn, in a thread of this process; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(get_asgi_application(), lifespan="off", ws="none", log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process that uses the test's database."""
    name = str(connection.settings_dict["NAME"])
    found = {**os.environ, "DJANGO_SETTINGS_MODULE": "example.test_settings", "SQLITE_PATH": name, **extra}
    if "DATABASE_URL" in os.environ:
        found["DATABASE_URL"] = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    return found


@contextlib.contextmanager
def wsgi_processes(count: int, **extra: str) -> Iterator[list[str]]:
    """So many processes that each serve the site by WSGI with a thread for each request; gives their addresses."""
    command = [sys.executable, "-m", "tests.api.wsgi_server"]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment(**extra), stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield [f"http://127.0.0.1:{int(process.stdout.readline())}" for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait(10)
            process.stdout.close()


def until(holds, seconds: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)
