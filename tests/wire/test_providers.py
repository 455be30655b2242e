"""Whole turns through each YAML class, up to the bytes that reach a provider and the rows that are left."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from llm_wrapper.errors import AllConfigsUnavailable, AuthenticationFailed
from llm_wrapper.events import TextDelta, TurnFinished
from llm_wrapper.models import ChatHistory, LLMCall
from llm_wrapper.repositories import LLMCommunicationWrapper

from . import formats
from .formats import KEY

pytestmark = [pytest.mark.wire, pytest.mark.django_db]

# Each provider's own names for the same two counts.
USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 9,
    "input_tokens": 21,
    "output_tokens": 9,
    "promptTokenCount": 21,
    "candidatesTokenCount": 9,
}


@dataclass(frozen=True)
class Class:
    """A YAML class: its keys, the format it speaks, the header its key is in, and what its calls cost here."""

    name: str
    keys: dict[str, Any]
    model_key: str = "model_name"
    models: tuple[str, str] = ("model-a", "model-b")
    read: Any = formats.openai
    key_header: str = f"Bearer {KEY}"
    counts: tuple[int | None, int | None] = (21, 9)
    priced: bool = False


CLASSES = [
    Class("OpenAIConfig", {"endpoint": "{base}/v1"}, models=("gpt-4o-mini", "gpt-4o"), priced=True),
    Class(
        "AzureOpenAILLMConfig",
        {"endpoint": "{base}", "api_version": "2024-10-21", "base_model": "azure/gpt-4o-mini"},
        model_key="deployment_name",
        key_header=KEY,
        priced=True,
    ),
    Class(
        "AnthropicConfig",
        {"endpoint": "{base}"},
        models=("claude-sonnet-4-5", "claude-haiku-4-5"),
        read=formats.anthropic,
        key_header=KEY,
        priced=True,
    ),
    Class(
        "GeminiConfig",
        {"endpoint": "{base}/v1beta"},
        models=("gemini-2.5-flash", "gemini-2.5-pro"),
        read=formats.gemini,
        key_header=KEY,
        priced=True,
    ),
    Class("GroqConfig", {"endpoint": "{base}/groq/v1"}),
    # The fake's Ollama counts nothing and says 0, which a model never does.
    Class("OllamaConfig", {"endpoint": "{base}"}, read=formats.ollama, counts=(None, None)),
    Class("OpenAICompatibleConfig", {"endpoint": "{base}/v1"}),
]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.name)
def kind(request):
    return request.param


@pytest.fixture
def make_wrapper(fake, write_config, make_prompt, kind):
    """A wrapper on a prompt whose configs are all of one class: the first model, and the second where asked."""

    def make(configs=1, **fields):
        names = ["first", "second"][:configs]
        for name, model in zip(names, kind.models, strict=False):
            keys = {key: value.format(base=fake.base) for key, value in kind.keys.items()}
            # The first has all the weight, so that it is drawn first.
            more = {"weight": int(name == "first"), "api_key": KEY, kind.model_key: model}
            write_config(name, llm_config_class=kind.name, **keys, **more)
        make_prompt(
            configs=names,
            system_prompt_template="You help {{ customer }}.",
            user_prompt_template="Question: {{ user_msg }}",
            **fields,
        )
        return LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"customer": "Ada"})

    return make


def calls(fake):
    """The requests for an answer. Of Ollama, litellm also asks what the model can do."""
    return [request for request in fake.requests if request["path"] != "/api/show"]


def seen(fake, kind):
    return [kind.read(request) for request in calls(fake)]


def check_call(call, kind):
    assert call.status == LLMCall.Status.DONE
    assert (call.input_tokens, call.output_tokens) == kind.counts
    if kind.priced:
        assert call.cost > 0
        assert call.price_source.startswith("litellm")
    else:
        assert (call.cost, call.price_source) == (None, "")
    assert call.finish_reason == "stop"


def test_a_plain_turn(fake, kind, make_wrapper):
    """One message is one request with system prompt, question, model and key; counts and cost are on record."""
    fake.script({"match": {}, "response": {"content": "Because of the rain.", "usage": USAGE}})
    reply = make_wrapper().send_user_message_and_get_response("Why is it wet?")
    assert reply == "Because of the rain."

    (request,) = seen(fake, kind)
    assert (request.model, request.key, request.streamed) == (kind.models[0], kind.key_header, False)
    assert request.system == "You help Ada."
    assert request.users == ["Question: Why is it wet?"]
    assert request.tools == {}

    call = reply.turn.llm_calls.get()
    check_call(call, kind)
    assert (call.route["chosen"], call.streamed) == ("first", False)
    assert call.sent_messages() == [
        {"role": "system", "content": "You help Ada."},
        {"role": "user", "content": "Question: Why is it wet?"},
    ]
    if kind.read is formats.openai:
        assert calls(fake)[0]["body"]["messages"] == call.sent_messages()
    chat = ChatHistory.objects.get()
    assert (chat.input_tokens_count, chat.output_tokens_count) == (reply.usage.input_tokens or 0, kind.counts[1] or 0)
    assert chat.cost == (call.cost or Decimal(0))
    assert [entry["role"] for entry in chat.chat_history] == ["system", "user", "assistant"]


def test_a_streamed_turn(fake, kind, make_wrapper):
    """A streamed answer arrives in pieces, and leaves the same records as a plain one."""
    answer = "Because of the rain, which has fallen since the early morning. 🌧"
    fake.script({"match": {}, "response": {"content": answer, "usage": USAGE}, "chunkSize": 10})
    events = list(make_wrapper().stream_user_message("Why is it wet?"))
    deltas = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(deltas) > 3
    assert "".join(deltas) == answer
    (finished,) = (event for event in events if isinstance(event, TurnFinished))
    assert finished.reply == answer

    (request,) = seen(fake, kind)
    assert (request.model, request.key, request.streamed) == (kind.models[0], kind.key_header, True)
    assert request.system == "You help Ada."
    call = finished.reply.turn.llm_calls.get()
    check_call(call, kind)
    assert call.streamed
    assert call.time_to_first_token <= call.latency


ORDER_STATE = '''
def order_state(order: int, __user_id__: int) -> str:
    """State of an order.

    Args:
        order: Number of the order.
    """
    return "shipped on Monday" if __user_id__ == 77123 else "not yours"
'''
# By number, because the fake does not see the tool result in the spelling in which litellm writes it for Gemini.
ASKS_FOR_TOOL = {
    "match": {"sequenceIndex": 0},
    "response": {"toolCalls": [{"name": "order_state", "arguments": {"order": 42}}], "usage": USAGE},
}
ANSWERS = {"match": {}, "response": {"content": "It is on its way.", "usage": USAGE}}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_turn_with_a_tool(fake, kind, make_wrapper, make_tool, streamed):
    """The model sees the tool without its context param; its result is in the second request; both are on record."""
    fake.script(ASKS_FOR_TOOL, ANSWERS)
    wrapper = make_wrapper(tools=[make_tool(ORDER_STATE)])
    if streamed:
        reply = list(wrapper.stream_user_message("Where is order 42?", {"user_id": 77123}))[-1].reply
    else:
        reply = wrapper.send_user_message_and_get_response("Where is order 42?", {"user_id": 77123})
    assert reply == "It is on its way."

    first, second = seen(fake, kind)
    assert list(first.tools["order_state"]["properties"]) == ["order"]
    assert first.tools["order_state"]["required"] == ["order"]
    assert second.tools == first.tools
    assert first.results == []
    assert len(second.results) == 1
    assert "shipped on Monday" in second.results[0]
    wire = json.dumps(fake.requests)
    assert "user_id" not in wire
    assert "77123" not in wire

    asked, answered = reply.turn.llm_calls.order_by("attempt")
    assert asked.finish_reason == "tool_calls"
    check_call(answered, kind)
    (run,) = reply.turn.tool_calls.all()
    assert (run.tool, json.loads(run.arguments), run.status) == ("order_state", {"order": 42}, "done")
    if kind.read is formats.openai:
        # litellm leaves out the null content of a message that only asks for tools.
        sent = [{key: value for key, value in entry.items() if value is not None} for entry in answered.sent_messages()]
        assert calls(fake)[1]["body"]["messages"] == sent
    stored = json.dumps(list(ChatHistory.objects.values("chat_history", "current_context_variables")))
    assert "77123" not in stored


def limited(model):
    return {
        "match": {"model": model},
        "response": {
            "error": {"message": "Too many requests.", "type": "rate_limit_error"},
            "status": 429,
            "retryAfter": 20,
        },
    }


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_c1_a_rate_limit_is_survived(fake, kind, make_wrapper, streamed):
    """A limited config is asked once and rests as long as it said; the turn goes on with the other."""
    fake.script(limited(kind.models[0]), {"match": {}, "response": {"content": "Here I am.", "usage": USAGE}})
    wrapper = make_wrapper(configs=2)
    if streamed:
        events = list(wrapper.stream_user_message("Hello?", retry_on_openai_time_limit=True))
        reply = events[-1].reply
    else:
        reply = wrapper.send_user_message_and_get_response("Hello?", retry_on_openai_time_limit=True)
    assert reply == "Here I am."
    assert [request.model for request in seen(fake, kind)] == list(kind.models)
    failed, done = reply.turn.llm_calls.order_by("attempt")
    assert (failed.config_name, failed.status, failed.error_code) == ("first", "failed", "rate_limited")
    assert "Too many requests." in failed.error_message
    assert (failed.cost, failed.input_tokens) == (None, None)
    check_call(done, kind)
    assert done.route["skipped"]["first"] == "failed in this turn: rate_limited"

    # The next turn does not even ask the limited one.
    wrapper.send_user_message_and_get_response("And now?", retry_on_openai_time_limit=True)
    assert [request.model for request in seen(fake, kind)] == [*kind.models, kind.models[1]]


def test_c3_without_another_config_the_caller_learns_when(fake, kind, make_wrapper):
    """Where every config is limited the error says how long to wait, and the message is kept."""
    fake.script(limited(kind.models[0]))
    with pytest.raises(AllConfigsUnavailable) as caught:
        make_wrapper().send_user_message_and_get_response("Hello?", retry_on_openai_time_limit=True)
    assert 15 < caught.value.retry_after <= 20
    assert caught.value.causes["first"].code == "rate_limited"
    assert [entry["content"] for entry in ChatHistory.objects.get().chat_history][1] == "Hello?"


def test_i1_a_refused_key_does_not_fail_over(fake, kind, make_wrapper):
    """A wrong key is reported and not hidden by another config, and is in no row."""
    error = {"message": f"Incorrect API key provided: {KEY}", "type": "authentication_error"}
    fake.script({"match": {}, "response": {"error": error, "status": 401}})
    with pytest.raises(AuthenticationFailed) as caught:
        make_wrapper(configs=2).send_user_message_and_get_response("Hello?", retry_on_openai_time_limit=True)
    assert KEY not in str(caught.value)
    assert len(calls(fake)) == 1
    assert KEY not in json.dumps(list(LLMCall.objects.values()), default=str)


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
async def test_an_async_turn(fake, kind, make_wrapper):
    """The async doors leave the same requests and records behind, streamed or not."""
    fake.script({"match": {}, "response": {"content": "Because of the rain.", "usage": USAGE}})
    wrapper = await sync_to_async(make_wrapper)()
    reply = await wrapper.asend_user_message_and_get_response("Why is it wet?")
    events = [event async for event in wrapper.astream_user_message("Really?")]
    assert reply == events[-1].reply == "Because of the rain."
    first, second = await sync_to_async(seen)(fake, kind)
    assert (first.streamed, second.streamed) == (False, True)
    assert second.users[-1] == "Question: Really?"
    async for call in LLMCall.objects.order_by("pk"):
        check_call(call, kind)
