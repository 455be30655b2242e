"""`python -m tests.chaos`: all tests that are marked `chaos`, within LIMIT seconds.

All of them run on SQLite; those whose subject is the database run on PostgreSQL too, where DATABASE_URL names one.
CHAOS_KILLS says how many random kills there are on each database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

LIMIT = 15 * 60
ON_POSTGRESQL = ["tests/chaos", "tests/wire/test_storm.py"]


def main() -> int:
    deadline = time.monotonic() + LIMIT
    plain = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    runs = [("SQLite", plain, [])]
    if "DATABASE_URL" in os.environ:
        runs.append(("PostgreSQL", dict(os.environ), ON_POSTGRESQL))
    for name, environment, paths in runs:
        say(f"{name}, {deadline - time.monotonic():.0f} seconds left")
        command = [sys.executable, "-m", "pytest", "-m", "chaos", "-v", "-s", *paths]
        ended = run(command, environment, deadline - time.monotonic())
        if ended:
            return ended
    if len(runs) == 1:
        say("not run on PostgreSQL: DATABASE_URL names none")
    say(f"done after {LIMIT - (deadline - time.monotonic()):.0f} seconds")
    return 0


def run(command: list[str], environment: dict[str, str], seconds: float) -> int:
    """Run the tests; gives their exit status, and 1 where they had not ended in time."""
    tests = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return tests.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        say(f"FAILED: not done after {LIMIT} seconds; the last test named above was running")
        return 1
    finally:
        if tests.poll() is None:
            os.killpg(tests.pid, signal.SIGKILL)  # with the processes that it started
            tests.wait()


def say(text: str) -> None:
    print(f"chaos: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
