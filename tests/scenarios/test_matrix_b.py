"""Concurrency and database: rows of group B that docs/reliability.md lists and that no other file covers."""

import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from llm_wrapper import errors, history, transport
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import ScriptedModel, rate_limit, scripted_model, text, tool_call
from llm_wrapper.tools import llm_tool

pytestmark = pytest.mark.django_db(transaction=True)


def in_threads(*functions):
    """Run each in a thread with a connection of its own; gives what each returned or raised."""
    outcomes = [None] * len(functions)

    def run(number, function):
        try:
            outcomes[number] = function()
        except Exception as error:  # noqa: BLE001 - what the test looks at
            outcomes[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


class Model(ScriptedModel):
    """A scripted model that does something while it is being called."""

    def __init__(self, *steps, during):
        super().__init__(steps)
        self.during = during

    def complete(self, request):
        self.during()
        return super().complete(request)

    def stream(self, request):
        for item in super().stream(request):
            self.during()
            yield item


# -- B2 ------------------------------------------------------------------------------------------------------


def test_b2_two_sends_of_one_key_at_once_are_one_message(make_prompt):
    """B2: of two sends with one key at the same time one is answered and one is told to wait; the model is called once,
    and afterwards, also from a new worker, the key gives that answer."""
    make_prompt()
    chat_id = LLMCommunicationWrapper(prompt_name="support").chat_history_id
    together = threading.Barrier(2)

    def send(message="hi", key="form-1"):
        wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat_id)
        if together.n_waiting < 2 and not together.broken:
            together.wait(10)
        return wrapper.send_user_message_and_get_response(message, idempotency_key=key)

    model = Model("Once.", during=lambda: time.sleep(0.3))
    with transport.using(model):
        outcomes = in_threads(send, send)
        together.abort()
        answered = [outcome for outcome in outcomes if outcome == "Once."]
        refused = [outcome for outcome in outcomes if isinstance(outcome, errors.TurnInProgress)]
        assert (len(answered), len(refused)) == (1, 1), outcomes
        again, conflict = in_threads(send, lambda: send("something else"))
    assert (again, again.id) == ("Once.", answered[0].id)
    assert isinstance(conflict, errors.IdempotencyConflict)
    assert len(model.requests) == 1
    assert Message.objects.filter(type="user").count() == 1


def test_b2_the_key_of_a_crashed_send_says_so(make_prompt):
    """B2: after a crash a repeated send is not told to wait for ever: after the lease it learns that it failed."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("never heard", "Fine."):
        events = wrapper.stream_user_message("hi", idempotency_key="form-1")
        next(events)
        with pytest.raises(errors.TurnInProgress):
            wrapper.send_user_message_and_get_response("hi", idempotency_key="form-1")
        Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        with pytest.raises(errors.TurnFailedBefore, match="crashed"):
            wrapper.send_user_message_and_get_response("hi", idempotency_key="form-1")
        assert wrapper.send_user_message_and_get_response("hi", idempotency_key="form-2")
        with pytest.raises(errors.TurnLost):
            list(events)


# -- B5, B6 --------------------------------------------------------------------------------------------------

SEEN = []


def look_at_connection():
    if not connection.in_atomic_block and connection.vendor == "postgresql":
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state LIKE 'idle in transaction%%'"
                )
                SEEN.append(cursor.fetchone()[0])
        finally:
            other.close()
    else:
        SEEN.append(int(connection.in_atomic_block))


@llm_tool
def looks(order: int) -> str:
    """Look at the connection.

    Args:
        order: Number of the order.
    """
    look_at_connection()
    return "looked"


@pytest.mark.parametrize("door", ["plain", "streamed"])
def test_b6_no_transaction_is_open_during_a_call_or_a_tool(make_prompt, make_tool, door):
    """B6: while a model or a tool takes its time, no transaction is open, so no lock and no snapshot is held."""
    SEEN.clear()
    make_prompt(tools=[make_tool("tests.scenarios.test_matrix_b.looks")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with transport.using(Model(tool_call("looks", order=1), "one two", during=look_at_connection)):
        if door == "plain":
            wrapper.send_user_message_and_get_response("hi")
        else:
            list(wrapper.stream_user_message("hi"))
    assert len(SEEN) >= 3
    assert set(SEEN) == {0}


@pytest.mark.parametrize("cut", ["before the call", "in the call", "in the tool"])
def test_b5_a_connection_that_dies_loses_no_message(make_prompt, make_tool, cut):
    """B5: where the server ends the connection in a turn, the turn fails with a 503 or goes on, the message is kept, no
    row is half written, and the same process goes on without a restart."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection that could be cut")
    make_prompt(tools=[make_tool("tests.scenarios.test_matrix_b.cuts")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    model = Model(
        tool_call("cuts", order=1), "Done.", during=lambda: end_connection() if cut == "in the call" else None
    )
    CUTTING[:] = [cut == "in the tool"]
    with transport.using(model):
        events = wrapper.stream_user_message("hello")
        next(events)
        if cut == "before the call":
            end_connection()
        with pytest.raises(errors.DatabaseUnavailable) as caught:
            list(events)
        assert caught.value.http_status == 503
    assert [step.text for step in Message.objects.filter(type="user")] == ["hello"]
    Turn.objects.filter(status="running").update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    with scripted_model("Fine."):
        assert wrapper.send_user_message_and_get_response("next") == "Fine."
    assert not LLMCall.objects.filter(status="running").exists()
    assert not ToolCall.objects.filter(status__in=["pending", "running"]).exists()
    assert list(audit.differences(ChatHistory.objects.get())) == []


CUTTING = [False]


@llm_tool
def cuts(order: int) -> str:
    """Cut the connection.

    Args:
        order: Number of the order.
    """
    if CUTTING[0]:
        end_connection()
    return "cut"


def end_connection():
    """End this thread's connection from the server's side."""
    pid = connection.connection.info.backend_pid
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
    finally:
        other.close()


# -- B7 ------------------------------------------------------------------------------------------------------


@llm_tool
def deletes_the_chat(order: int) -> str:
    """Delete the chat.

    Args:
        order: Number of the order.
    """
    ChatHistory.objects.all().delete()
    return "deleted"


@pytest.mark.parametrize("when", ["in the call", "in a failing call", "in the stream", "in the tool"])
def test_b7_a_chat_that_is_deleted_in_a_turn_stays_deleted(make_prompt, make_tool, when):
    """B7: the turn of a chat that is deleted meanwhile ends with a clear error and writes nothing any more. Its call
    is closed and stays for what it cost."""
    make_prompt(tools=[make_tool("tests.scenarios.test_matrix_b.deletes_the_chat")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    first = {"in the tool": tool_call("deletes_the_chat", order=1), "in a failing call": rate_limit(1)}
    delete = (lambda: None) if when == "in the tool" else (lambda: ChatHistory.objects.all().delete())
    send = wrapper.stream_user_message if when == "in the stream" else wrapper.send_user_message_and_get_response
    with transport.using(Model(first.get(when, "one two"), "Done.", during=delete)), pytest.raises(errors.TurnLost):
        list(send("hi"))
    for model in (ChatHistory, Turn, Message, ToolCall):
        assert not model.objects.exists(), model
    call = LLMCall.objects.get()
    assert (call.turn, call.partial_text) == (None, "")
    assert call.status != LLMCall.Status.RUNNING
    with scripted_model(), pytest.raises(ChatHistory.DoesNotExist):
        wrapper.send_user_message_and_get_response("still there?")


def test_b7_a_user_who_is_deleted_in_a_turn_does_not_break_it(make_prompt, django_user_model):
    """B7: the chat and the turn under way outlive their user's row; nothing points at a user that is gone."""
    user = django_user_model.objects.create_user("ada")
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support", user=user)
    with transport.using(Model("Bye.", during=django_user_model.objects.all().delete)):
        assert wrapper.send_user_message_and_get_response("hi") == "Bye."
    assert set(Message.objects.values_list("user", flat=True)) == {None}
    assert ChatHistory.objects.get().user is None


# -- B8 ------------------------------------------------------------------------------------------------------


@contextmanager
def clock_off_by(monkeypatch, seconds):
    """This worker's clock is wrong; the database's is not."""
    real, real_now = time.time, timezone.now
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + seconds)
        patch.setattr(timezone, "now", lambda: real_now() + timedelta(seconds=seconds))
        yield


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_b8_a_worker_with_a_wrong_clock_neither_steals_nor_loses_turns(make_prompt, monkeypatch, seconds):
    """B8: leases are on the database's clock: a worker an hour ahead leaves living turns alone, one an hour behind
    still ends dead ones, and the leases that either takes are as long as any."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    monkeypatch.setattr("llm_wrapper.turn.drivers.KEEP_EVERY", 0)  # so that each piece of text renews the lease
    with scripted_model("one two", "never ends", "Fine."):
        alive = wrapper.stream_user_message("first")
        next(alive)
        with clock_off_by(monkeypatch, seconds):
            assert resume(Turn.objects.get()) is None
            assert not history.expired_turns().exists()
            with pytest.raises(errors.TurnInProgress):
                wrapper.send_user_message_and_get_response("second")
        assert [event.type for event in alive][-1] == "turn_finished"

        with clock_off_by(monkeypatch, seconds):
            own = wrapper.stream_user_message("third")
            while next(own).as_dict().get("number") != 2:
                pass
        open_turn = Turn.objects.filter(status="running")
        assert open_turn.filter(lease_expires_at__gt=Now(), lease_expires_at__lt=Now() + timedelta(minutes=5)).exists()
        open_turn.update(lease_expires_at=Now() - timedelta(seconds=1))
        with clock_off_by(monkeypatch, seconds):
            assert wrapper.send_user_message_and_get_response("fourth") == "Fine."
        own.close()  # says nothing: the turn is not this worker's any more, and nobody listens
    steps = [step for step in Message.objects.order_by("position") if "incomplete" not in step.payload]
    assert [step.text for step in steps] == ["first", "one two", "third", "fourth", "Fine."]
    assert list(audit.differences(ChatHistory.objects.get())) == []


# -- B9 ------------------------------------------------------------------------------------------------------


def test_b9_totals_are_the_sum_of_the_rows(make_prompt):
    """B9: 8 writers on one chat, with limits and retries among their calls: tokens and cost of the chat are exactly the
    sum of its calls, to the last of ten decimals."""
    make_prompt(configs=("demo", "demo-b"))
    chat_id = LLMCommunicationWrapper(prompt_name="support").chat_history_id
    cost = Decimal("0.1000000001")

    class Sometimes(ScriptedModel):
        def _next(self, request):
            step = super()._next(request)
            return rate_limit(1) if len(self.requests) % 5 == 0 else step

    def send():
        for number in range(2):
            wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat_id)
            try:
                wrapper.send_user_message_and_get_response(f"message {number}", None, True, wait=25)
            except errors.AllConfigsUnavailable:
                continue

    with transport.using(Sometimes([text("fine", cost=cost)] * 100)):
        assert in_threads(*[send] * 8) == [None] * 8
    calls = LLMCall.objects.filter(status="done")
    assert 8 <= calls.count() <= 16
    chat = ChatHistory.objects.get()
    assert chat.cost == cost * calls.count()
    assert chat.output_tokens_count == sum(calls.values_list("output_tokens", flat=True))
    assert Turn.objects.filter(status__in=["done", "failed"]).count() == 16
    assert list(audit.differences(chat)) == []
