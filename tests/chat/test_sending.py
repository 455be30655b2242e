"""`Chat`: made, opened, written to, and read."""

from __future__ import annotations

import threading
import uuid
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from llm_wrapper import errors
from llm_wrapper.chat import Answer, Chat
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import scripted_model, text
from llm_wrapper.types import Usage

pytestmark = pytest.mark.django_db
MODEL = "ollama_chat/qwen3:4b"


def said(messages):
    return [(message["role"], message["content"]) for message in messages]


def test_a_chat_is_a_row():
    """`create` makes the row, with owner and title where they are given; there are as many chats as were made."""
    ada = get_user_model().objects.create_user("ada")
    chats = [Chat.create(), Chat.create(user=ada, title="Trains")]
    rows = ChatHistory.objects.order_by("pk")
    assert [chat.chat_db_model for chat in chats] == list(rows)
    assert list(rows.values_list("user", "title")) == [(None, ""), (ada.pk, "Trains")]
    assert repr(chats[0]) == f"<Chat {rows[0].pk}>"


def test_a_message_gets_an_answer_with_its_record(chat):
    """The pair is (answer, message); the call, its usage and its cost are on it, in the chat's counters, and on the
    last_* attributes."""
    ada = get_user_model().objects.create_user("ada")
    step = text("I am a model.", usage=Usage(input_tokens=12, output_tokens=4), cost=Decimal("0.002"))
    with scripted_model(step) as model:
        answer = chat.send_user_msg_to_llm(model_name=MODEL, text="Who are you?", user=ada, include_chat_history=True)
    ai_msg, user_msg = answer
    assert isinstance(answer, Answer)
    assert (ai_msg.type, ai_msg.text, user_msg.type, user_msg.text) == (
        Message.Type.ASSISTANT,
        "I am a model.",
        Message.Type.USER,
        "Who are you?",
    )
    assert (user_msg.user, ai_msg.user) == (ada, chat.llm_user)
    call = answer.llm_call
    assert call == LLMCall.objects.get()
    assert (call.status, call.config_name, call.model, call.cost) == ("done", MODEL, MODEL, Decimal("0.002"))
    assert (call.input_tokens, call.output_tokens, call.turn) == (12, 4, Turn.objects.get())
    assert list(call.messages.all()) == [user_msg]
    assert (answer.usage.input_tokens, answer.cost, answer.parsed) == (12, Decimal("0.002"), None)
    assert answer.reply == "I am a model."
    row = ChatHistory.objects.get()
    assert (row.input_tokens_count, row.output_tokens_count, row.cost) == (12, 4, Decimal("0.002"))
    assert chat.chat_db_model.input_tokens_count == 12
    assert (chat.last_llm_message, chat.last_user_message, chat.llm_call) == (ai_msg, user_msg, call)
    assert model.requests[0].config.model == MODEL


def test_what_was_said_before_is_sent_too(chat):
    """By default the whole history goes out in order; the record of each call names just what was sent."""
    with scripted_model("one", "two") as model:
        first = chat.call_llm(MODEL, "a")
        second = chat.call_llm(MODEL, "b")
    assert said(model.requests[1].messages) == [("user", "a"), ("assistant", "one"), ("user", "b")]
    assert [answer.llm_call.sent_messages() for answer in (first, second)] == [r.messages for r in model.requests]
    assert [message.text for message in second.llm_call.messages.all()] == ["a", "one", "b"]
    assert said(chat.get_msg_history()) == [*said(model.requests[1].messages), ("assistant", "two")]
    assert [message.position for message in chat.get_messages()] == [1, 2, 3, 4]


def test_a_message_may_be_sent_by_itself(chat):
    """Without the history only the system message and this one go out; both are part of it later."""
    chat.create_system_message("Be brief.")
    with scripted_model("one", "two", "three") as model:
        chat.call_llm(MODEL, "a")
        alone = chat.call_llm(MODEL, "b", include_chat_history=False)
        chat.call_llm(MODEL, "c")
    assert said(model.requests[1].messages) == [("system", "Be brief."), ("user", "b")]
    assert alone.llm_call.sent_messages() == model.requests[1].messages
    assert [content for _, content in said(model.requests[2].messages)] == ["Be brief.", "a", "one", "b", "two", "c"]


def test_a_chat_has_one_system_message(chat):
    """It goes ahead of everything from the next send on, also where it was given late; a second one is refused."""
    with scripted_model("one", "two") as model:
        chat.call_llm(MODEL, "a")
        step = chat.create_system_message("Be brief.")
        chat.call_llm(MODEL, "b")
    assert said(model.requests[0].messages) == [("user", "a")]
    assert said(model.requests[1].messages)[0] == ("system", "Be brief.")
    assert chat.system_message == step
    with pytest.raises(errors.DuplicateSystemMessage, match="has a system message already"):
        chat.create_system_message("Be long.")
    assert Message.objects.filter(type="system").count() == 1


def test_a_message_may_wait_for_the_next_send(chat):
    """A message stored without a call is sent along with the next one, and no call is on record for it."""
    note = chat.create_user_message("I live in Ulm.")
    assert (note.type, note.turn, LLMCall.objects.count()) == (Message.Type.USER, None, 0)
    with scripted_model("In Ulm.") as model:
        chat.call_llm(MODEL, "Where do I live?")
    assert said(model.requests[0].messages) == [("user", "I live in Ulm."), ("user", "Where do I live?")]


def test_a_chat_is_opened_again():
    """By id, public_id or its text another object goes on where the first one stopped."""
    chat = Chat.create()
    with scripted_model("one"):
        chat.call_llm(MODEL, "a")
    row = chat.chat_db_model
    for given in (row.pk, row.public_id, str(row.public_id)):
        again = Chat.open(given)
        assert again.chat_db_model == row
        assert said(again.get_msg_history()) == [("user", "a"), ("assistant", "one")]
    with scripted_model("two") as model:
        Chat.open(row.pk).call_llm(MODEL, "b")
    assert len(model.requests[0].messages) == 3


@pytest.mark.parametrize("given", [0, uuid.uuid4(), "no id", "17"])
def test_a_chat_that_does_not_exist(given):
    """An id that is nobody's, and text that is no id, are both DoesNotExist."""
    with pytest.raises(ChatHistory.DoesNotExist):
        Chat.open(given)


def test_a_chat_may_have_several_users(chat):
    """Each message keeps its author; whoever writes, the model sees one conversation."""
    ada, bob = (get_user_model().objects.create_user(name) for name in ("ada", "bob"))
    with scripted_model("one", "two", "three") as model:
        answers = [chat.call_llm(MODEL, "a", ada), chat.call_llm(MODEL, "b", bob), chat.call_llm(MODEL, "c")]
    assert [user_msg.user.get_username() for _, user_msg in answers] == ["ada", "bob", "llm-wrapper-user"]
    assert {ai_msg.user.get_username() for ai_msg, _ in answers} == {"llm-wrapper-llm"}
    assert [answer.llm_call.user for answer in answers][:2] == [ada, bob]
    assert len(model.requests[2].messages) == 5


@pytest.mark.parametrize("message", ["", "  \n", None, 7])
def test_a_message_must_be_text(chat, message):
    """Nothing is stored or sent of what is no message."""
    with scripted_model() as model:
        for send in (lambda: chat.call_llm(MODEL, message), lambda: chat.create_user_message(message)):
            with pytest.raises(errors.BadMessage):
                send()
    assert (model.requests, Message.objects.count()) == ([], 0)


@pytest.mark.django_db(transaction=True)
def test_many_may_send_at_once():
    """Sends of several threads wait for each other: each message is followed by its own answer, no position is used
    twice, and no token is lost in the counters."""
    chat_id = Chat.create().chat_db_model.pk
    failed = []

    def work(name):
        try:
            for number in range(3):
                Chat.open(chat_id).call_llm("demo", f"{name}{number}", wait=60)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    with scripted_model(*[text("fine", usage=Usage(input_tokens=7, output_tokens=2), cost=Decimal("0.1"))] * 12):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    row = ChatHistory.objects.get()
    assert (row.input_tokens_count, row.output_tokens_count, row.cost) == (84, 24, Decimal("1.2"))
    assert list(row.messages.values_list("position", flat=True)) == list(range(1, 25))
    assert list(row.messages.values_list("type", flat=True)) == ["user", "assistant"] * 12
    assert not list(audit.differences(row))
