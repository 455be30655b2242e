"""The limits that a run is held against. Each is one line: what, which variant, the number, whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .measure import MS, Series, median, percentile
from .sections import CONFIGS, HEALTHY, ONE_CONFIG, OURS, TWO_CONFIGS, Storm
from .workload import STREAM_CHUNKS


@dataclass(frozen=True)
class Bar:
    """`value` is None where the run did not measure it."""

    title: str
    subject: str
    limit: float
    value: float | None
    form: str = "{:.2f}"

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.limit

    def shown(self, number: float | None) -> str:
        return "not measured" if number is None else self.form.format(number)


def cpu(series: Sequence[Series], name: str, variant: str = "", window: int | None = None) -> float | None:
    """Median CPU seconds of a call."""
    for one in series:
        if one.key == (name, variant) and one.case.get("window") == window and not one.failed:
            return median(one.cpu)
    return None


def _ours() -> Iterator[tuple[str, str]]:
    return ((name, config) for name in OURS for config in CONFIGS)


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def of_turns(turns: Mapping[str, Sequence[Series]]) -> Iterator[Bar]:
    plain, stream = turns["plain"], turns["stream"]
    for name, config in _ours():
        title = "plain turn with template, database and accounting: CPU, times bare `litellm.completion`"
        value = _ratio(cpu(plain, name, config), cpu(plain, "litellm"))
        yield Bar(title, f"{name}, {config}", 1.6, value)
    for kind, limit in (("plain", 20), ("tool", 30)):
        words = "plain turn" if kind == "plain" else "turn with one tool"
        for one in turns[kind]:
            if one.worker.name in OURS and one.case["variant"] in CONFIGS:
                sent = one.counts["statements"] if one.counts and not one.failed else None
                yield Bar(f"{words}: SQL statements", f"{one.key[0]}, {one.key[1]}", limit, sent, "{:.0f}")
    for against, words in (("", "bare litellm"), ("tuned", "tuned litellm (below)")):
        for name, config in _ours():
            own, theirs = cpu(stream, name, config), cpu(stream, "litellm", against)
            value = None if own is None or theirs is None else (own - theirs) * MS / STREAM_CHUNKS
            yield Bar(f"streamed: ms of CPU a chunk above {words}", f"{name}, {config}", 0.25, value)


def of_growth(growth: Mapping[int, Sequence[Series]]) -> Iterator[Bar]:
    series = growth.get(1_000, ())
    for name, config in _ours():
        title = "turn at message 1,000, all of them sent: CPU, times bare `litellm.completion` with the same messages"
        yield Bar(title, f"{name}, {config}", 0.2, _ratio(cpu(series, name, config), cpu(series, "litellm")))


def of_storms(storms: Sequence[Storm]) -> Iterator[Bar]:
    healthy = next((storm for storm in storms if storm.title == HEALTHY), None)
    usual = percentile(healthy.wall, 0.99) if healthy else None
    for storm in storms:
        subject = f"{storm.processes} process" + ("es" if storm.processes > 1 else "")
        slow = percentile(storm.wall, 0.99)
        if storm.title == TWO_CONFIGS:
            limit = 16 if storm.processes == 1 else 20
            yield Bar("storm: calls to the limited config", subject, limit, storm.calls, "{:.0f}")
            errors = sum(outcome != "answered" for outcome in storm.outcomes)
            yield Bar("storm: errors that users see", subject, 0, errors, "{:.0f}")
            added = None if slow is None or usual is None else (slow - usual) * MS
            yield Bar("storm: added p99, ms", subject, 1_000, added, "{:.0f}")
        elif storm.title == ONE_CONFIG:
            yield Bar("single limited config: caller told within (p99), ms", subject, 250, slow and slow * MS, "{:.0f}")
            yield Bar("single limited config: calls to it", subject, 16, storm.calls, "{:.0f}")
