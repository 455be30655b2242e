"""A database that takes a step back, is locked, or is away."""

import sqlite3
import threading

import pytest
from django.db import OperationalError, connection, connections, transaction

from llm_wrapper import errors, history
from llm_wrapper.conf import sqlite_options
from llm_wrapper.history import audit
from llm_wrapper.history.database import stage
from llm_wrapper.models import ChatHistory, Message, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model

pytestmark = pytest.mark.django_db(transaction=True)


class TakenBack(Exception):
    sqlstate = "40001"


def taken_back():
    error = OperationalError("could not serialize access")
    error.__cause__ = TakenBack()
    return error


def test_b4_a_step_that_was_taken_back_is_tried_again(make_prompt, monkeypatch):
    """B4: a serialization failure in the middle of a step is tried again; the turn is whole and nothing is doubled."""
    make_prompt(system_prompt_template="S")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    failures = iter([True, False, True, False])
    original = history.running.write_steps

    def unlucky(*args, **kwargs):
        written = original(*args, **kwargs)
        if next(failures, False):
            raise taken_back()
        return written

    monkeypatch.setattr(history.running, "write_steps", unlucky)
    monkeypatch.setattr(history.opening, "write_steps", unlucky)
    with scripted_model("fine") as model:
        assert wrapper.send_user_message_and_get_response("hi") == "fine"
    assert len(model.requests) == 1
    assert Message.objects.count() == 3
    assert list(audit.differences(ChatHistory.objects.get())) == []


def test_b4_it_is_tried_three_times_and_not_inside_another_transaction(db):
    """B4: retries are bounded, and left to whoever holds the outer transaction."""
    tries = []

    @stage
    def always():
        tries.append(1)
        raise taken_back()

    with pytest.raises(errors.DatabaseUnavailable):
        always()
    assert len(tries) == 3
    with pytest.raises(errors.DatabaseUnavailable), transaction.atomic():
        always()
    assert len(tries) == 4


def test_b4_deadlocked_turns_both_end(make_prompt):
    """B4: of two transactions that lock in opposite order PostgreSQL ends one, which is tried again; both are done."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time: no deadlock can arise")
    first, second = history.create_chat(), history.create_chat()
    barrier = threading.Barrier(2, timeout=10)
    tries, failed = [], []

    @stage
    def touch(one, other, meet):
        tries.append(1)
        ChatHistory.objects.filter(pk=one).update(title="x")
        if meet and len(tries) <= 2:
            barrier.wait()
        ChatHistory.objects.filter(pk=other).update(title="y")

    def work(one, other):
        try:
            touch(one, other, True)
        except Exception as exc:  # noqa: BLE001 - shown by the assertion below
            failed.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=pair) for pair in ((first.pk, second.pk), (second.pk, first.pk))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert len(tries) == 3


def test_b3_a_locked_sqlite_is_waited_for_and_then_told_clearly(make_prompt):
    """B3: a lock held by another program is waited for; one held too long gives DatabaseUnavailable, nothing
    half-written, and the chat goes on afterwards."""
    if connection.vendor != "sqlite":
        pytest.skip("a lock on the whole database is SQLite's")
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.8, lambda: other.execute("COMMIT")).start()
    with scripted_model("waited", "after"):
        assert wrapper.send_user_message_and_get_response("hi") == "waited"
        other.execute("BEGIN IMMEDIATE")
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 200")
        with pytest.raises(errors.DatabaseUnavailable, match="locked"):
            wrapper.send_user_message_and_get_response("lost?")
        other.execute("COMMIT")
        assert wrapper.send_user_message_and_get_response("go on") == "after"
    other.close()
    assert not Turn.objects.filter(status="running").exists()
    assert list(audit.differences(ChatHistory.objects.get())) == []


def test_sqlite_options_are_in_force():
    """The helper's options give write-ahead logging, immediate transactions and full synchronisation."""
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's options")
    assert connection.settings_dict["OPTIONS"] == sqlite_options()
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert cursor.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.transaction_mode == "IMMEDIATE"
