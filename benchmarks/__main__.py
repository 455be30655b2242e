"""Run all benchmarks and write docs/benchmarks.md.

All traffic stays on 127.0.0.1. DATABASE_URL names a PostgreSQL server on which a database may be made and dropped;
without it, PostgreSQL is not measured, and the page says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from . import configs, page, sections
from .contenders import MODULES
from .processes import ROOT, Failed, Server, Worker, own_database, workers

PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, within 90 seconds; printed, not written")
    parser.add_argument("--output", type=Path, help="where the page goes")
    options = parser.parse_args()
    output = options.output or (None if options.quick else PAGE)
    text = page.write(run(sections.QUICK if options.quick else sections.FULL, quick=options.quick))
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")
        print(f"Wrote {output}")
    return 0


def run(plan: sections.Plan, *, quick: bool) -> page.Run:
    """Measure everything; takes minutes."""
    started = time.monotonic()
    load = os.getloadavg()[0]

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm_wrapper-bench-")))
        server = stack.enter_context(Server())
        configs.write(folder / "llm_configs", server.base_url)
        url, absent = os.environ.get("DATABASE_URL", ""), {}
        environments = {name: (name, {"BENCH_FOLDER": str(folder)}) for name in MODULES}
        if url:
            environments["llm_wrapper-postgresql"][1]["BENCH_DATABASE_URL"] = stack.enter_context(own_database(url))
        else:
            del environments["llm_wrapper-postgresql"]
            absent["llm_wrapper on PostgreSQL"] = "DATABASE_URL is not set"
        facts = _machine(folder, url)
        say("starting the workers")
        with workers(environments, server.base_url, folder) as found:
            for name, worker in found.items():
                if not worker.usable:
                    absent[name] = f"not installed ({worker.missing})" if worker.missing else f"failed: {worker.broken}"
            facts |= _versions(found)
            say("turns")
            turns = sections.turns(plan, found, started)
            say("growth")
            growth = sections.growth(plan, found, started)
            say("throughput")
            bursts = sections.throughput(plan, found, started)
        say("storms")
        try:
            storms = sections.storms(plan, server, folder)
        except Failed as error:
            storms, absent["storms"] = [], str(error)
        say("done")
    seconds = time.monotonic() - started
    facts |= {
        "load average (1 minute) before and after": f"{load:.2f}, {os.getloadavg()[0]:.2f}",
        "time of the run": f"{seconds:.0f} s",
    }
    return page.Run(plan, quick, facts, found, absent, turns, growth, bursts, storms, seconds)


def _machine(folder: Path, url: str) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "file system of the SQLite files": _file_system(folder),
    }
    if url:
        import psycopg

        with psycopg.connect(url) as connection:
            number = connection.info.server_version
        facts["PostgreSQL"] = f"{number // 10000}.{number % 10000}, on the same machine"
    return facts


def _file_system(folder: Path) -> str:
    """The type of the mount that holds the folder."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    rows = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    holding = [(place, kind) for place, kind in rows if folder.resolve().is_relative_to(place)]
    return max(holding, key=lambda row: len(row[0]))[1] if holding else "unknown"


def _versions(found: dict[str, Worker]) -> dict[str, str]:
    """The version of each contender's package, and of Django."""
    versions = {worker.name: worker.version for worker in found.values() if worker.usable}
    ours = {versions.pop(name) for name in sections.OURS if name in versions}
    pairs = [("llm_wrapper", *ours), ("Django", version("django")), *versions.items()] if ours else versions.items()
    return {"packages": ", ".join(" ".join(pair) for pair in pairs)}


if __name__ == "__main__":
    sys.exit(main())
