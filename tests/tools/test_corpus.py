"""Hostile source, by the hundred: none of it gets out, hangs, or spoils the next call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_wrapper.tools import PreparedCall, arun, check, prepare, run
from llm_wrapper.tools.sandbox import Program, SandboxError
from llm_wrapper.tools.sandbox import run as sandbox_run
from llm_wrapper.types import ToolResult

from .corpus import BODIES, MODULES
from .shop import tool

LIMIT = 256 * 1024 * 1024
SECRET = "canary-4f1c-secret"


@dataclass
class Canaries:
    """A file, an environment variable and a port that no tool may reach."""

    file: Path
    port: socket.socket

    def place(self, source: str) -> str:
        number = str(self.port.getsockname()[1])
        return source.replace("FILE", str(self.file)).replace("ENV", "CANARY").replace("PORT", number)

    def check(self) -> None:
        assert self.file.read_text() == SECRET
        with pytest.raises(BlockingIOError):
            self.port.accept()


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canaries]:
    file = tmp_path / "canary"
    file.write_text(SECRET)
    monkeypatch.setenv("CANARY", SECRET)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen()
        port.setblocking(False)
        yield Canaries(file, port)


class Memory(threading.Thread):
    """Watches, inside `with`, that neither this process nor a worker grows past the limit."""

    def __enter__(self) -> None:
        self.peak, self.ended = 0, threading.Event()
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.look()

    def look(self) -> None:
        for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in children.read_text().split():
                    status = Path(f"/proc/{pid}/status").read_text()
                    fields = dict(line.split(":", 1) for line in status.splitlines())
                    if fields["Name"].strip() == "monty" and "VmHWM" in fields:
                        self.peak = max(self.peak, int(fields["VmHWM"].split()[0]) * 1024)

    def __exit__(self, *args: object) -> None:
        self.ended.set()
        self.join()
        self.look()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before) * 1024
        assert max(self.peak, grown) < LIMIT


def source_of(body: str) -> str:
    return "def f():\n" + "\n".join("    " + line for line in body.split("\n"))


def attack(source: str, canaries: Canaries, *, through_async: bool = False) -> ToolResult:
    """Run hostile source and check what must hold after each; gives the result."""
    call = prepare(tool(canaries.place(source)), "{}", {})
    started = time.monotonic()
    with Memory():
        result = call if isinstance(call, ToolResult) else asyncio.run(arun(call)) if through_async else run(call)
    assert time.monotonic() - started < 2
    assert set(json.loads(result.content)) == {"status", "message"}
    assert len(result.content) < 100_000
    assert SECRET not in result.content
    result.content.encode()
    canaries.check()
    after = prepare(tool("import json\ndef f():\n    return json.dumps([len('ab'), shop_stock('pen')])"), "{}", {})
    assert isinstance(after, PreparedCall)
    assert json.loads(run(after).content) == {"status": "OK", "message": "[2, 3]"}
    return result


# What these give back is harmless; every other one has to fail.
HARMLESS = frozenset(
    [
        "poison_builtin",
        "host_name_taken",
        "arguments_global",
        "long_sleep",
        "regex",
        "regex_backtrack",
        "huge_result",
        "deep_result",
        "laughs_result",
        "cyclic_result",
        "surrogate_result",
        "print_big",
        "stderr",
        "recursion_repr",
    ]
)


@pytest.mark.parametrize("name", BODIES)
def test_f3_f4_hostile_source_ends_as_an_error_or_a_harmless_value(name: str, canaries: Canaries) -> None:
    """Within 2 s and 256 MiB it ends without a file, secret or connection, and the next call works."""
    result = attack(source_of(BODIES[name]), canaries)
    assert result.status == ("done" if name in HARMLESS else "failed"), result
    assert result.code in ("", "tool_error", "tool_timeout")


ASYNC = ["open_read", "os_environ", "endless", "dict_bomb", "laughs_result", "host_flood", "recursion"]


@pytest.mark.parametrize("name", ASYNC)
def test_f3_f4_the_async_door_holds_too(name: str, canaries: Canaries) -> None:
    """What holds for the sync door holds for the async one."""
    result = attack(source_of(BODIES[name]), canaries, through_async=True)
    assert result.status == ("done" if name in HARMLESS else "failed"), result


@pytest.mark.parametrize("name", MODULES)
def test_f2_f3_source_that_acts_at_module_level_is_refused_twice(name: str, canaries: Canaries) -> None:
    """It cannot be saved, and where it got into the table by other ways it is not run."""
    started = time.monotonic()
    assert any(error.field == "tool_code" for error in check(tool(canaries.place(MODULES[name]))))
    assert time.monotonic() - started < 2
    result = attack(MODULES[name], canaries)
    assert (result.status, result.code) == ("failed", "tool_error")


@pytest.mark.parametrize("name", MODULES)
def test_f3_the_sandbox_holds_without_the_check(name: str, canaries: Canaries) -> None:
    """Even source that slipped past every check of its shape does nothing from inside the sandbox."""
    source = canaries.place(MODULES[name])
    program = Program(source, "f", False, {}, 0.5, 64 * 1024 * 1024, lambda name, error: None)
    started = time.monotonic()
    with Memory(), contextlib.suppress(SandboxError):
        sandbox_run(program)
    assert time.monotonic() - started < 2
    canaries.check()
