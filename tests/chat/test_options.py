"""The options of a send through `Chat`, and its streams."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from llm_wrapper import errors
from llm_wrapper.chat import Answer
from llm_wrapper.events import StreamReset, TextDelta, TurnFinished
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import cut_stream, failure, rate_limit, scripted_model
from tests.transport.provider import says

pytestmark = pytest.mark.django_db
MODEL = "ollama_chat/qwen3:4b"


class City(BaseModel):
    name: str
    people: int


def returned(stream):
    """What a generator yields, and what it returns."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as stop:
            return pieces, stop.value


def test_parameters_that_are_not_set_are_not_sent(chat, provider):
    """On the wire there is no temperature and no limit of tokens unless the caller gave them; 0 counts as given."""
    chat.call_llm("main", "a")
    chat.call_llm("main", "b", temperature=0, max_tokens=50)
    bare, full = (request["body"] for request in provider.requests)
    assert not {"temperature", "max_tokens", "max_completion_tokens"} & bare.keys()
    assert (full["temperature"], full["max_tokens"]) == (0, 50)
    assert LLMCall.objects.earliest("pk").request_params == {"timeout": 60.0}


def test_an_answer_that_must_fit_a_model(chat):
    """`.parsed` is the validated instance; the model is told what it must fit."""
    with scripted_model('{"name": "Ulm", "people": 128000}') as model:
        answer = chat.call_llm(MODEL, "Where?", output_model=City)
    assert answer.parsed == City(name="Ulm", people=128_000)
    assert answer.reply.parsed is answer.parsed
    assert model.requests[0].response_format is City


def test_an_answer_that_does_not_fit_is_not_one(chat):
    """The model may repair it once; what still does not fit is an error, and everything that was said is kept."""
    with scripted_model("Ulm", "Ulm again"), pytest.raises(errors.ResponseFormatError, match="City"):
        chat.call_llm(MODEL, "Where?", output_model=City)
    assert list(Message.objects.filter(type="assistant").values_list("text", flat=True)) == ["Ulm", "Ulm again"]
    assert Turn.objects.get().status == "failed"


def test_the_user_message_of_a_repaired_answer_is_the_users(chat):
    """What the turn asks of the model by itself is not taken for what the user wrote."""
    with scripted_model("Ulm", '{"name": "Ulm", "people": 1}'):
        ai_msg, user_msg = chat.call_llm(MODEL, "Where?", output_model=City)
    assert (user_msg.text, ai_msg.text) == ("Where?", '{"name": "Ulm", "people": 1}')
    assert len(LLMCall.objects.all()) == 2


def test_the_history_may_be_bounded(chat):
    """By messages, and by tokens: older turns are left out whole, and the call says how many steps."""
    with scripted_model(*["word " * 30] * 4) as model:
        for message in ("a", "b"):
            chat.call_llm(MODEL, message)
        by_number = chat.call_llm(MODEL, "c", history_window=3)
        by_tokens = chat.call_llm(MODEL, "d", history_tokens=70)
    assert [m["content"] for m in model.requests[2].messages if m["role"] == "user"] == ["b", "c"]
    assert [m["content"] for m in model.requests[3].messages if m["role"] == "user"] == ["c", "d"]
    assert (by_number.llm_call.left_out, by_tokens.llm_call.left_out) == (2, 4)


def test_a_repeated_request_is_answered_once(chat):
    """The same idempotency key gives the stored answer, also to one who streams."""
    with scripted_model("one two"):
        first = chat.call_llm(MODEL, "a", idempotency_key="k")
        again = chat.call_llm(MODEL, "a", idempotency_key="k")
        pieces, streamed = returned(chat.stream_call_llm(MODEL, "a", idempotency_key="k"))
    assert again == first == streamed
    assert pieces == ["one two"]
    with pytest.raises(errors.IdempotencyConflict):
        chat.call_llm(MODEL, "other", idempotency_key="k")


# -- streams ---------------------------------------------------------------------------------------------------


def test_a_stream_yields_text_and_returns_the_answer(chat, provider):
    """The pieces are the answer's text as it came, usage is asked for and counted, and the generator returns the
    same pair as a send."""
    provider.answers = [says("one two three")]
    pieces, answer = returned(chat.stream_call_llm("main", "a"))
    assert pieces == ["one ", "two ", "three "]
    assert isinstance(answer, Answer)
    ai_msg, user_msg = answer
    assert (ai_msg.text, user_msg.text) == ("one two three ", "a")
    assert (chat.last_llm_message, chat.last_user_message, chat.llm_call) == (ai_msg, user_msg, answer.llm_call)
    assert provider.requests[0]["body"]["stream_options"] == {"include_usage": True}
    assert (answer.llm_call.input_tokens, answer.llm_call.output_tokens) == (11, 7)
    assert answer.llm_call.streamed
    assert answer.llm_call.time_to_first_token is not None


def test_a_config_that_does_not_stream_gives_its_answer_in_one_piece(chat, provider, settings):
    """A caller that streams gets the text all the same."""
    file = settings.LLM_CONFIGS_PATH / "main.yml"
    file.write_text(file.read_text() + "stream: false\n")
    provider.answers = [says("one two three")]
    pieces, answer = returned(chat.stream_call_llm("main", "a"))
    assert pieces == ["one two three"]
    assert not provider.requests[0]["body"].get("stream")
    assert not answer.llm_call.streamed


def test_the_events_of_a_stream(chat):
    """`stream_events` gives what the text leaves out; its last event holds the reply."""
    with scripted_model("one two"):
        events = list(chat.stream_events(MODEL, "a"))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["one ", "two"]
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].reply == "one two"


# -- which model -----------------------------------------------------------------------------------------------


def test_of_several_models_one_that_is_limited_is_left_for_another(chat):
    """A limit or a stream that breaks off moves the turn on; both calls are on record, and the chat stays with the one
    that answered."""
    with scripted_model(rate_limit(), "one", "two"):
        first = chat.call_llm(["demo", "demo-b"], "a")
        second = chat.call_llm(["demo", "demo-b"], "b")
    assert first.llm_call.config_name == second.llm_call.config_name
    assert list(LLMCall.objects.order_by("pk").values_list("status", "error_code")) == [
        ("failed", "rate_limited"),
        ("done", ""),
        ("done", ""),
    ]
    assert ChatHistory.objects.get().llm_config_name == first.llm_call.config_name


def test_a_stream_that_begins_anew_says_so(chat):
    """Who needs to know where the text begins anew listens to the events."""
    with scripted_model(cut_stream("one "), "two"):
        events = list(chat.stream_events(["demo", "demo-b"], "a"))
    kinds = [type(event) for event in events if isinstance(event, TextDelta | StreamReset)]
    assert kinds == [TextDelta, StreamReset, TextDelta]


def test_one_model_is_not_left_for_another(chat):
    """Whoever names one model gets that one, or its error."""
    with scripted_model(failure(errors.ProviderOverloaded("busy"))), pytest.raises(errors.ProviderOverloaded):
        chat.call_llm("demo", "a")


def test_a_chat_may_change_its_model(chat):
    """Each send names its model; the history goes along."""
    with scripted_model("one", "two") as model:
        chat.call_llm("demo", "a")
        chat.call_llm("anthropic/claude-x", "b")
    assert [request.config.model for request in model.requests] == ["demo/demo", "anthropic/claude-x"]
    assert len(model.requests[1].messages) == 3


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", "names no model"),
        ([], "No model was named"),
        (["demo", None], "names no model"),
        ("bedrock/" + "a" * 100, "longer than 100 characters. Write a YAML config"),
    ],
)
def test_what_cannot_be_a_model_is_refused_before_anything_is_stored(chat, names, words):
    """The error says what to give instead."""
    with pytest.raises(errors.LLMConfigsNotAvailable, match=words):
        chat.call_llm(names, "a")
    assert not Message.objects.exists()


def test_a_name_that_nobody_knows(chat):
    """A name that is neither a config nor a litellm model id is an error that names it; the message is kept."""
    with pytest.raises(errors.ProviderError, match="nonsense"):
        chat.call_llm("nonsense", "a")
    assert Message.objects.get().text == "a"
    assert LLMCall.objects.get().status == "failed"
