"""Crash and durability: rows of group A that docs/reliability.md lists and that no other file covers."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import ProtectedError
from django.urls import reverse
from django.utils import timezone

from llm_wrapper import errors, history
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptVersion, ToolCall, Turn
from llm_wrapper.models.loading import load_prompt
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model, text, tool_call
from llm_wrapper.turn import TurnJob, resume_turn
from tests import host_tools
from tests.scenarios.test_recovery import crashed_at, run_until

ROOT = Path(__file__).parent.parent.parent
WRITER = [sys.executable, "-m", "tests.scenarios.writer"]


def environment(**values):
    return {
        **{key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "REDIS_URL")},
        "DJANGO_SETTINGS_MODULE": "example.test_settings",
        **values,
    }


def writer(environment, *arguments):
    done = subprocess.run(
        [*WRITER, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_nothing_lost(environment, acknowledged):
    held = json.loads(writer(environment, "look"))
    assert set(acknowledged) <= set(held["texts"])
    assert len(set(held["texts"])) == len(held["texts"])
    assert (held["running"], held["differences"]) == (0, [])


# -- A5 ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("stop", range(1, 14))
def test_a5_workers_that_die_in_recovery_do_no_harm(make_prompt, make_tool, stop):
    """A5: two workers in a row die at any effect of ending a crashed turn: the third ends it, with one answer, one
    result for its tool call, and no second run of the tool."""
    host_tools.SEEN.clear()
    turn = crashed_at(make_tool, make_prompt, make_tool("tests.host_tools.order_state"), "before the tool ran")
    version = PromptVersion.objects.get()
    job = TurnJob(chat_id=turn.chat_id, message="hello", spec=version.spec(), version=version, config_names=["demo"])
    with scripted_model(*["Resumed."] * 3):
        for _ in range(2):
            with suppress(StopIteration):
                run_until(resume_turn(job, history, turn.pk), stop)
            Turn.objects.filter(status="running").update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        resume(turn)
    turn.refresh_from_db()
    assert turn.status == "done"
    assert list(Message.objects.filter(type="assistant").values_list("text", flat=True)) == ["", "Resumed."]
    assert [step.text.count("Unknown") for step in Message.objects.filter(type="tool")] == [1]
    assert host_tools.SEEN == []
    assert not LLMCall.objects.filter(status="running").exists()
    assert list(audit.differences(turn.chat)) == []


# -- A7 ------------------------------------------------------------------------------------------------------


def test_a7_a_sqlite_file_is_whole_after_each_kill(tmp_path):
    """A7: killed at any moment of its commits, SQLite keeps a sound file with every acknowledged message in it."""
    path = tmp_path / "killed.sqlite3"
    mine = environment(SQLITE_PATH=str(path))
    acknowledged = writer(mine, "kill", "8").split()
    assert len(acknowledged) >= 8
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()
    assert_nothing_lost(mine, acknowledged)


def postgres_programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture
def cluster():
    """A PostgreSQL cluster of the test's own: a function that runs pg_ctl on it, and its port."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no initdb under /usr/lib/postgresql")
    # PostgreSQL does not run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="llm_wrapper-"))
    if prefix:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"

    def control(*arguments):
        command = [*prefix, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", *arguments]
        subprocess.run(command, check=True, cwd="/tmp", stdout=subprocess.DEVNULL, timeout=60)

    def start():
        control("-o", options, "-l", str(folder / "log"), "start")

    subprocess.run(
        [*prefix, str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"],
        check=True,
        cwd="/tmp",
        stdout=subprocess.DEVNULL,
    )
    start()
    yield start, control, port
    control("-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.chaos
def test_a7_postgresql_keeps_what_was_committed_through_an_immediate_stop(cluster):
    """A7: a PostgreSQL that is stopped without a shutdown has every acknowledged message when it is back."""
    start, control, port = cluster
    mine = environment(DATABASE_URL=f"postgres://postgres@127.0.0.1:{port}/postgres")
    writer(mine, "setup")
    acknowledged = []
    for number in range(5):
        command = [*WRITER, "write", f"round-{number}"]
        with subprocess.Popen(command, cwd=ROOT, env=mine, stdout=-1, stderr=-1, text=True) as process:
            acknowledged += [process.stdout.readline().strip() for _ in range(20)]
            control("-m", "immediate", "stop")
            rest, error = process.communicate(timeout=60)
            acknowledged += rest.split()
            assert "DatabaseUnavailable" in error
        start()
        assert_nothing_lost(mine, acknowledged)


# -- A8 ------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk():
    """The database file may not grow any more."""
    with connection.cursor() as cursor:
        before = cursor.execute("PRAGMA max_page_count").fetchone()[0]
        cursor.execute("VACUUM")
        used = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {used}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {before}")


@pytest.fixture
def on_sqlite(transactional_db):
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite can be told that its disk is full")


def test_a8_a_message_that_finds_no_room_leaves_nothing(on_sqlite, make_prompt):
    """A8: on a full disk a send fails with a clear error and stores nothing; with room again the same send works."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    long = "x" * 150_000
    with scripted_model("fine") as model:
        with full_disk(), pytest.raises(errors.DatabaseUnavailable, match="full"):
            wrapper.send_user_message_and_get_response(long)
        assert not model.requests
        assert not Message.objects.exists()
        assert not Turn.objects.exists()
        assert wrapper.send_user_message_and_get_response(long) == "fine"
    assert list(audit.differences(ChatHistory.objects.get())) == []


def test_a8_an_answer_that_finds_no_room_keeps_the_message(on_sqlite, make_prompt):
    """A8: where the disk fills up during the call, the message stays, no half answer is stored, the chat goes on."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(text("y" * 150_000), "fine") as model:
        events = wrapper.stream_user_message("hello")
        while next(events).type != "llm_call_started":
            pass
        with full_disk(), pytest.raises(errors.DatabaseUnavailable, match="full"):
            list(events)
        assert [step.text for step in Message.objects.all()] == ["hello"]
        # Had there been no room for the end of the turn either, its lease would run out.
        Turn.objects.filter(status="running").update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        assert wrapper.send_user_message_and_get_response("and now?") == "fine"
        assert len(model.requests) == 2
    assert not LLMCall.objects.filter(status="running").exists()
    assert list(audit.differences(ChatHistory.objects.get())) == []


# -- A10 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def crashed(make_prompt, make_tool):
    """A crashed turn that asked for a tool, left by a release with other columns' contents."""
    make_prompt(system_prompt_template="S", tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(tool_call("order_state", order=1), "Done."):
        wrapper.send_user_message_and_get_response("hello", {"user_id": 1})
    answer = Message.objects.filter(type="assistant").latest("position")
    turn = Turn.objects.get()
    ChatHistory.objects.update(last_position=answer.position - 1)
    answer.delete()
    turn.llm_calls.latest("pk").delete()
    Turn.objects.update(status="running", finished_at=None, lease_expires_at=timezone.now() - timedelta(seconds=1))
    history.audit.rebuild(turn.chat_id)
    return turn


def without(*names):
    return lambda content: {key: value for key, value in content.items() if key not in names}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "added_in_a_later_release": 1},
        without("replay_rendered", "history_window"),
        lambda content: {**content, "tools": [{**tool, "added_later": 1} for tool in content["tools"]]},
        lambda content: {**content, "tools": [without("idempotent", "bounds")(tool) for tool in content["tools"]]},
    ],
    ids=["later prompt", "earlier prompt", "later tool", "earlier tool"],
)
def test_a10_a_version_of_another_release_is_run(crashed, change, capsys):
    """A10: a turn that another release left open is ended with the prompt version it began with, also where that holds
    more or less than this release would store."""
    version = PromptVersion.objects.get()
    PromptVersion.objects.update(content=change(version.content))
    with scripted_model("Resumed.") as model:
        call_command("llm_resume")
    assert "answered" in capsys.readouterr().out
    assert model.requests[0].messages[0] == {"role": "system", "content": "S"}
    crashed.refresh_from_db()
    assert crashed.status == "done"


@pytest.mark.django_db
def test_a10_rows_of_an_unknown_kind_break_nothing(crashed, client, django_user_model):
    """A10: statuses, step types and payloads that this release does not know are passed over in recovery, in the next
    send and on the admin's pages."""
    call = LLMCall.objects.get()
    LLMCall.objects.update(status="queued")
    ToolCall.objects.update(status="approving")
    with scripted_model("Resumed.", "Next."):
        reply = resume(crashed)
        wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=crashed.chat_id)
        assert wrapper.send_user_message_and_get_response("go on", {"user_id": 1}) == "Next."
    assert reply == "Resumed."
    client.force_login(django_user_model.objects.create_superuser("boss"))
    for name, row in (("chathistory", crashed.chat), ("turn", crashed), ("llmcall", call)):
        assert client.get(reverse(f"admin:llm_wrapper_{name}_change", args=[row.pk])).status_code == 200


@pytest.mark.django_db
def test_a10_a_turn_whose_prompt_is_gone_is_ended(crashed, capsys):
    """A10: a crashed turn whose prompt was deleted is ended as failed, and the chat can be read. The version that it
    was called with cannot be deleted before the call, so what was sent can still be seen."""
    load_prompt("support").prompt.delete()
    with pytest.raises(ProtectedError):
        PromptVersion.objects.all().delete()
    with scripted_model() as model:
        call_command("llm_resume")
    assert not model.requests
    crashed.refresh_from_db()
    assert (crashed.status, crashed.error_code) == ("failed", "crashed")
    assert list(audit.differences(crashed.chat)) == []
    assert crashed.llm_calls.get().sent_messages()
