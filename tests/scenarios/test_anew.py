"""An answer that is given anew, and a turn that somebody stops."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from llm_wrapper import errors, history, transport
from llm_wrapper.chat import Chat
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import delayed, failure, scripted_model, tool_calls
from llm_wrapper.tools import llm_tool
from llm_wrapper.turn import run_turn

from .test_async import run
from .test_matrix_b import Model
from .test_recovery import run_until

pytestmark = pytest.mark.django_db


STOPPED = []


@llm_tool
def stops_the_turn() -> str:
    """Stop the turn that runs."""
    STOPPED.append(1)
    Turn.objects.update(stop_requested_at=timezone.now())
    return "stopped"


def said(messages):
    return [(message["role"], message["content"]) for message in messages if message["role"] != "system"]


def test_an_answer_given_anew_takes_the_place_of_the_one_before(make_prompt):
    """The model sees the question once and neither of the answers; both stay on record, and the next send follows the
    new one. What was sent for the old answer can still be seen."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one", "two", "three", "four") as model:
        wrapper.send_user_message_and_get_response("a")
        wrapper.send_user_message_and_get_response("b")
        assert wrapper.regenerate_response() == "three"
        assert wrapper.send_user_message_and_get_response("c") == "four"
    assert said(model.requests[2].messages) == [("user", "a"), ("assistant", "one"), ("user", "b")]
    assert said(model.requests[3].messages) == [
        ("user", "a"),
        ("assistant", "one"),
        ("user", "b"),
        ("assistant", "three"),
        ("user", "c"),
    ]
    assert Message.objects.filter(text="two").exists()
    old, new = Turn.objects.order_by("number")[1:3]
    assert new.replaces == old
    for call, request in zip(LLMCall.objects.order_by("pk"), model.requests, strict=True):
        assert call.sent_messages() == request.messages
    assert not list(audit.differences(wrapper.get_chat_history_object()))


@pytest.mark.django_db(transaction=True)
def test_an_answer_is_given_anew_in_an_event_loop(make_prompt):
    """The async door does the same."""
    make_prompt()

    async def again():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        await wrapper.asend_user_message_and_get_response("a")
        assert await wrapper.astop() is None
        return await wrapper.aregenerate_response()

    with scripted_model("one", "two"):
        assert run(again()) == "two"


def test_where_the_new_answer_fails_the_old_one_stays_in_force(make_prompt):
    """Nothing is lost by trying: the model goes on from the answer that the chat had."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one", failure(errors.ContentRefused("no")), "two") as model:
        wrapper.send_user_message_and_get_response("a")
        with pytest.raises(errors.ContentRefused):
            wrapper.regenerate_response()
        wrapper.send_user_message_and_get_response("b")
    assert said(model.requests[2].messages) == [("user", "a"), ("assistant", "one"), ("user", "b")]
    assert Turn.objects.exclude(replaces=None).get().status == "failed"
    # And it can be tried again.
    with scripted_model("three") as model:
        assert wrapper.regenerate_response() == "three"
    assert said(model.requests[0].messages) == [("user", "a"), ("assistant", "one"), ("user", "b")]


def test_only_the_newest_answer_can_be_given_anew(make_prompt):
    """A turn with a later message is refused, and so is a chat without any."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one", "two"), pytest.raises(errors.CannotRegenerate, match="no message"):
        wrapper.regenerate_response()
    chat = Chat.create()
    with scripted_model("one", "two"):
        first, _ = chat.call_llm("openai/x", "a")
        chat.call_llm("openai/x", "b")
        with pytest.raises(errors.CannotRegenerate, match="newer"):
            chat.call_llm("openai/x", "a", replaces=first.turn_id)
    assert Turn.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_d7_a_turn_that_waits_for_its_model_is_ended_by_who_stops_it(make_prompt):
    """D7: after `wait` seconds the turn is ended without its worker, which writes nothing any more when it wakes."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    ended = []

    def work():
        try:
            wrapper.send_user_message_and_get_response("a")
        except errors.LLMWrapperError as error:
            ended.append(error)
        finally:
            connection.close()

    with scripted_model(delayed(1.5, "too late"), "next"):
        worker = threading.Thread(target=work)
        worker.start()
        while not LLMCall.objects.exists():
            pass
        stopped = history.stop_turn(wrapper.chat_history_id, wait=0.2)
        assert stopped is not None
        assert (stopped.status, stopped.error_code) == (Turn.Status.CANCELLED, "turn_cancelled")
        worker.join()
        assert wrapper.send_user_message_and_get_response("b") == "next"
    assert isinstance(ended[0], errors.TurnLost)
    assert not Message.objects.filter(text="too late").exists()
    assert not list(audit.differences(wrapper.get_chat_history_object()))


def test_a_crashed_turn_without_a_prompt_is_resumed_with_its_model_and_parameters(make_prompt):
    """What a `Chat` was asked goes on after a crash, with the model that was asked and what the call was made with."""
    chat = Chat.create()
    with scripted_model("never seen"):
        run_until(run_turn(chat._job("openai/some-model", "hello", temperature=0.5), history), 7)
    turn = Turn.objects.get()
    assert turn.status == Turn.Status.RUNNING
    assert turn.llm_calls.count() == 1
    Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    with scripted_model("Here again.") as model:
        assert resume(turn) == "Here again."
    assert model.requests[0].config.model == "openai/some-model"
    assert model.requests[0].params == {"temperature": 0.5}
    assert ChatHistory.objects.get().last_position == 2


@pytest.mark.parametrize("when", ["in the call", "in the tool"])
def test_d7_what_was_done_when_a_turn_is_stopped_is_on_record_and_no_more_is_done(make_prompt, make_tool, when):
    """D7: an answer that arrived is kept with what it took, and a tool that ran with its result; then neither another
    tool runs nor another call is made."""

    def stop():
        Turn.objects.update(stop_requested_at=timezone.now())

    make_prompt(tools=[make_tool("tests.scenarios.test_anew.stops_the_turn")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    asked = tool_calls(("stops_the_turn", {}), ("stops_the_turn", {}))
    STOPPED.clear()
    during = stop if when == "in the call" else lambda: None
    with transport.using(Model(asked, "never asked", during=during)), pytest.raises(errors.TurnCancelled):
        wrapper.send_user_message_and_get_response("a")
    call = LLMCall.objects.get()
    assert (call.status, call.output_tokens is not None) == (LLMCall.Status.DONE, True)
    assert Turn.objects.get().status == Turn.Status.CANCELLED
    ran = 0 if when == "in the call" else 1
    assert len(STOPPED) == ran
    results = list(Turn.objects.get().tool_calls.order_by("pk").values_list("status", flat=True))
    assert results.count("done") == ran
    assert not {"pending", "running", "unknown"} & set(results)
    assert not list(audit.differences(wrapper.get_chat_history_object()))


def test_d7_a_stop_that_comes_after_the_answer_changes_nothing(make_prompt):
    """D7: an answer that is complete is given and paid for; nothing of it is thrown away."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with transport.using(Model("Here.", during=lambda: Turn.objects.update(stop_requested_at=timezone.now()))):
        assert wrapper.send_user_message_and_get_response("a") == "Here."
    assert Turn.objects.get().status == Turn.Status.DONE
