"""Several processes at once, on one database, one cache and one provider."""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from django.db import connection

from llm_wrapper.models import LLMCall, LLMConfigName, PromptTemplate, Turn
from tests.transport.provider import Provider, fails, says

pytestmark = [pytest.mark.wire, pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).parent.parent.parent
RETRY_AFTER = 20


@pytest.fixture
def providers():
    """A provider that limits every call, and one that answers."""
    with ExitStack() as stack:
        limited, well = Provider(), Provider()
        stack.callback(limited.stop)
        stack.callback(well.stop)
        limited.answers = [fails(429, retry_after=str(RETRY_AFTER))]
        well.answers = [says("All is well.")]
        yield {"limited": limited, "well": well}


@pytest.fixture
def write_prompt(providers, settings, tmp_path):
    """Make the prompt, with configs that lead to the providers named."""
    folder = tmp_path / "configs"
    folder.mkdir()
    settings.LLM_CONFIGS_PATH = folder

    def write(**weights):
        prompt = PromptTemplate.objects.create(name="support")
        for name, weight in weights.items():
            values = {"llm_config_class": "OpenAICompatibleConfig", "model_name": "m", "weight": weight}
            values |= {"name": name, "endpoint": providers[name].base}
            (folder / f"{name}.yml").write_text(yaml.safe_dump(values))
            prompt.llm_config_names.add(LLMConfigName.objects.get_or_create(name=name)[0])
        return prompt

    return write


def environment(folder):
    """What makes a worker use this test's database, configs and cache."""
    database = connection.settings_dict
    changed = {"LLM_CONFIGS_PATH": str(folder / "configs"), "CACHE_PATH": str(folder / "cache")}
    if connection.vendor == "postgresql":
        user, password = quote(database["USER"], safe=""), quote(database["PASSWORD"], safe="")
        place = f"{database['HOST']}:{database['PORT']}" if database["PORT"] else database["HOST"]
        changed["DATABASE_URL"] = f"postgres://{user}:{password}@{place}/{database['NAME']}"
    else:
        changed["SQLITE_PATH"] = str(database["NAME"])
    return {**os.environ, **changed}


def storm(folder, jobs, *, timeout=120):
    """Run one worker for each list of messages, all at once, and give what became of every message."""
    workers, outcomes = [], []
    with ExitStack() as stack:
        for number, job in enumerate(jobs):
            log = stack.enter_context((folder / f"worker-{number}.log").open("w+"))
            pipe = subprocess.PIPE
            worker = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.wire.storm_worker"],
                    cwd=ROOT, env=environment(folder), stdin=pipe, stdout=pipe, stderr=log, text=True,
                )
            )  # fmt: skip
            stack.callback(worker.kill)
            worker.stdin.write(json.dumps({"chat_id": None, "wait": 0, "scripted": False, **job}) + "\n")
            worker.stdin.flush()
            workers.append((worker, log))
        for worker, log in workers:
            assert worker.stdout.readline() == "ready\n", tail(log)
        import time; print("READY", time.time())
        for worker, _ in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker, log in workers:
            told, _ = worker.communicate(timeout=timeout)
            assert worker.returncode == 0, tail(log)
            assert "database is locked" not in tail(log, None)
            outcomes += json.loads(told)
            print("DONE", time.time(), [round(o["seconds"],2) for o in outcomes])
    return outcomes


def tail(log, size=3000):
    log.seek(0)
    return log.read()[-size if size else 0 :]


def texts(processes, sends):
    return [[f"{process}-{number}" for number in range(sends)] for process in range(processes)]


def unexpected(outcomes):
    return [outcome for outcome in outcomes if outcome["code"] == "unexpected"]


def test_a_limited_config_is_left_alone_by_all_processes(write_prompt, providers, tmp_path):
    """Of 100 sends by 4 processes the limited config gets at most 8, no caller sees an error, and each call's route
    says why its config was chosen."""
    write_prompt(limited=9, well=1)
    outcomes = storm(tmp_path, [{"texts": part} for part in texts(4, 25)])

    assert [outcome for outcome in outcomes if outcome["code"]] == []
    assert 1 <= len(providers["limited"].requests) <= 8
    assert len(providers["well"].requests) == 100
    calls = Counter(LLMCall.objects.values_list("config_name", "status"))
    assert calls == {("limited", "failed"): len(providers["limited"].requests), ("well", "done"): 100}
    assert Counter(Turn.objects.values_list("status", flat=True)) == {"done": 100}
    assert all(call.route["why"] for call in LLMCall.objects.all())

    for call in LLMCall.objects.filter(attempt=2):
        assert call.route["skipped"] == {"limited": "failed in this turn: rate_limited"}
    known = Turn.objects.filter(llm_calls__config_name="limited").order_by("finished_at").first().finished_at
    later = LLMCall.objects.filter(turn__started_at__gt=known, attempt=1, config_name="well")
    assert len(later) > 50
    for call in later:
        assert call.route["skipped"]["limited"].startswith("cooling for ")
        assert "rate_limited" in call.route["skipped"]["limited"]
