"""What the parts of a run have in common: measuring contenders in turn, and the figures made of it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .processes import Failed, Worker

MS = 1000.0
ANEW = "+ wrapper"


@dataclass
class Series:
    """One contender's measurements of one case. Times in seconds; `cpu` holds one value per batch of calls."""

    worker: Worker
    case: dict[str, Any]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    counts: dict[str, int] | None = None
    failed: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.worker.name, self.case.get("variant", "")

    def take(self, calls: int, *, footprint: bool = False) -> None:
        """Measure one batch; the first failure ends the series."""
        if self.failed:
            return
        try:
            found = self.worker.ask("measure", case=self.case, calls=calls, footprint=footprint)
        except Failed as error:
            self.failed = str(error)
            return
        self.wall += found["wall"]
        self.cpu.append(found["cpu"])
        for name in ("written", "peak"):
            if found.get(name) is not None:
                getattr(self, name).append(found[name])

    def warm_up(self) -> None:
        """A call that is not counted, then the number of statements of another."""
        try:
            self.worker.ask("measure", case=self.case, calls=1)
            self.counts = self.worker.ask("statements", case=self.case)
        except Failed as error:
            self.failed = str(error)


def all_series(workers: Mapping[str, Worker], *, anew: bool = False, **case: Any) -> list[Series]:
    """A series for every variant of every worker that can be used; with `anew` also those that make the wrapper
    within the measured time."""
    return [
        Series(worker, {**case, "variant": variant})
        for worker in workers.values()
        if worker.usable
        for variant in worker.variants
        if anew or not variant.endswith(ANEW)
    ]


def in_turn(series: Sequence[Series], rounds: int, calls: int, until: float, *, footprint: bool = False) -> None:
    """A, B, C, A, B, C: each round measures every series once, so that a change of the machine's mood meets all.

    No round begins after the monotonic time `until`, once there have been two.
    """
    for number in range(rounds):
        if number >= 2 and time.monotonic() > until:
            return
        for one in series:
            one.take(calls, footprint=footprint)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
