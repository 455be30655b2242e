"""The page that a run writes. Every number on it comes from the run's own measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import bars, server, workload
from .measure import MS, Series, median, percentile
from .processes import Worker
from .sections import RATE, WINDOW, Burst, Plan, Storm

TITLES = {
    "plain": "Plain: one message, one answer",
    "tool": "With one tool: the model asks for it, gets its result, and answers",
    "stream": f"Streamed: {workload.STREAM_CHUNKS} chunks, one each millisecond",
}
LABELS = {
    ("httpx", ""): "bare httpx",
    ("openai", ""): "OpenAI SDK",
    ("litellm", ""): "bare `litellm.completion`",
    ("litellm", "tuned"): "tuned litellm",
    ("langchain", ""): "LangChain ChatOpenAI",
    ("pydantic-ai", ""): "pydantic-ai",
    ("django-ai-assistant", ""): "django-ai-assistant (SQLite)",
}


@dataclass
class Run:
    """Everything that one run measured, and where."""

    plan: Plan
    quick: bool
    facts: Mapping[str, str]
    workers: Mapping[str, Worker]
    absent: Mapping[str, str]
    turns: Mapping[str, Sequence[Series]]
    growth: Mapping[int, Sequence[Series]]
    bursts: Sequence[Burst]
    storms: Sequence[Storm]
    seconds: float


def bars_of(run: Run) -> list[bars.Bar]:
    return [*bars.of_turns(run.turns), *bars.of_growth(run.growth), *bars.of_storms(run.storms)]


def write(run: Run) -> str:
    """The page as Markdown."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. All numbers are of one run on one machine: compare the rows of a table, "
        "not machines. Wall times depend on what else the machine did; ratios of CPU time depend on it far less.",
        _quick_note(run),
        "## The machine",
        _table(["what", "value"], [[key, value] for key, value in run.facts.items()]),
        "## The bars",
        "`met` and `not met` are about this run's number.",
        _bars(run),
        _why_not(run),
        "## One turn",
        ONE_TURN,
        *_turns(run),
        _absent(run),
        "## Growth",
        GROWTH.format(window=WINDOW),
        *_growth(run),
        f"## Throughput: {run.plan.at_once} turns at once",
        THROUGHPUT.format(waves=run.plan.waves),
        _throughput(run),
        "## Storms",
        STORMS.format(rate=RATE, delay=server.LIMIT_DELAY * MS, retry_after=server.RETRY_AFTER),
        _storms(run),
        _failures(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


ONE_TURN = f"""\
A mock server on 127.0.0.1, a process of its own, gives every contender the same answers in OpenAI's format. All send
the same system prompt ({len(workload.system_text()):,} characters) and message. Each contender is a process of its own
that has imported its library, keeps its HTTP client, and has warmed up; they are measured in turn (A, B, C, A, B, C).
Every answer is compared with what the server sent.

- **wall**: time of one call, its median and p95.
- **CPU**: `time.process_time()` over a batch of calls until the threads that the library left running are idle, divided
  by the calls; the median of the batches. It holds all threads of the client's process, and neither the server nor
  PostgreSQL.
- **SQL**: statements of one turn as Django sends them, without BEGIN and COMMIT; transactions that it commits.
- **llm_wrapper** is `LLMCommunicationWrapper.send_user_message_and_get_response` (`stream_user_message`) on a new chat:
  the template is rendered, the message, the call, the answer, its tokens and its cost are committed. `+ wrapper` also
  makes the wrapper, on the stored chat, within the measured time, as a web request does. SQLite is a file in WAL mode
  with `synchronous=FULL`, as in `example/settings.py`.
- **tuned litellm** is litellm's `hosted_vllm/` provider with `disable_streaming_logging`: the cheapest way through it.
  `OpenAICompatibleConfig` takes the same provider, `OpenAIConfig` takes litellm's `openai/`.
- bare httpx, the OpenAI SDK, litellm, LangChain and pydantic-ai store nothing; django-ai-assistant stores messages."""

GROWTH = """\
A plain turn behind so many messages of 500 characters, once with all of them sent and once with
`history_window={window}`. CPU as above, one call at a time. Medians.

- **written** is what the turn wrote: on SQLite all that the process handed to `write()` (`wchar` of `/proc/self/io`:
  the write-ahead log, and the database at a checkpoint), on PostgreSQL how far the server's write-ahead log moved
  (`pg_current_wal_insert_lsn()`; of the whole server, other databases on it included).
- **peak memory** is how far the resident memory of the process rose during the turn (`VmHWM`, reset before): what it
  needed beyond what it held already from the turns before."""

THROUGHPUT = """\
The turns of a wave start together: one thread each on the sync door, or all on one event loop through the async door.
The server answers at once, so this is what the CPU allows and not what a model would. Each turn has a chat of its own,
which goes on from wave to wave. One wave warms up; the rate is the median of the measured waves ({waves}, or
1 where the machine was slow), wall times are of single turns."""

STORMS = """\
{rate:.0f} new conversations a second, at fixed times whether or not earlier ones have been answered;
`retry_on_openai_time_limit=True`. The limited config answers every call with 429 and `Retry-After: {retry_after}` after
{delay:.0f} ms. The processes share the SQLite file and a file-based cache. Calls are counted by the server. Times count
from the moment at which the send was due, and include making the wrapper and the chat. `told when to come back` is
`AllConfigsUnavailable` with its `retry_after`."""


def _quick_note(run: Run) -> str:
    return "**A quick run**: few rounds and short storms, good for a look and not for a judgement." if run.quick else ""


def _why_not(run: Run) -> str:
    """Where the CPU goes that keeps a turn above its bar: what the same call takes by itself, and the rest."""
    if all(bar.met is not False for bar in bars_of(run)):
        return ""
    lines = ["Why a turn takes more CPU than its bar, by this run's numbers:", ""]
    for kind, series in (("plain turn", run.turns["plain"]), ("turn at message 1,000", run.growth.get(1_000, ()))):
        ours = bars.cpu(series, "llm_wrapper-sqlite", "OpenAICompatibleConfig")
        bare = bars.cpu(series, "litellm", "tuned")
        if ours is None or bare is None:
            continue
        lines.append(
            f"- {kind}, OpenAICompatibleConfig on SQLite: {ours * MS:.1f} ms, of which the same call through the same "
            f"provider of litellm takes {bare * MS:.1f} ms. The other {(ours - bare) * MS:.1f} ms are what is kept of "
            "it: the thread that holds the call to its deadline, the statements of the next table and the commits of "
            "their transactions, reading the messages back, and the price."
        )
    lines.append("\nA wait for the disk is not CPU, but the file system's part of a commit is.")
    return "\n".join(lines)


# -- cells -----------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * MS:.1f}" if seconds < 1 else f"{seconds * MS:,.0f}"


def _times(one: float | None, other: float | None) -> str:
    return "-" if one is None or not other else f"{one / other:.2f}"


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1024:,.0f} KiB" if count < 10 * 1024 * 1024 else f"{count / 1024 / 1024:,.0f} MiB"


def _label(name: str, variant: str) -> str:
    return LABELS.get((name, variant), f"**{name.replace('-', ', ', 1)}**, {variant}" if variant else name)


# -- parts -----------------------------------------------------------------------------------------------


def _bars(run: Run) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = [
        [bar.title, bar.subject, bar.shown(bar.limit), bar.shown(bar.value), words[bar.met]] for bar in bars_of(run)
    ]
    return _table(["bar", "of", "at most", "measured", ""], rows)


def _turns(run: Run) -> Iterable[str]:
    head = ["", "n", "wall ms", "p95", "CPU ms", "CPU / httpx", "CPU / litellm", "SQL", "transactions"]
    for kind, series in run.turns.items():
        base, other = bars.cpu(series, "httpx"), bars.cpu(series, "litellm")
        rows = []
        for one in series:
            if one.failed:
                rows.append([_label(*one.key), "failed", *["-"] * (len(head) - 2)])
                continue
            cpu = median(one.cpu)
            counts = [str(one.counts[name]) if one.counts else "-" for name in ("statements", "transactions")]
            times = [_ms(median(one.wall)), _ms(percentile(one.wall, 0.95)), _ms(cpu)]
            rows.append([_label(*one.key), str(len(one.wall)), *times, _times(cpu, base), _times(cpu, other), *counts])
        yield f"### {TITLES[kind]}"
        yield _table(head, rows)


def _absent(run: Run) -> str:
    lines = [f"- {name}: {reason}" for name, reason in run.absent.items()]
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def _growth(run: Run) -> Iterable[str]:
    head = ["", "n", "wall ms", "CPU ms", "CPU / httpx", "CPU / litellm", "written", "peak memory"]
    for size, series in run.growth.items():
        base, other = bars.cpu(series, "httpx"), bars.cpu(series, "litellm")
        rows = []
        for one in series:
            window = one.case.get("window")
            label = _label(*one.key) + (f", window {window}" if window else "")
            if one.failed:
                rows.append([label, "failed", *["-"] * (len(head) - 2)])
                continue
            cpu = median(one.cpu)
            sizes = [_size(median(one.written)), _size(median(one.peak))]
            ratios = [_times(cpu, base), _times(cpu, other)]
            rows.append([label, str(len(one.wall)), _ms(median(one.wall)), _ms(cpu), *ratios, *sizes])
        yield f"### At message {size:,}"
        yield _table(head, rows)


def _throughput(run: Run) -> str:
    head = ["", "door", "turns/s", "/ litellm", "wall ms", "p95", "CPU ms a turn", "errors"]
    litellm = {burst.mode: burst for burst in run.bursts if (burst.worker, burst.variant) == ("litellm", "")}
    rows = []
    for burst in run.bursts:
        if burst.failed:
            rows.append([_label(burst.worker, burst.variant), burst.mode, "failed", *["-"] * (len(head) - 3)])
            continue
        found: dict[str, Any] = burst.found
        rate = median(found["rates"])
        base = litellm.get(burst.mode)
        other = median(base.found["rates"]) if base and base.found else None
        rows.append(
            [
                _label(burst.worker, burst.variant),
                burst.mode,
                f"{rate:,.0f}",
                _times(rate, other),
                _ms(median(found["wall"])),
                _ms(percentile(found["wall"], 0.95)),
                _ms(median(found["cpu"])),
                str(len(found["errors"])),
            ]
        )
    return _table(head, rows)


def _storms(run: Run) -> str:
    head = ["storm", "processes", "seconds", "sends", "calls to the limited config", "p50 ms", "p99 ms", "outcomes"]
    rows = []
    for storm in run.storms:
        outcomes = Counter(outcome.partition(":")[0] for outcome in storm.outcomes)
        rows.append(
            [
                storm.title,
                str(storm.processes),
                f"{storm.seconds:.0f}",
                str(len(storm.outcomes)),
                str(storm.calls),
                _ms(median(storm.wall)),
                _ms(percentile(storm.wall, 0.99)),
                ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()),
            ]
        )
    return _table(head, rows)


def _failures(run: Run) -> str:
    """What could not be measured, with its first error."""
    series = [one for part in (*run.turns.values(), *run.growth.values()) for one in part if one.failed]
    lines = [f"- {_label(*one.key)}, {one.case['kind']}: {one.failed}" for one in series]
    for burst in run.bursts:
        reason = burst.failed or next(iter(burst.found.get("errors", [])), "")
        if reason:
            lines.append(f"- {_label(burst.worker, burst.variant)}, {burst.mode}: {reason}")
    return "\n".join(["## What failed", "", *dict.fromkeys(lines)]) if lines else ""
