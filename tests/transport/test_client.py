import asyncio
import gc
import socket
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from llm_wrapper import transport
from llm_wrapper.errors import (
    InvalidProviderResponse,
    ProviderConnectionFailed,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    RealCallBlocked,
    StreamCut,
)
from llm_wrapper.types import TextChunk

from .conftest import DOORS, KEY, STREAMED, listen
from .provider import (
    USAGE,
    chunk,
    endless,
    fails,
    message,
    says,
    sends,
    silent,
    streams,
    text_chunks,
    tool_call,
)

MODELS = ("openai/gpt-4o-mini", "hosted_vllm/some-model")
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_an_answer_arrives_through_every_door(provider, ask, door, model):
    """Sync or async, whole or streamed: text, finish reason, counts and ids are the provider's."""
    provider.answers = [says("Hello over there.")]
    texts, completion = ask(door, model)
    assert completion.text.strip() == "Hello over there."
    assert "".join(texts) == (completion.text if door in STREAMED else "")
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (11, 7)
    assert (completion.finish_reason, completion.response_id) == ("stop", "chatcmpl-1")


def test_the_request_goes_out_as_it_stands(provider, ask):
    """Messages, tools and parameters reach the wire unchanged, and the key is in the header only."""
    messages = [{"role": "system", "content": "Be {{ kind }}."}, {"role": "user", "content": "Hi"}]
    ask(messages=messages, tools=TOOLS, params={"temperature": 0.5})
    (request,) = provider.requests
    assert request["body"] == {"model": "gpt-4o-mini", "messages": messages, "tools": TOOLS, "temperature": 0.5}
    assert request["headers"]["authorization"] == f"Bearer {KEY}"


def test_params_of_the_prompt_override_those_of_the_config(provider, make_request):
    """What a prompt sets for a call wins over its config, key by key."""
    request = make_request(params={"temperature": 0.1, "max_tokens": 5})
    transport.current().complete(replace(request, params={"temperature": 0.9}))
    body = provider.requests[0]["body"]
    assert (body["temperature"], body["max_tokens"]) == (0.9, 5)


@pytest.mark.parametrize("door", ["complete", "astream"])
@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("model", [*MODELS, "azure/x", "anthropic/x", "gemini/x", "ollama_chat/x", "groq/x"])
def test_c4_a_failed_call_is_one_request(provider, ask, door, status, model):
    """The SDKs' own retries are off with every provider: one layer decides, and it is not theirs."""
    provider.answers = [fails(status)]
    started = time.monotonic()
    with pytest.raises(ProviderError):
        ask(door, model)
    assert len(provider.requests) == 1
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_c1_the_wait_that_the_provider_asks_for_is_passed_on(provider, ask, door, model):
    """A Retry-After header reaches the error, from where it becomes the config's rest."""
    provider.answers = [fails(429, retry_after="20")]
    with pytest.raises(RateLimited) as caught:
        ask(door, model)
    assert caught.value.retry_after == 20


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_c5_silence_ends_at_the_timeout(provider, ask, door, model):
    """A provider that takes the request and says nothing is a ProviderTimeout when the time is up."""
    provider.answers = [silent]
    started = time.monotonic()
    with pytest.raises(ProviderTimeout):
        ask(door, model, timeout=0.5)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_c5_dripping_bytes_do_not_stretch_the_timeout(provider, ask, door, model):
    """The timeout bounds the whole call: a byte now and then, in headers or body, does not start it anew."""

    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        for _ in range(100):
            if handler.server.release.wait(0.1):
                break
            handler.wfile.write(b"x-more: yes\r\n")
        handler.close_connection = True

    provider.answers = [drip]
    started = time.monotonic()
    with pytest.raises(ProviderTimeout):
        ask(door, model, timeout=0.6)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("door", STREAMED)
def test_c5_a_stream_may_take_no_longer_than_the_timeout(provider, ask, door):
    """A stream that never stands still ends at the timeout too."""
    provider.answers = [streams(*text_chunks(*["x "] * 200), pause=0.02)]
    with pytest.raises(ProviderTimeout):
        ask(door, timeout=0.6)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_nobody_listening_is_a_failed_connection(ask, door, model):
    """A refused connection is told apart from a provider that answers with an error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ProviderConnectionFailed):
            ask(door, model, base=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")


BROKEN = {
    "connection reset": streams(*text_chunks("Hello")[:-2], cut=True),
    "ended early": streams(*text_chunks("Hello")[:-2], done=False),
    "broken JSON": streams(*text_chunks("Hello")[:-2], b'data: {"id": \n\n', *text_chunks("there")),
    "error event": streams(*text_chunks("Hello")[:-2], {"error": {"message": "oops", "code": 500}}),
}


@pytest.mark.parametrize("door", STREAMED)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", BROKEN)
def test_c6_a_broken_stream_is_never_a_complete_answer(provider, make_request, door, model, how):
    """However a stream breaks, what had arrived is passed on, and then StreamCut is raised."""
    provider.answers = [BROKEN[how]]
    request, arrived = make_request(model, stream=True), []
    with pytest.raises(StreamCut):
        listen(door, request, arrived)
    assert arrived == [TextChunk("Hello")]


@pytest.mark.parametrize("door", STREAMED)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_may_write_the_protocols_own_words(provider, ask, door, model):
    """`[DONE]` in an answer's text is text, and does not end the stream."""
    provider.answers = [streams(*text_chunks("Shopping: ", "[DONE]", ", cooking: [DONE] too."))]
    texts, completion = ask(door, model)
    assert completion.text == "Shopping: [DONE], cooking: [DONE] too."
    assert len(texts) == 3


@pytest.mark.parametrize("door", STREAMED)
def test_many_equal_chunks_are_an_answer(provider, ask, door):
    """A long row of equal pieces of text is not taken for a loop of the model."""
    provider.answers = [streams(*text_chunks(*["ha"] * 150))]
    assert ask(door)[1].text == "ha" * 150


@pytest.mark.parametrize("door", STREAMED)
@pytest.mark.parametrize("model", MODELS)
def test_streamed_tool_calls_are_put_together(provider, ask, door, model):
    """Several tool calls that arrive in pieces come out whole and in order."""
    provider.answers = [
        streams(
            chunk({"role": "assistant", "content": None, "tool_calls": [tool_call("f", '{"a":', id="one")]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}),
            chunk({"tool_calls": [tool_call("g", "{}", id="two", index=1)]}),
            chunk({}, finish="tool_calls"),
            chunk(usage=USAGE),
        )
    ]
    calls = ask(door, model, tools=TOOLS)[1].tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [("one", "f", '{"a": 1}'), ("two", "g", "{}")]


FORMATS = [
    ("openai/x", "openai"),
    ("hosted_vllm/x", "openai"),
    ("groq/x", "openai"),
    ("azure/x", "openai"),
    ("anthropic/x", "anthropic"),
    ("gemini/x", "gemini"),
    ("ollama_chat/x", "ollama"),
]


@pytest.mark.parametrize(("model", "format"), FORMATS)
def test_d1_an_abandoned_stream_hangs_up(provider, make_request, model, format):
    """A caller that stops listening ends the connection, so that the provider stops writing."""
    provider.answers = [endless(format)]
    items = transport.current().stream(make_request(model, stream=True))
    assert next(items) == TextChunk("more ")
    items.close()
    assert provider.hung_up.wait(5)


@pytest.mark.parametrize(("model", "format"), FORMATS)
def test_d1_an_abandoned_async_stream_hangs_up(provider, make_request, model, format):
    """The async twin of the above; the connection ends with the generator, not with the event loop."""
    provider.answers = [endless(format)]

    async def listen_shortly():
        async with aclosing(transport.current().astream(make_request(model, stream=True))) as items:
            assert await anext(items) == TextChunk("more ")
        return await asyncio.to_thread(provider.hung_up.wait, 5)

    assert asyncio.run(listen_shortly())


def test_a_cancelled_task_hangs_up(provider, make_request):
    """Cancelling the task that waits for an answer ends its request."""
    provider.answers = [silent]

    async def cancel():
        task = asyncio.create_task(transport.current().acomplete(make_request()))
        while not provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_one_event_loop_after_another(provider, ask, caplog):
    """Repeated `asyncio.run` works, says nothing in the log, and leaves no connection open."""
    provider.answers = [says("Hello.")]
    for _ in range(3):
        for door in ("acomplete", "astream"):
            for model in MODELS:
                assert ask(door, model)[1].text.strip() == "Hello."
    gc.collect()  # an open connection would warn here
    assert not caplog.records


def test_event_loops_side_by_side(provider, make_request):
    """The end of one event loop does not close the clients of another that is at work."""
    provider.answers = [streams(*text_chunks(*"abcdef"), pause=0.1), says("Quick."), streams(*text_chunks("x"))]

    async def slow():
        return [item async for item in transport.current().astream(make_request(stream=True))]

    async def quick():
        return await transport.current().acomplete(make_request())

    async def both():
        task = asyncio.create_task(slow())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(asyncio.run, quick())
        return await task

    assert asyncio.run(both())[-1].text == "abcdef"


def test_real_calls_can_be_forbidden(provider, make_request, settings):
    """With LLM_WRAPPER_BLOCK_REAL_CALLS every door refuses before anything is sent, except for demo models."""
    settings.LLM_WRAPPER_BLOCK_REAL_CALLS = True
    with pytest.raises(RealCallBlocked, match="scripted_model"):
        transport.current().complete(make_request())
    with pytest.raises(RealCallBlocked):
        next(transport.current().stream(make_request(stream=True)))
    assert not provider.requests
    assert transport.current().complete(make_request("demo/x")).text


def test_a_plain_answer_that_is_none(provider, ask):
    """An answer without choices is an error, and not an empty text."""
    provider.answers = [sends({**message("x"), "choices": []})]
    with pytest.raises(InvalidProviderResponse, match="no choices"):
        ask()
