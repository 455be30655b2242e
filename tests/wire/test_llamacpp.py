"""A conversation with a real llama.cpp server: what a language model is given, counts and says, end to end."""

from importlib.util import find_spec
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel

from llm_wrapper import errors
from llm_wrapper.events import TextDelta, TurnFinished
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate
from llm_wrapper.repositories import LLMCommunicationWrapper

from . import llamacpp

pytestmark = [pytest.mark.wire, pytest.mark.django_db(transaction=True)]

SAID = 12
FIRST = "Warum 2 Beiträge? 你好"
SYSTEM = "You help the users of the pro plan."


class Verdict(BaseModel):
    """An answer that random weights can give only under the server's grammar."""

    mood: Literal["angry", "calm"]
    refund: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (find_spec("xllamacpp") and find_spec("gguf")):
        pytest.fail("The wire tests need xllamacpp and gguf. Run `make wire-setup`.")
    folder = tmp_path_factory.mktemp("llamacpp")
    llamacpp.write_model(folder / "tiny.gguf")
    with llamacpp.serving(folder / "tiny.gguf", folder / "server.log") as base:
        yield base


@pytest.fixture
def write_local(server, settings, tmp_path):
    """Write the config `local`, which leads to the server, and its row."""
    settings.LLM_CONFIGS_PATH = tmp_path

    def write(**keys):
        values = {"llm_config_class": "OpenAICompatibleConfig", "model_name": "tiny", "endpoint": server}
        (tmp_path / "local.yml").write_text(
            yaml.safe_dump({"name": "local", **values, "temperature": 0, "max_tokens": SAID, "timeout": 20, **keys})
        )
        return LLMConfigName.objects.get_or_create(name="local")[0]

    return write


@pytest.fixture
def prompt(write_local):
    row = PromptTemplate.objects.create(
        name="support",
        system_prompt_template="You help the users of the {{ plan }} plan.",
        user_prompt_template="Question: {{ user_msg }}",
        initial_messages_templates=[{"role": "assistant", "content": "Hello! What is it?"}],
    )
    row.llm_config_names.add(write_local())
    return row


def start():
    return LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"plan": "pro"})


def test_a_plain_answer_is_stored_with_the_counts_of_the_server(prompt):
    """The text, the token counts that llama.cpp reports and an unknown cost reach the reply, the call and the chat."""
    reply = start().send_user_message_and_get_response(FIRST)

    call = LLMCall.objects.get()
    sent = [
        {"role": "system", "content": SYSTEM},
        {"role": "assistant", "content": "Hello! What is it?"},
        {"role": "user", "content": f"Question: {FIRST}"},
    ]
    assert call.sent_messages() == sent
    assert (call.status, call.config_name, call.finish_reason) == ("done", "local", "length")
    assert (call.input_tokens, call.output_tokens) == (llamacpp.prompt_tokens(sent), SAID)
    assert (call.cost, call.price_source) == (None, "")
    assert len(reply) == SAID
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (call.input_tokens, SAID)
    assert reply.cost is None
    assert Message.objects.get(type="assistant", llm_call=call).text == reply
    chat = ChatHistory.objects.get()
    assert (chat.input_tokens_count, chat.output_tokens_count) == (call.input_tokens, SAID)
    assert (chat.cost, chat.unpriced_calls) == (0, 1)
    assert chat.chat_history[-1]["content"] == reply


def test_a_streamed_answer_is_the_plain_one_in_pieces(prompt):
    """Streamed, the same model says the same text, token by token, and the counts of the last chunk are stored."""
    plain = start().send_user_message_and_get_response(FIRST)
    events = list(start().stream_user_message(FIRST))

    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(pieces) == plain
    assert len(pieces) > 1
    reply = events[-1].reply
    assert isinstance(events[-1], TurnFinished)
    assert reply == plain
    streamed, whole = LLMCall.objects.order_by("-id")
    assert (streamed.streamed, whole.streamed) == (True, False)
    assert (streamed.input_tokens, streamed.output_tokens) == (whole.input_tokens, whole.output_tokens)
    assert streamed.cost is None
    assert 0 < streamed.time_to_first_token <= streamed.latency
    chat = ChatHistory.objects.get(pk=reply.chat_id)
    assert chat.output_tokens_count == SAID
    assert chat.chat_history[-1]["content"] == plain


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_second_turn_replays_the_first(prompt, streamed):
    """The next call sends the first message as the user wrote it, and the answer as it was given."""
    wrapper = start()
    first = wrapper.send_user_message_and_get_response(FIRST)
    wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=wrapper.chat_history_id)
    if streamed:
        second = list(wrapper.stream_user_message("And now?"))[-1].reply
    else:
        second = wrapper.send_user_message_and_get_response("And now?")

    earlier, call = LLMCall.objects.order_by("id")
    sent = [
        {"role": "system", "content": SYSTEM},
        {"role": "assistant", "content": "Hello! What is it?"},
        {"role": "user", "content": FIRST},
        {"role": "assistant", "content": str(first)},
        {"role": "user", "content": "Question: And now?"},
    ]
    assert call.sent_messages() == sent
    assert call.input_tokens == llamacpp.prompt_tokens(sent)
    assert len(second) == SAID
    chat = ChatHistory.objects.get()
    assert chat.input_tokens_count == earlier.input_tokens + call.input_tokens
    assert chat.output_tokens_count == 2 * SAID
    assert chat.turn_count == 2


def test_what_the_server_had_cached_is_counted(prompt):
    """Input tokens that llama.cpp took from its prompt cache are stored as cached."""
    for _ in range(2):
        start().send_user_message_and_get_response(FIRST)
    call = LLMCall.objects.latest("id")
    assert 0 < call.cached_tokens < call.input_tokens


def test_a_response_format_reaches_the_server(prompt, write_local):
    """The schema of `response_format_class` binds the model: even random weights give a valid instance."""
    write_local(max_tokens=200)
    wrapper = LLMCommunicationWrapper(
        prompt_name="support", initializing_context_vars={"plan": "pro"}, response_format_class=Verdict
    )
    reply = wrapper.send_user_message_and_get_response(FIRST)
    assert isinstance(reply.parsed, Verdict)
    assert LLMCall.objects.get().finish_reason == "stop"


def test_a_message_past_the_context_is_refused_and_kept(prompt):
    """What llama.cpp cannot hold ends as ContextWindowExceeded, and the message is kept; the chat goes on."""
    wrapper = start()
    with pytest.raises(errors.ContextWindowExceeded):
        wrapper.send_user_message_and_get_response("x" * llamacpp.CONTEXT)
    assert Message.objects.get(type="user").text == "x" * llamacpp.CONTEXT
    assert LLMCall.objects.get().status == "failed"
    assert len(wrapper.send_user_message_and_get_response("Shorter, then.")) == SAID
