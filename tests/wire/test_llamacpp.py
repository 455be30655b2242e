"""Turns on a real local server, llama.cpp's, through OpenAICompatibleConfig."""

from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async

from llm_wrapper.errors import ProviderError
from llm_wrapper.events import TextDelta
from llm_wrapper.models import ChatHistory, LLMCall
from llm_wrapper.repositories import LLMCommunicationWrapper

from .conftest import SETUP

pytestmark = [pytest.mark.wire, pytest.mark.django_db]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    try:
        import xllamacpp

        from . import tiny_model
    except ImportError as exc:
        pytest.fail(f"The wire tests need the dependency group `wire` ({exc}). {SETUP}")
    path = str(tmp_path_factory.mktemp("model") / "tiny.gguf")
    tiny_model.write(path)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = tiny_model.CONTEXT
    params.n_parallel = 1
    return xllamacpp.Server(params)


@pytest.fixture
def make_wrapper(server, write_config, make_prompt):
    write_config(
        "local",
        llm_config_class="OpenAICompatibleConfig",
        endpoint=f"{server.listening_address}/v1",
        model_name="tiny",
        max_tokens=12,
        temperature=0,
        price={"input": "1", "output": "2"},
    )
    make_prompt(configs=["local"], system_prompt_template="You speak of the {{ topic }}.")
    return lambda: LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"topic": "rain"})


def check(call, chat):
    """The server counted the tokens itself: it made 12 and read more than the messages have letters."""
    assert call.status == LLMCall.Status.DONE
    assert call.output_tokens == 12
    assert call.input_tokens > 30
    assert (call.cost, call.price_source) == (Decimal(call.input_tokens + 12 * 2) / 1_000_000, "config")
    assert call.finish_reason == "length"
    assert (chat.input_tokens_count, chat.output_tokens_count) == (call.input_tokens, 12)


def test_a_plain_turn(make_wrapper):
    """A real server answers, and its own counts of tokens are on record."""
    reply = make_wrapper().send_user_message_and_get_response("Is it wet?")
    assert reply
    check(reply.turn.llm_calls.get(), ChatHistory.objects.get())


def test_a_streamed_turn(make_wrapper):
    """The same when streamed: text in pieces, and the counts come with the last of them."""
    events = list(make_wrapper().stream_user_message("Is it wet?"))
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(pieces) > 3
    assert "".join(pieces) == events[-1].reply
    check(events[-1].reply.turn.llm_calls.get(), ChatHistory.objects.latest("pk"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
async def test_an_async_turn(make_wrapper):
    """The same through the async door."""
    wrapper = await sync_to_async(make_wrapper)()
    reply = await wrapper.asend_user_message_and_get_response("Is it wet?")
    check(await reply.turn.llm_calls.aget(), await ChatHistory.objects.aget())


def test_c11_a_message_that_is_too_long(make_wrapper):
    """A real server's refusal of a conversation longer than its context names the remedy, and keeps the message."""
    with pytest.raises(ProviderError) as caught:
        make_wrapper().send_user_message_and_get_response("wet " * 600)
    assert caught.value.code == "context_window_exceeded"
    assert "history_window" in str(caught.value)
    assert ChatHistory.objects.get().chat_history[1]["content"].startswith("wet wet")
