"""`Chat.regenerate` and `Chat.stop`."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import connection

from llm_wrapper import configs, errors
from llm_wrapper.chat import Chat
from llm_wrapper.events import TextDelta, TurnFinished
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import cut_stream, delayed, failure, scripted_model
from tests.transport.provider import endless, silent

pytestmark = pytest.mark.django_db
MODEL = "ollama_chat/qwen3:4b"
ROOT = Path(__file__).resolve().parents[2]


def contents(messages):
    return [message["content"] for message in messages]


# -- anew --------------------------------------------------------------------------------------------------------


def test_the_newest_message_is_answered_anew(chat):
    """The old answer leaves the context and stays on record; the message keeps its author; another model may be
    asked."""
    with scripted_model("one", "two", "three", "four") as model:
        chat.call_llm(MODEL, "a")
        _, asked = chat.call_llm(MODEL, "b")
        answer = chat.regenerate("demo", temperature=0.9)
        chat.call_llm(MODEL, "c")
    ai_msg, user_msg = answer
    assert (ai_msg.text, user_msg.text, user_msg.user) == ("three", "b", asked.user)
    assert (chat.last_user_message.text, answer.llm_call.config_name) == ("c", "demo")
    assert model.requests[2].params == {"temperature": 0.9}
    assert contents(model.requests[2].messages) == ["a", "one", "b"]
    assert contents(model.requests[3].messages) == ["a", "one", "b", "three", "c"]
    old = Message.objects.get(text="two")
    assert old.left_context_at == user_msg.position
    assert old.llm_call.sent_messages() == model.requests[1].messages
    assert user_msg.turn.replaces == old.turn


def test_the_events_of_an_answer_given_anew(chat):
    """It streams as a send does."""
    with scripted_model("one", "two three"):
        chat.call_llm(MODEL, "a")
        events = list(chat.regenerate_events(MODEL))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["two ", "three"]
    assert isinstance(events[-1], TurnFinished)
    assert contents(chat.get_msg_history()) == ["a", "two three"]


def test_the_old_answer_comes_back_if_there_is_no_new_one(chat):
    """A failure leaves the chat as it was, with the attempt on record."""
    with scripted_model("one", failure(errors.ContentRefused("no"))):
        chat.call_llm(MODEL, "a")
        with pytest.raises(errors.ContentRefused):
            chat.regenerate(MODEL)
    assert contents(chat.get_msg_history()) == ["a", "one"]
    assert list(LLMCall.objects.order_by("pk").values_list("status", flat=True)) == ["done", "failed"]
    assert not list(audit.differences(ChatHistory.objects.get()))


@pytest.mark.parametrize("times", [1, 2])
def test_after_a_failure_it_can_be_tried_again(chat, times):
    """However often it failed: in the end the message stands in the context once, with its newest answer."""
    with scripted_model("one", *[failure(errors.ContentRefused("no"))] * times, "two") as model:
        chat.call_llm(MODEL, "a")
        for _ in range(times):
            with pytest.raises(errors.ContentRefused):
                chat.regenerate(MODEL)
        chat.regenerate(MODEL)
    assert contents(model.requests[-1].messages) == ["a"]
    assert contents(chat.get_msg_history()) == ["a", "two"]


def test_a_message_that_failed_is_answered_anew(chat):
    """A message that got no answer may get one, after the answers before it."""
    with scripted_model("one", failure(errors.ContentRefused("no")), "two") as model:
        chat.call_llm(MODEL, "a")
        with pytest.raises(errors.ContentRefused):
            chat.call_llm(MODEL, "b")
        chat.regenerate(MODEL)
    assert contents(model.requests[-1].messages) == ["a", "one", "b"]
    assert contents(chat.get_msg_history()) == ["a", "one", "b", "two"]


def test_an_answer_that_broke_off_is_given_anew(chat):
    """The incomplete answer leaves the context for the whole one."""
    with scripted_model(cut_stream("on"), "one") as model:
        with pytest.raises(errors.StreamCut):
            list(chat.stream_call_llm(MODEL, "a"))
        configs.warm_up(MODEL)
        chat.regenerate(MODEL)
    assert contents(model.requests[-1].messages) == ["a"]
    assert contents(chat.get_msg_history()) == ["a", "one"]


@pytest.mark.parametrize("written", [False, True])
def test_nothing_to_answer_anew(chat, written):
    """A chat without a message that was sent says so, also where one was only written."""
    if written:
        chat.create_user_message("a")
    for again in (lambda: chat.regenerate(MODEL), lambda: list(chat.regenerate_events(MODEL))):
        with pytest.raises(errors.CannotRegenerate, match="no message that could be answered anew"):
            again()
    assert not Turn.objects.exists()


# -- stop --------------------------------------------------------------------------------------------------------


def in_a_thread(function):
    """Run it in a thread with a connection of its own; gives the thread, and what was raised."""
    raised = []

    def work():
        try:
            function()
        except errors.LLMWrapperError as error:
            raised.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, raised


STOP = """
import sys, django
django.setup()
from llm_wrapper.chat import Chat
turn = Chat.open(int(sys.argv[1])).stop()
print(turn.status, turn.error_code)
"""


def stop_elsewhere(chat_id):
    """Stop the chat's turn from another process, on this test's database."""
    code = STOP.replace("django.setup()", SETTINGS % str(connection.settings_dict["NAME"]) + "\ndjango.setup()")
    done = subprocess.run(
        [sys.executable, "-c", code, str(chat_id)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


SETTINGS = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "example.test_settings"
from django.conf import settings
settings.DATABASES["default"]["NAME"] = %r
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["thread", "process"])
def test_d7_a_stream_that_somebody_stops_keeps_all_that_was_sent(provider, where):
    """D7: from another thread or process the turn is ended, with every word that its listener got, and nothing is
    written later."""
    provider.answers = [endless()]
    chat_id, got, enough = Chat.create().chat_db_model.pk, [], threading.Event()

    def listen():
        for piece in Chat.open(chat_id).stream_call_llm("main", "a"):
            got.append(piece)
            if len(got) > 5:
                enough.set()

    thread, raised = in_a_thread(listen)
    assert enough.wait(60)
    if where == "thread":
        turn = Chat.open(chat_id).stop()
        assert (turn.status, turn.error_code) == ("cancelled", "turn_cancelled")
    else:
        assert stop_elsewhere(chat_id) == ["cancelled", "turn_cancelled"]
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(raised[0], errors.TurnCancelled)
    assert Message.objects.get(type="assistant").text == "".join(got)
    call = LLMCall.objects.get()
    assert (call.status, call.partial_text) == ("cancelled", "".join(got))
    assert provider.hung_up.wait(10)
    assert not list(audit.differences(ChatHistory.objects.get()))


@pytest.mark.django_db(transaction=True)
def test_d7_a_turn_that_waits_for_its_model_is_ended_without_it():
    """D7: where the worker waits for a slow model, who stops it ends the turn after a while; what the model says later
    is refused, and the chat goes on at once."""
    chat = Chat.create()
    with scripted_model(delayed(4, "too late"), "fine") as model:
        thread, raised = in_a_thread(lambda: Chat.open(chat.chat_db_model.pk).call_llm(MODEL, "a"))
        while not LLMCall.objects.exists():
            assert thread.is_alive()
        turn = chat.stop()
        assert turn.status == "cancelled"
        assert thread.is_alive()
        assert chat.call_llm(MODEL, "b")[0].text == "fine"
        thread.join(20)
    assert isinstance(raised[0], errors.TurnLost)
    assert contents(model.requests[1].messages) == ["b"]
    assert [step.text for step in chat.get_messages()] == ["a", "b", "fine"]
    assert LLMCall.objects.earliest("pk").status == "lost"


@pytest.mark.django_db(transaction=True)
def test_d7_a_stream_without_a_word_yet_is_ended_too(provider):
    """D7: a stream whose first word has not come is no different."""
    provider.answers = [silent]
    chat = Chat.create()
    chat_id = chat.chat_db_model.pk
    thread, raised = in_a_thread(lambda: list(Chat.open(chat_id).stream_call_llm("main", "a")))
    while not LLMCall.objects.exists():
        assert thread.is_alive()
    assert chat.stop().status == "cancelled"
    provider.release.set()
    thread.join(20)
    assert isinstance(raised[0], errors.LLMWrapperError)
    assert not Message.objects.filter(type="assistant").exists()
    assert not Turn.objects.filter(status="running").exists()


def test_nothing_to_stop(chat):
    """A chat on which no turn runs has none to stop."""
    with scripted_model("one"):
        chat.call_llm(MODEL, "a")
    assert chat.stop() is None
    assert Turn.objects.get().status == "done"
