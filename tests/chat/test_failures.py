"""What is on record of a `Chat` whose model fails, or whose caller goes away."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import transaction

from llm_wrapper import configs, errors
from llm_wrapper.chat import Chat
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import cut_stream, failure, rate_limit, scripted_model, text
from llm_wrapper.types import Usage
from tests.transport.provider import fails, message, says, sends, streams, text_chunks

pytestmark = pytest.mark.django_db
MODEL = "ollama_chat/qwen3:4b"


def contents(request):
    return [entry["content"] for entry in request.messages]


@pytest.mark.parametrize("door", ["send", "stream"])
def test_a_provider_error_keeps_the_message_and_the_call(chat, provider, door):
    """The error is raised, and message, turn and call are in the database with what went wrong."""
    provider.answers = [fails(500, "Broken.")]
    with pytest.raises(errors.ProviderServerError):
        chat.call_llm("main", "a") if door == "send" else list(chat.stream_call_llm("main", "a"))
    assert Message.objects.get().text == "a"
    call = LLMCall.objects.get()
    assert (call.status, call.error_code) == ("failed", "provider_server_error")
    assert "Broken." in call.error_message
    assert call.finished_at is not None
    turn = Turn.objects.get()
    assert (turn.status, turn.error_code) == ("failed", "provider_server_error")


def test_a_message_without_an_answer_is_not_sent_again(chat):
    """After a failure the model does not see two messages of the user in a row; the first one stays on record."""
    with scripted_model(failure(errors.ContentRefused("no")), "two") as model:
        with pytest.raises(errors.ContentRefused):
            chat.call_llm(MODEL, "a")
        chat.call_llm(MODEL, "b")
    assert contents(model.requests[1]) == ["b"]
    assert [step.text for step in chat.get_messages()] == ["a", "b", "two"]
    assert not list(audit.differences(ChatHistory.objects.get()))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_stream_that_is_left_closes_its_call_and_keeps_its_text(chat, taken):
    """Wherever the generator is closed nothing stays open, the text that was given out is kept as an incomplete
    answer, and the next send sees a user's turn and an answer."""
    with scripted_model("one two three four", "fine") as model:
        stream = chat.stream_call_llm(MODEL, "a")
        got = "".join(next(stream) for _ in range(taken))
        stream.close()
        chat.call_llm(MODEL, "b")
    if not taken:  # a generator that was never begun has done nothing
        assert contents(model.requests[0]) == ["b"]
        assert Turn.objects.count() == 1
        return
    call = LLMCall.objects.earliest("pk")
    assert (call.status, call.error_code, call.partial_text) == ("cancelled", "turn_cancelled", got)
    assert Turn.objects.earliest("pk").status == "cancelled"
    kept = Message.objects.get(text=got)
    assert (kept.type, kept.payload) == ("assistant", {"incomplete": True})
    assert contents(model.requests[1]) == ["a", got, "b"]
    assert not list(audit.differences(ChatHistory.objects.get()))


def test_a_stream_that_breaks_off_keeps_its_text(chat, provider):
    """A connection that is lost in the middle is an error; what came before it is kept with the call and the chat."""
    provider.answers = [streams(*text_chunks("one ", "two ")[:3], cut=True), says("fine")]
    got = []
    with pytest.raises(errors.StreamCut):
        got.extend(chat.stream_call_llm("main", "a"))
    assert "".join(got) == "one two "
    call = LLMCall.objects.get()
    assert (call.status, call.error_code, call.partial_text) == ("failed", "stream_cut", "one two ")
    configs.warm_up("main")
    chat.call_llm("main", "b")
    sent = provider.requests[1]["body"]["messages"]
    assert [entry["role"] for entry in sent] == ["user", "assistant", "user"]


def test_a_stream_may_break_off_before_its_first_word(chat):
    """Nothing came, so nothing stands in the history, and the message is not sent again."""
    with scripted_model(cut_stream(), "fine") as model:
        with pytest.raises(errors.StreamCut):
            list(chat.stream_call_llm(MODEL, "a"))
        configs.warm_up(MODEL)
        chat.call_llm(MODEL, "b")
    assert contents(model.requests[1]) == ["b"]


def test_a_model_that_is_limited_rests(chat):
    """The next send is told how long, without another call to a model that would refuse it; its message is kept."""
    with scripted_model(rate_limit(retry_after=20)) as model:
        with pytest.raises(errors.RateLimited):
            chat.call_llm(MODEL, "a")
        with pytest.raises(errors.AllConfigsUnavailable, match="Try again in 20 s"):
            chat.call_llm(MODEL, "b")
    assert len(model.requests) == 1
    assert [step.text for step in chat.get_messages()] == ["a", "b"]


@pytest.mark.django_db(transaction=True)
def test_a_send_does_not_hide_in_a_transaction():
    """Inside a transaction, which could take everything back, a send is refused before the model is called."""
    chat = Chat.create()
    with scripted_model() as model, transaction.atomic(), pytest.raises(errors.InsideTransaction):
        chat.call_llm(MODEL, "a")
    assert model.requests == []


# -- what providers leave out ------------------------------------------------------------------------------------


def test_usage_that_is_missing_is_unknown(chat, provider):
    """Without usage tokens and cost are unknown, not 0 or a guess, and the chat says that its cost is a lower
    bound."""
    provider.answers = [says("fine", usage=None)]
    answer = chat.call_llm("main", "a")
    assert (answer.usage, answer.cost) == (Usage(), None)
    assert (answer.llm_call.input_tokens, answer.llm_call.cost, answer.llm_call.status) == (None, None, "done")
    row = chat.chat_db_model
    assert (row.input_tokens_count, row.cost, row.unpriced_calls) == (0, 0, 1)


def test_an_answer_without_text_is_an_error_and_no_crash(chat, provider):
    """Content null without a tool call is no answer: the call is closed with that error, and the chat goes on."""
    provider.answers = [sends(message(None)), says("fine")]
    with pytest.raises(errors.InvalidProviderResponse):
        chat.call_llm("main", "a")
    assert LLMCall.objects.get().status == "failed"
    configs.warm_up("main")
    assert chat.call_llm("main", "b")[0].text == "fine"


def test_what_it_cost(chat, provider):
    """The price of the config and the usage that was reported give the cost, on the answer, the call and the chat."""
    for door in (chat.call_llm, lambda *args: list(chat.stream_call_llm(*args))):
        door("main", "a")
    each = Decimal(11 * 1 + 7 * 2) / 1_000_000
    assert list(LLMCall.objects.values_list("cost", flat=True)) == [each, each]
    assert chat.last_llm_message.cost == each
    row = ChatHistory.objects.get()
    assert (row.cost, row.input_tokens_count, row.output_tokens_count) == (2 * each, 22, 14)


def test_a_failed_call_does_not_count(chat):
    """A call that gave nothing adds nothing to the counters of the next one."""
    with scripted_model(failure(errors.ContentRefused("no")), text("x", usage=Usage(3, 1), cost=Decimal(1))):
        with pytest.raises(errors.ContentRefused):
            chat.call_llm(MODEL, "a")
        chat.call_llm(MODEL, "b")
    assert (chat.chat_db_model.input_tokens_count, chat.chat_db_model.cost) == (3, 1)
