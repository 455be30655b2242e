"""The four parts of a run. Each gives what it measured; nothing is computed from it here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .measure import ANEW, Series, all_series, in_turn
from .processes import Failed, Server, Worker, workers

KINDS = ("plain", "tool", "stream")
OURS = ("llm_wrapper-sqlite", "llm_wrapper-postgresql")
CONFIGS = ("OpenAIConfig", "OpenAICompatibleConfig")
WINDOW = 20
RATE = 20.0
HEALTHY, TWO_CONFIGS, ONE_CONFIG = "one healthy config", "two configs, one limited", "one config, limited"


@dataclass(frozen=True)
class Plan:
    """How much is measured. `until` is at how many seconds of the run each part ends, with fewer rounds on a slow
    machine, so that the run is bounded."""

    rounds: Mapping[str, int]
    calls: Mapping[str, int]
    until: Mapping[str, float]
    sizes: tuple[int, ...]
    growth_rounds: int
    at_once: int
    waves: int
    storm_seconds: float
    baseline_seconds: float
    storm_processes: tuple[int, ...]


FULL = Plan(
    rounds={"plain": 30, "tool": 20, "stream": 20},
    calls={"plain": 4, "tool": 3, "stream": 1},
    until={"plain": 65, "tool": 105, "stream": 165, "growth": 240, "throughput": 290},
    sizes=(10, 100, 1_000, 5_000),
    growth_rounds=5,
    at_once=50,
    waves=2,
    storm_seconds=30,
    baseline_seconds=8,
    storm_processes=(1, 4),
)
QUICK = Plan(
    rounds={"plain": 5, "tool": 3, "stream": 3},
    calls={"plain": 2, "tool": 1, "stream": 1},
    until={"plain": 22, "tool": 29, "stream": 39, "growth": 50, "throughput": 60},
    sizes=(10, 1_000),
    growth_rounds=3,
    at_once=10,
    waves=1,
    storm_seconds=4,
    baseline_seconds=2,
    storm_processes=(1,),
)


def turns(plan: Plan, found: Mapping[str, Worker], began: float) -> dict[str, list[Series]]:
    """One turn of each kind, by every contender."""
    result = {}
    for kind in KINDS:
        series = all_series(found, anew=kind != "stream", kind=kind)
        for one in series:
            one.warm_up()
        in_turn(series, plan.rounds[kind], plan.calls[kind], began + plan.until[kind])
        result[kind] = series
    return result


def growth(plan: Plan, found: Mapping[str, Worker], began: float) -> dict[int, list[Series]]:
    """A plain turn with so many messages before it, all of them sent or the newest of them."""
    result: dict[int, list[Series]] = {}
    for number, size in enumerate(plan.sizes):
        # Each size may have an equal part of what is left.
        left = began + plan.until["growth"] - time.monotonic()
        until = time.monotonic() + left / (len(plan.sizes) - number)
        case: dict[str, Any] = {"kind": "plain", "history": size}
        chosen = {name: found[name] for name in ("httpx", "openai", "litellm", *OURS) if name in found}
        series = all_series(chosen, **case)
        series += [
            Series(found[name], {**case, "variant": config, "window": WINDOW})
            for name in OURS
            if name in found and found[name].usable
            for config in CONFIGS
        ]
        for one in series:
            try:
                one.worker.ask("measure", case=one.case, calls=1)
            except Failed as error:
                one.failed = str(error)
        in_turn(series, plan.growth_rounds, 1, until, footprint=True)
        result[size] = series
    return result


@dataclass
class Burst:
    """Many turns at once by one contender; `found` holds rates, cpu, wall and errors."""

    worker: str
    variant: str
    mode: str
    found: dict[str, Any] = field(default_factory=dict)
    failed: str = ""


def throughput(plan: Plan, found: Mapping[str, Worker], began: float) -> list[Burst]:
    """So many plain turns at once: one thread each, or all on one event loop."""
    result = []
    until = began + plan.until["throughput"]
    for mode in ("threads", "async"):
        for name, worker in found.items():
            if name not in ("httpx", "litellm", *OURS) or not worker.usable:
                continue
            for variant in worker.variants:
                if variant.endswith(ANEW):
                    continue
                burst = Burst(name, variant, mode)
                case = {"kind": "plain", "variant": variant}
                waves = plan.waves if time.monotonic() < until else 1
                try:
                    burst.found = worker.ask("burst", case=case, mode=mode, at_once=plan.at_once, waves=waves)
                except Failed as error:
                    burst.failed = str(error)
                result.append(burst)
    return result


@dataclass
class Storm:
    """Sends at a steady rate; `calls` is how many requests reached the limited config."""

    title: str
    processes: int
    seconds: float
    wall: list[float]
    outcomes: list[str]
    calls: int


def storms(plan: Plan, server: Server, folder: Path) -> list[Storm]:
    """Sends to a healthy config, to a limited and a healthy one, and to a limited one alone."""
    environment = {"BENCH_FOLDER": str(folder), "BENCH_SQLITE": "storm.sqlite3"}
    names = {f"storm {number}": ("llm_wrapper-sqlite", environment) for number in range(max(plan.storm_processes))}
    both, long, short = ["limited", "steady"], plan.storm_seconds, plan.baseline_seconds
    with workers(names, server.base_url, folder) as found:
        pool = list(found.values())
        return [
            _storm(server, pool[:1], HEALTHY, ["steady"], short),
            *(_storm(server, pool[:count], TWO_CONFIGS, both, long) for count in plan.storm_processes),
            _storm(server, pool[:1], ONE_CONFIG, ["limited"], long),
        ]


def _storm(server: Server, pool: list[Worker], title: str, configs: list[str], seconds: float) -> Storm:
    for worker in pool:
        worker.ask("storm_warm", configs=configs)
    server.reset()
    start = time.time() + 0.5
    each = RATE / len(pool)
    for number, worker in enumerate(pool):
        worker.send("storm", configs=configs, rate=each, seconds=seconds, start_at=start + number / RATE)
    found = [worker.receive() for worker in pool]
    return Storm(
        title,
        len(pool),
        seconds,
        [wall for part in found for wall in part["wall"]],
        [outcome for part in found for outcome in part["outcomes"]],
        server.counts().get("/limited", 0),
    )
