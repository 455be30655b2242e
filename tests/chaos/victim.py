"""A process that runs one tool-using turn and may be killed at any moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from django.db import connections

from llm_wrapper import history
from llm_wrapper.events import TurnStarted
from llm_wrapper.repositories import load_prompt
from llm_wrapper.testing import scripted_model, tool_calls
from llm_wrapper.tools import llm_tool
from llm_wrapper.turn import TurnJob, drive, run_turn

LEDGER = "CHAOS_LEDGER"


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


def killing(machine, at):
    """The turn, with the process killed at boundary `at`: even ones stand before an effect, odd ones behind it."""
    boundary, wanted = 0, machine.send(None)
    while True:
        if boundary == at:
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = yield wanted
        if boundary + 1 == at:
            os.kill(os.getpid(), signal.SIGKILL)
        boundary += 2
        try:
            wanted = machine.send(outcome)
        except StopIteration:
            return


def job_on(chat_id: int) -> TurnJob:
    _, version = load_prompt("chaos")
    return TurnJob(
        chat_id=chat_id, message="hello", spec=version.spec(), version=version, config_names=["demo"], stream=True
    )


def script():
    return [
        tool_calls(("charge", {"order": 1}), ("look_up", {"order": 1})),
        tool_calls(("charge", {"order": 2})),
        "All done now.",
    ]


def fork_turn(chat_id: int, *, at: int | None = None) -> tuple[int, int]:
    """Run a turn in a forked process; gives its pid and a pipe that brings a byte once the message is acknowledged."""
    connections.close_all()
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        os.close(read)
        with scripted_model(*script()):
            machine = run_turn(job_on(chat_id), history)
            for event in drive(machine if at is None else killing(machine, at)):
                if isinstance(event, TurnStarted):
                    os.write(write, b"a")
        os._exit(0)
    finally:
        os._exit(1)


def ledger(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
