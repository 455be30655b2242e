"""The threads of a process that write to an SQLite file are served in the order of asking."""

import os
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from django.db import OperationalError, connection, connections, transaction

from llm_wrapper import errors
from llm_wrapper.history import writers
from llm_wrapper.history.database import stage, statement
from llm_wrapper.models import ChatHistory

pytestmark = pytest.mark.django_db(transaction=True)

WRITERS = 12


@pytest.fixture
def sqlite():
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL queues by itself")


@contextmanager
def threads(*functions):
    """Run each in a thread with a connection of its own; gives what they raised, once they have ended."""
    raised = []

    def run(function):
        try:
            function()
        except Exception as error:  # noqa: BLE001 - what the test looks at
            raised.append(error)
        finally:
            connections.close_all()

    started = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in started:
        thread.start()
    yield raised
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


def test_b3_no_writer_is_passed_over(sqlite):
    """B3: where the file is busy all the time, each thread writes after those that asked before it, and no thread is
    passed over again and again until its time is up, which is what SQLite's own waiting does."""
    asked, order, chat = {}, [], ChatHistory.objects.create()

    @stage
    def write(me):
        ChatHistory.objects.filter(pk=chat.pk).update(title=str(me))
        time.sleep(0.005)
        passed_over.append(len(order) - asked[me])
        order.append(me)

    def writer(me):
        for _ in range(15):
            asked[me] = len(order)
            write(me)

    passed_over = []
    with threads(*[lambda me=me: writer(me) for me in range(WRITERS)]) as raised:
        pass
    assert raised == []
    assert len(order) == WRITERS * 15
    # Each of the others once, and those that asked in the moment between taking note of the order and asking.
    assert max(passed_over) <= 2 * WRITERS, sorted(passed_over)[-10:]


def test_b3_the_wait_behind_other_threads_is_bounded(sqlite, monkeypatch):
    """B3: a thread whose time is up before its turn gets DatabaseUnavailable, writes nothing, and leaves the line."""
    chat, holding, done = ChatHistory.objects.create(), threading.Event(), threading.Event()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)

    @stage
    def title(text, meanwhile=lambda: None):
        ChatHistory.objects.filter(pk=chat.pk).update(title=text)
        meanwhile()

    def hold():
        holding.set()
        done.wait(10)

    with threads(lambda: title("first", hold)) as raised:
        holding.wait(10)
        with pytest.raises(errors.DatabaseUnavailable, match=r"locked: other threads of this process wrote for 0\.2"):
            title("second")
        done.set()
    assert raised == []
    chat.refresh_from_db()
    assert chat.title == "first"
    title("third")
    chat.refresh_from_db()
    assert chat.title == "third"


def test_a_step_inside_another_or_inside_a_transaction_does_not_wait_for_itself(sqlite):
    """Whoever holds the line, or a transaction, goes on at once: waiting there would be for ever."""
    chat = ChatHistory.objects.create()

    @stage
    def inner():
        ChatHistory.objects.filter(pk=chat.pk).update(title="written")

    @statement
    def outer():
        inner()

    outer()
    holding, done = threading.Event(), threading.Event()

    def hold():
        with writers.in_line(connection):
            holding.set()
            done.wait(10)

    with threads(hold) as raised:
        holding.wait(10)
        started = time.monotonic()
        with transaction.atomic():
            inner()
        assert time.monotonic() - started < 5
        done.set()
    assert raised == []


def test_a_line_goes_on_behind_whoever_left_it():
    """One who gives up is forgotten, and the next is served."""
    line, order = writers.Line(), []

    def wait(name, timeout):
        with line.hold(timeout):
            order.append(name)

    with ExitStack() as before:
        before.enter_context(line.hold(1))
        with threads(lambda: wait("impatient", 0.05), lambda: wait("patient", 10)) as raised:
            while not raised:
                time.sleep(0.001)
            assert order == []
            before.close()
    assert [type(error) for error in raised] == [OperationalError]
    assert order == ["patient"]


def test_a_call_that_comes_as_its_thread_gives_up_is_passed_on():
    """The line is not left to a thread that has given up at the very moment in which it was called."""
    line = writers.Line()
    line._holder, gone = 1, threading.Lock()  # called, and so in the line no more
    line._leave(1, gone)
    with line.hold(0):
        assert line._holder == threading.get_ident()
    assert line._holder is None


def test_a_forked_process_has_a_line_of_its_own(sqlite):
    """A process that is forked while a thread writes does not wait for that thread, which it does not have."""
    line = writers._lines["default"] = writers.Line()
    line._holder = 1  # some other thread
    pid = os.fork()
    if not pid:
        os._exit(len(writers._lines))
    _, status = os.waitpid(pid, 0)
    writers._lines.clear()
    assert os.waitstatus_to_exitcode(status) == 0
