"""Processes that run one tool-using turn, or recover one, and may be killed at any moment."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.db import connection, connections

from llm_wrapper import history
from llm_wrapper.events import TurnStarted
from llm_wrapper.models import Turn
from llm_wrapper.models.loading import load_prompt
from llm_wrapper.recovery import resume
from llm_wrapper.testing import scripted_model, tool_calls
from llm_wrapper.tools import llm_tool
from llm_wrapper.turn import TurnJob, drive, run_turn

LEDGER = "CHAOS_LEDGER"
LONGEST = 60  # seconds that a victim may live, so that none is left behind


def note(line: str) -> None:
    """Add a line to the ledger of effects, in one write that survives the death of the process."""
    descriptor = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (line + "\n").encode())
    os.close(descriptor)


@llm_tool
def charge(order: int, __tool_call_key__: str) -> str:
    """Charge an order: must not happen twice.

    Args:
        order: Number of the order.
    """
    note(f"charge {__tool_call_key__}")
    return "charged"


@llm_tool
def look_up(order: int, __tool_call_key__: str) -> str:
    """Look an order up: harmless to repeat.

    Args:
        order: Number of the order.
    """
    note(f"look_up {__tool_call_key__}")
    return "found"


def ledger(path: Path, tool: str) -> list[str]:
    """The key of each run of the tool that had its effect."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.removeprefix(f"{tool} ") for line in lines if line.startswith(f"{tool} ")]


def job_on(chat_id: int) -> TurnJob:
    _, version, *_ = load_prompt("chaos")
    return TurnJob(
        chat_id=chat_id, message="hello", spec=version.spec(), version=version, config_names=["demo"], stream=True
    )


def script() -> list[Any]:
    return [
        tool_calls(("charge", {"order": 1}), ("look_up", {"order": 1})),
        tool_calls(("charge", {"order": 2})),
        "All done now.",
    ]


# -- where a victim kills itself -------------------------------------------------------------------------------


class Failpoint:
    """Kills the process when it comes to point `at`: even ones stand before a step, odd ones behind it."""

    def __init__(self, at: int | None) -> None:
        self.at, self.point = at, 0

    @contextmanager
    def step(self) -> Iterator[None]:
        self._reach()
        yield
        self._reach()

    def _reach(self) -> None:
        if self.point == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.point += 1


def at_effects(machine: Any, failpoint: Failpoint) -> Any:
    """The turn, with a failpoint around each effect: that is around each commit, each call and each tool."""
    wanted = machine.send(None)
    while True:
        with failpoint.step():
            outcome = yield wanted
        try:
            wanted = machine.send(outcome)
        except StopIteration:
            return


def at_statements(failpoint: Failpoint) -> Any:
    """A failpoint around each statement sent to the database: inside the transactions too, and before each commit."""

    def execute(run: Any, *arguments: Any) -> Any:
        with failpoint.step():
            return run(*arguments)

    return connection.execute_wrapper(execute)


# -- processes -------------------------------------------------------------------------------------------------


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Do the work in a forked process; gives its pid and a pipe that brings what the work writes."""
    connections.close_all()
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        signal.alarm(LONGEST)
        os.close(read)
        if connection.vendor == "postgresql":
            connection.settings_dict["OPTIONS"]["application_name"] = f"victim-{os.getpid()}"
        work(write)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)


def fork_turn(chat_id: int, *, effect: int | None = None, statement: int | None = None) -> tuple[int, int]:
    """Run a turn, up to an effect or a statement; its pipe brings a byte once the message is acknowledged."""

    def work(pipe: int) -> None:
        with at_statements(Failpoint(statement)), scripted_model(*script()):
            for event in drive(at_effects(run_turn(job_on(chat_id), history), Failpoint(effect))):
                if isinstance(event, TurnStarted):
                    os.write(pipe, b"a")

    return fork(work)


def fork_recovery(turn: Turn) -> tuple[int, int]:
    """Recover a turn; its pipe brings nothing but its end."""

    def work(pipe: int) -> None:
        with scripted_model("Recovered."):
            resume(turn)

    return fork(work)


def finish(pid: int, pipe: int, *, kill_after: float | None = None, from_acknowledgement: bool = False) -> Any:
    """Wait for the process, or kill it; gives whether it had acknowledged the message, and whether it was killed."""
    acknowledged = from_acknowledgement and os.read(pipe, 1) == b"a"
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    acknowledged = acknowledged or os.read(pipe, 1) == b"a"
    os.close(pipe)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (0, -signal.SIGKILL), f"the victim failed by itself: {ended}"
    wait_for_server(pid)
    return acknowledged, ended != 0


def wait_for_server(pid: int) -> None:
    """PostgreSQL may still carry out the last statement of a process that is gone."""
    if connection.vendor != "postgresql":
        return
    until = time.monotonic() + LONGEST
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", [f"victim-{pid}"])
            if cursor.fetchone() is None:
                return
            assert time.monotonic() < until, f"the server still works for victim {pid}"
            time.sleep(0.001)
