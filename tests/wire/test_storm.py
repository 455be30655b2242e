"""Several processes at once, on one database, one cache and one provider."""

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from io import StringIO
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from django.core.management import call_command
from django.db import connection

from llm_wrapper.history.audit import differences
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from tests.transport.provider import Provider, fails, says

pytestmark = pytest.mark.django_db(transaction=True)

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
        for worker, _ in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker, log in workers:
            told, _ = worker.communicate(timeout=timeout)
            assert worker.returncode == 0, tail(log)
            assert "database is locked" not in tail(log, None)
            outcomes += json.loads(told)
    return outcomes


def tail(log, size=3000):
    log.seek(0)
    return log.read()[-size if size else 0 :]


def texts(processes, sends):
    return [[f"{process}-{number}" for number in range(sends)] for process in range(processes)]


@pytest.mark.wire
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


@pytest.mark.wire
def test_where_the_only_config_is_limited_callers_are_told_when_to_return(write_prompt, providers, tmp_path):
    """Where the only config is limited, each caller gets AllConfigsUnavailable with the time to wait, at once and
    without a request where the limit is known; every message is kept."""
    write_prompt(limited=1)
    sent = texts(4, 10)
    outcomes = storm(tmp_path, [{"texts": part} for part in sent])

    assert Counter(outcome["code"] for outcome in outcomes) == {"all_configs_unavailable": 40}
    assert all(0 < (outcome["retry_after"] or 0) <= RETRY_AFTER for outcome in outcomes)
    requests = len(providers["limited"].requests)
    assert 1 <= requests <= 8
    assert list(LLMCall.objects.values_list("error_code", flat=True)) == ["rate_limited"] * requests
    first = {part[0] for part in sent}
    assert max(outcome["seconds"] for outcome in outcomes if outcome["text"] not in first) < 3

    kept = Message.objects.filter(type="user").values_list("text", flat=True)
    assert sorted(kept) == sorted(chain(*sent))
    ends = set(Turn.objects.values_list("status", "error_code"))
    assert ends == {("failed", "all_configs_unavailable")}


@pytest.mark.chaos
def test_b1_eight_processes_on_one_chat_lose_nothing(write_prompt, tmp_path):
    """B1: 400 sends by 8 processes on one chat are all answered, in steps without a gap; no process meets a locked
    database, and rows, transcript and counters agree."""
    write_prompt(well=1)
    chat_id = LLMCommunicationWrapper(prompt_name="support").chat_history_id
    sent = texts(8, 50)
    job = {"chat_id": chat_id, "wait": 30, "scripted": True}
    outcomes = storm(tmp_path, [{**job, "texts": part} for part in sent], timeout=300)

    assert [outcome for outcome in outcomes if outcome["code"]] == []
    steps = list(Message.objects.order_by("position").values_list("position", "type", "text"))
    assert [position for position, _, _ in steps] == list(range(1, 801))
    assert [type_ for _, type_, _ in steps] == ["user", "assistant"] * 400
    order = [text for _, type_, text in steps if type_ == "user"]
    for part in sent:
        assert [text for text in order if text in part] == part
    chat = ChatHistory.objects.get()
    assert list(differences(chat)) == []
    assert (chat.turn_count, chat.input_tokens_count) == (400, 4000)
    told = StringIO()
    call_command("llm_check_history", stdout=told)
    assert told.getvalue().strip() == "1 chat(s) checked, 0 with differences."
