"""`manage.py llm_chat` in a pseudo-terminal, with a person's keys."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys

import pytest

from tests.management.typed import CTRL_C, CTRL_D, ROOT, Typed
from tests.transport.provider import Provider, says, silent, streams, text_chunks

# Each test starts the program anew, on a real terminal.
pytestmark = pytest.mark.wire

CODES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def site(tmp_path):
    """The environment of a fresh site with a database of its own, on the demo configs."""
    environ = {"SQLITE_PATH": str(tmp_path / "db.sqlite3"), "CACHE_PATH": str(tmp_path / "cache")}
    with Typed("migrate", "--verbosity=0", **environ) as migrate:
        assert migrate.end() == 0
    return environ


@pytest.fixture
def provider(tmp_path, site):
    """A provider behind the only config of the site."""
    server = Provider()
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    (folder / "main.yml").write_text(
        f"name: main\nllm_config_class: OpenAICompatibleConfig\nmodel_name: m\nendpoint: {server.base}\n"
    )
    site["LLM_CONFIGS_PATH"] = str(folder)
    yield server
    server.stop()


def rows(site, statement):
    with sqlite3.connect(site["SQLITE_PATH"]) as database:
        found = database.execute(statement).fetchall()
    database.close()
    return found


def test_a_conversation_without_key_or_network(site):
    """On a fresh site, after `migrate` alone: the limited demo model is left for the other, which answers; Ctrl-D
    leaves."""
    with Typed("llm_chat", **site) as typed:
        typed.wait_for("you > ")
        typed.type("Hello there")
        typed.wait_for("demo-limited > ")
        typed.wait_for("(rate_limited)")
        typed.wait_for("demo-steady > ")
        typed.wait_for("You wrote: Hello there")
        typed.wait_for("2 tokens in, 9 out, cost 0.000029")
        typed.wait_for("you > ")
        typed.type(CTRL_D, enter=False)
        assert typed.end() == 0
        assert "To go on: manage.py llm_chat --session" in typed.seen
        assert "Traceback" not in typed.seen


def test_ctrl_c_stops_an_answer_and_not_the_program(site, provider):
    """A real SIGINT from the terminal: in the middle of an answer, which is kept as far as it came, and before its
    first word. The program goes on, and Ctrl-C at its prompt leaves."""
    slow = streams(*text_chunks(*(f"word{number} " for number in range(600))), pause=0.1)
    provider.answers = [slow, silent, says("Fine.")]
    with Typed("llm_chat", **site) as typed:
        typed.wait_for("you > ")
        typed.type("Count")
        typed.wait_for("word4")
        typed.type(CTRL_C, enter=False)
        typed.wait_for("Stopped; what had arrived is kept.")
        typed.wait_for("you > ")
        typed.type("Say nothing")
        typed.wait_for("main > ")
        while len(provider.requests) < 2:
            pass
        typed.type(CTRL_C, enter=False)
        typed.wait_for("Stopped")
        typed.wait_for("you > ")
        typed.type("And now?")
        typed.wait_for("Fine.")
        typed.wait_for("you > ")
        typed.type(CTRL_C, enter=False)
        assert typed.end() == 0
        assert "Traceback" not in typed.seen
    assert rows(site, "SELECT status, error_code FROM llm_wrapper_turn ORDER BY number") == [
        ("cancelled", "turn_cancelled"),
        ("cancelled", "turn_cancelled"),
        ("done", ""),
    ]
    assert [status for (status,) in rows(site, "SELECT status FROM llm_wrapper_llmcall ORDER BY id")] == [
        "cancelled",
        "cancelled",
        "done",
    ]
    partial, answer = rows(site, "SELECT text FROM llm_wrapper_message WHERE type = 'assistant' ORDER BY position")
    assert re.fullmatch(r"(word\d+ ){5,}", partial[0])
    assert answer == ("Fine. ",)
    sent = [message["role"] for message in provider.requests[2]["body"]["messages"]]
    assert sent == ["user", "assistant", "user"]


@pytest.mark.parametrize("command", ["llm_chat", "llm_sessions"])
def test_a_database_without_tables(tmp_path, command):
    """Who has not migrated yet is told to, in a line."""
    with Typed(command, SQLITE_PATH=str(tmp_path / "new.sqlite3")) as typed:
        assert typed.end() == 1
    assert "run `manage.py migrate` first" in typed.seen
    assert "Traceback" not in typed.seen


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colour", "NO_COLOR", "dumb"])
def test_colours_only_where_they_are_wanted(site, environ):
    """A terminal gets colours unless NO_COLOR is set or it has none; errors too, also that which ends the command."""
    with Typed("llm_chat", **site, **environ) as typed:
        typed.wait_for("you > ")
        typed.type("/nonsense")
        typed.wait_for("There is no command /nonsense")
        typed.type("/exit")
        assert typed.end() == 0
        assert bool(CODES.search(typed.seen)) is not bool(environ)
    with Typed("llm_chat", "--session", "17", **site, **environ) as typed:
        assert typed.end() == 1
        assert "There is no session '17'" in typed.seen
        assert bool(CODES.search(typed.seen)) is not bool(environ)


def test_a_reader_that_has_seen_enough(site):
    """`llm_sessions | head -1` ends without a traceback."""
    with Typed("llm_chat", "--model", "demo-steady", **site) as typed:
        typed.wait_for("you > ")
        typed.type("word " * 500)
        typed.wait_for("tokens in")
        typed.type("/exit")
        assert typed.end() == 0
    reader, pipe = os.pipe()
    os.close(reader)
    environ = {**os.environ, **site, "DJANGO_SETTINGS_MODULE": "example.settings"}
    command = [sys.executable, "manage.py", "llm_sessions", "show", "1"]
    shown = subprocess.run(command, cwd=ROOT, env=environ, stdout=pipe, stderr=subprocess.PIPE, text=True)
    os.close(pipe)
    assert shown.stderr == ""


def test_the_list_fits_the_terminal(site):
    """`llm_sessions` cuts titles so that its lines fit; the ids stay whole."""
    with Typed("llm_chat", "--model", "demo-steady", **site) as typed:
        typed.wait_for("you > ")
        typed.type("a long first message that makes a long title of the session")
        typed.wait_for("You wrote")
        typed.wait_for("you > ")
        typed.type("/exit")
        assert typed.end() == 0
    with Typed("llm_sessions", columns=130, **site) as typed:
        assert typed.end() == 0
        heading, line = CODES.sub("", typed.seen).splitlines()
    assert len(heading) <= 130
    assert len(line) <= 130
    assert re.match(r"[0-9a-f-]{36}  a long first .*…  ", line)
