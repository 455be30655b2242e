"""Twenty sends a second on a limited config, from one process and from four. G5 and G6."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import pytest

from tests.transport.provider import fails

from .upstream import Upstream

ROOT = Path(__file__).parent.parent.parent
RATE = 20.0
SETUP = """
from llm_wrapper.models import LLMConfigName, PromptTemplate
for prompt, names in (("both", ("limited", "well")), ("single", ("limited",)), ("warm", ("well",))):
    row = PromptTemplate.objects.create(name=prompt, system_prompt_template="Be brief.")
    for name in names:
        row.llm_config_names.add(LLMConfigName.objects.get_or_create(name=name)[0])
"""


@pytest.fixture
def site(tmp_path):
    """A provider, and a site of its own whose database, cache and configs are files that processes share."""
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    server = Upstream(folder)
    server.add("limited")
    server.add("well")
    server.environment = {
        **{key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "REDIS_URL")},
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "PYTHONPATH": str(ROOT),
        "SQLITE_PATH": str(tmp_path / "db.sqlite3"),
        "CACHE_PATH": str(tmp_path / "cache"),
        "LLM_CONFIGS_PATH": str(folder),
    }
    for command in (["migrate", "--verbosity", "0"], ["shell", "--no-imports", "--command", SETUP]):
        subprocess.run(
            [sys.executable, ROOT / "manage.py", *command],
            env=server.environment,
            check=True,
            stderr=subprocess.DEVNULL,
        )
    yield server
    server.stop()


def storm(site, processes, seconds, prompt):
    """Send from so many processes; gives what each send came to."""
    command = [sys.executable, "-m", "tests.scenarios.storm_worker", str(seconds), str(RATE / processes), prompt]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(command, env=site.environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            )
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return list(chain.from_iterable(json.loads(worker.communicate(timeout=120)[0]) for worker in workers))


def report(site, results):
    """Show what it came to. How long sends took says as much of the machine as of the wrapper, so it is only shown."""
    walls = sorted(wall for _, wall, _ in results)
    middle, slow = walls[len(walls) // 2], walls[int(len(walls) * 0.99)]
    calls = site.asked("limited")
    print(f"{calls} calls to the limited config; sends took {middle:.3f} s (p50), {slow:.3f} s (p99)")  # noqa: T201


LONG = pytest.mark.chaos
SIZES = [
    pytest.param(1, 3, 1, id="short-1"),
    pytest.param(4, 3, 1, id="short-4", marks=pytest.mark.wire),
    pytest.param(1, 30, 10, id="long-1", marks=LONG),
    pytest.param(4, 30, 10, id="long-4", marks=LONG),
]


@pytest.mark.parametrize(("processes", "seconds", "retry_after"), SIZES)
def test_c2_g5_a_storm_on_one_limited_config_of_two(site, processes, seconds, retry_after):
    """Every send is answered, and the limited config gets the calls that were under way when its limit began, and one
    more for each time its rest was over."""
    site.answers["limited"] = fails(429, retry_after=str(retry_after))
    results = storm(site, processes, seconds, "both")
    report(site, results)
    assert [outcome for outcome, *_ in results] == ["Here."] * round(seconds * RATE / processes) * processes
    assert 1 <= site.asked("limited") <= (16 if processes == 1 else 20)


@pytest.mark.parametrize(("processes", "seconds", "retry_after"), SIZES)
def test_c3_g6_a_storm_on_a_single_limited_config(site, processes, seconds, retry_after):
    """Every caller is told when to come back, and the config is left alone meanwhile."""
    site.answers["limited"] = fails(429, retry_after=str(retry_after))
    results = storm(site, processes, seconds, "single")
    report(site, results)
    assert {outcome for outcome, *_ in results} == {"all_configs_unavailable"}
    assert all(told is not None and 0 <= told <= retry_after for *_, told in results)
    assert 1 <= site.asked("limited") <= (16 if processes == 1 else 20)
