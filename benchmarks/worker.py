"""A worker process: holds one contender and measures what it is told to, one JSON line per request."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import contenders, workload
from .contenders import Case


class Worker:
    def __init__(self, name: str, base_url: str) -> None:
        self.contender = contenders.make(name, base_url)

    def describe(self) -> dict[str, Any]:
        found = self.contender
        return {"variants": list(found.variants), "version": version(found.distribution)}

    def measure(self, case: dict[str, Any], calls: int, footprint: bool = False) -> dict[str, Any]:
        """Wall time of each call, and the CPU time of all of them with what they leave to other threads."""
        this = Case(**case)
        prepared = [self.contender.prepare(this) for _ in range(calls)]
        answers, walls = [], []
        _settle()
        written = self._written() if footprint else None
        resident = _reset_peak() if footprint else 0
        cpu = time.process_time()
        for call in prepared:
            started = time.perf_counter()
            answers.append(call())
            walls.append(time.perf_counter() - started)
        _settle()
        result: dict[str, Any] = {"wall": walls, "cpu": (time.process_time() - cpu) / calls}
        if footprint:
            result["peak"] = None if resident is None else _status("VmHWM") - resident
            result["written"] = None if written is None else self._written() - written
        _check(this, answers)
        return result

    def _written(self) -> Any:
        read = getattr(self.contender, "bytes_written", None)
        return read() if read else None

    def statements(self, case: dict[str, Any]) -> dict[str, int] | None:
        count = getattr(self.contender, "statements", None)
        return count(self.contender.prepare(Case(**case))) if count else None

    def burst(self, case: dict[str, Any], mode: str, at_once: int, waves: int) -> dict[str, Any]:
        """So many calls at once, in waves of which the first warms up."""
        this = Case(**case)
        return asyncio.run(self._aburst(this, at_once, waves)) if mode == "async" else self._burst(this, at_once, waves)

    def _burst(self, case: Case, at_once: int, waves: int) -> dict[str, Any]:
        with ThreadPoolExecutor(at_once) as pool:
            totals, outcomes = [], []
            prepared = [self.contender.prepare(case) for _ in range(at_once)]
            for wave in range(waves + 1):
                _settle()
                started, cpu = time.perf_counter(), time.process_time()
                found = list(pool.map(_timed, prepared))
                total = time.perf_counter() - started
                _settle()
                if wave:
                    totals.append((total, time.process_time() - cpu))
                    outcomes += found
            list(pool.map(lambda _: _close_connection(), range(at_once)))
        return _burst_result(totals, outcomes, at_once)

    async def _aburst(self, case: Case, at_once: int, waves: int) -> dict[str, Any]:
        async def timed(call: Callable[[], Any]) -> tuple[float, str]:
            started = time.perf_counter()
            try:
                await call()
            except Exception as exc:
                return time.perf_counter() - started, f"{type(exc).__name__}: {exc}"[:200]
            return time.perf_counter() - started, ""

        totals, outcomes = [], []
        prepared = [await self.contender.aprepare(case) for _ in range(at_once)]
        for wave in range(waves + 1):
            await asyncio.sleep(0.05)
            started, cpu = time.perf_counter(), time.process_time()
            found = await asyncio.gather(*[timed(call) for call in prepared])
            total = time.perf_counter() - started
            await asyncio.sleep(0.05)
            if wave:
                totals.append((total, time.process_time() - cpu))
                outcomes += found
        return _burst_result(totals, outcomes, at_once)

    def storm(self, **plan: Any) -> dict[str, Any]:
        from . import storm

        return storm.send(**plan)

    def storm_warm(self, **plan: Any) -> None:
        from . import storm

        storm.warm_up(**plan)


def _timed(call: Callable[[], Any]) -> tuple[float, str]:
    started = time.perf_counter()
    try:
        call()
    except Exception as exc:
        return time.perf_counter() - started, f"{type(exc).__name__}: {exc}"[:200]
    return time.perf_counter() - started, ""


def _close_connection() -> None:
    """Close this thread's database connection, where Django is in use."""
    if "django.db" in sys.modules:
        from django.db import connection

        connection.close()
    time.sleep(0.02)  # so that the pool gives each thread its turn


def _burst_result(totals: list[tuple[float, float]], outcomes: list[tuple[float, str]], at_once: int) -> dict[str, Any]:
    return {
        "rates": [at_once / total for total, _ in totals],
        "cpu": [cpu / at_once for _, cpu in totals],
        "wall": [wall for wall, _ in outcomes],
        "errors": [error for _, error in outcomes if error],
    }


def _check(case: Case, answers: list[str]) -> None:
    """An answer that is not the server's would make the measurement one of something else."""
    wrong = [answer for answer in answers if answer.strip() != workload.expected(case.kind).strip()]
    if wrong:
        raise AssertionError(f"Wrong answer to {case}: {wrong[0][:200]!r}")


def _settle() -> None:
    """Wait until the threads that a library left running have done their work."""
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.004)
        if time.process_time() - before < 0.0003:
            return


def _status(key: str) -> int:
    """A memory figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def _reset_peak() -> int | None:
    """Start the peak of resident memory anew and give what is resident now; None where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def main() -> None:
    name, base_url = sys.argv[1:3]
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def reply(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        worker = Worker(name, base_url)
        reply(ok=worker.describe())
    except ImportError as exc:
        reply(missing=str(exc))
        return
    except Exception as exc:
        traceback.print_exc()
        reply(error=f"{type(exc).__name__}: {exc}"[:300])
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply(ok=getattr(worker, request.pop("do"))(**request))
        except Exception as exc:
            traceback.print_exc()
            reply(error=f"{type(exc).__name__}: {exc}"[:300])


if __name__ == "__main__":
    main()
