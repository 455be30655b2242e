"""The processes of a run: the server, the workers, and the database made for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A worker could not do what it was asked; the message is the worker's."""


class Server:
    """The mock server, until the block ends."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)

    def counts(self) -> dict[str, int]:
        """Calls so far, by the path's first part."""
        return self._get("/counts")

    def reset(self) -> None:
        self._get("/reset")

    def _get(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(self.base_url + path, timeout=10) as response:
            found: dict[str, int] = json.load(response)
        return found


class Worker:
    """A worker process. `missing` says which import failed, `broken` what else did; then it measures nothing."""

    def __init__(self, name: str, base_url: str, environment: dict[str, str], log: Any) -> None:
        self.name, self.missing, self.broken = name, "", ""
        self.version, self.variants = "", []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, base_url],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def started(self) -> None:
        """Wait until it has imported what it measures."""
        first = self._read()
        self.missing, self.broken = first.get("missing", ""), first.get("error", "")
        if "ok" in first:
            self.version, self.variants = first["ok"]["version"], first["ok"]["variants"]

    @property
    def usable(self) -> bool:
        return not self.missing and not self.broken

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have it done, and wait for the result. Raises Failed."""
        self.send(do, **arguments)
        return self.receive()

    def send(self, do: str, **arguments: Any) -> None:
        if not self.usable:
            raise Failed(f"{self.name}: {self.missing or self.broken}")
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        reply = self._read()
        if "error" in reply:
            raise Failed(f"{self.name}: {reply['error']}")
        return reply["ok"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the worker ended with exit code {self.process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def let_go(self) -> None:
        """Nothing more will be asked: the worker ends when it has cleaned up."""
        with suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def stop(self) -> None:
        self.let_go()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def workers(names: dict[str, tuple[str, dict[str, str]]], base_url: str, folder: Path) -> Iterator[dict[str, Worker]]:
    """Workers by name, started together: name -> (contender, environment). What they print goes to a log."""
    with ExitStack() as stack:
        log = stack.enter_context(open(folder / "workers.log", "a"))
        found = {}
        for name, (contender, environment) in names.items():
            found[name] = Worker(contender, base_url, environment, log)
            stack.callback(found[name].stop)
        for worker in found.values():
            worker.started()
        yield found
        for worker in found.values():
            worker.let_go()


@contextmanager
def own_database(url: str) -> Iterator[str]:
    """A PostgreSQL database for this run, on the server of `url`; gives its URL."""
    import psycopg

    name = f"llm_wrapper_bench_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
