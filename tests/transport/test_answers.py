from decimal import Decimal

import pytest

from llm_wrapper.errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamCut,
)
from llm_wrapper.transport import answers
from llm_wrapper.types import Price, Usage

from .conftest import DOORS, STREAMED
from .provider import USAGE, chunk, fails, message, says, sends, streams, text_chunks, tool_call

PRICE = Price(input=Decimal(10), output=Decimal(20))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "hosted_vllm/x"])
def test_c11_counts_that_were_not_reported_are_unknown(provider, ask, door, model):
    """A provider that counts nothing leaves None, and never the client library's estimate, nor a cost."""
    provider.answers = [says("Hello there.", usage=None)]
    completion = ask(door, model)[1]
    assert completion.usage == Usage()
    assert (completion.cost, completion.price_source) == (None, "")


@pytest.mark.parametrize("door", STREAMED)
def test_c11_half_a_count_is_half_unknown(provider, ask, door):
    """Of a provider that counts only one side, the other side stays unknown."""
    provider.answers = [streams(*text_chunks("Hello.", usage={**USAGE, "completion_tokens": 0}))]
    usage = ask(door)[1].usage
    assert (usage.input_tokens, usage.output_tokens) == (11, None)


@pytest.mark.parametrize("door", DOORS)
def test_details_of_the_counts_are_kept(provider, ask, door):
    """Cached and reasoning tokens are read where they are reported."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    provider.answers = [says("Hello.", usage=usage)]
    assert ask(door)[1].usage == Usage(100, 50, 80, 30)


def test_c11_negative_counts_are_unknown(provider, ask):
    """A count that cannot be is not taken over."""
    provider.answers = [says("Hello.", usage={**USAGE, "completion_tokens": -4})]
    assert ask()[1].usage.output_tokens is None


@pytest.mark.parametrize("door", DOORS)
def test_c7_an_empty_answer_is_an_error(provider, ask, door):
    """Neither text nor tool calls: the turn may go to another config instead of showing nothing."""
    provider.answers = [streams(*text_chunks("")) if door in STREAMED else sends(message(None))]
    with pytest.raises(InvalidProviderResponse, match="empty"):
        ask(door)


@pytest.mark.parametrize("door", DOORS)
def test_c7_refused_content_is_an_error_of_its_own(provider, ask, door):
    """A content filter that left nothing of the answer is not retried elsewhere as a broken answer."""
    provider.answers = [
        streams(*text_chunks("", finish="content_filter"))
        if door in STREAMED
        else sends(message("", finish="content_filter"))
    ]
    with pytest.raises(ContentRefused):
        ask(door)


@pytest.mark.parametrize("door", DOORS)
def test_c7_a_cut_off_answer_says_so(provider, ask, door):
    """An answer that ran into max_tokens is kept, with its finish reason."""
    provider.answers = [
        streams(*text_chunks("abc", finish="length")) if door in STREAMED else sends(message("abc", finish="length"))
    ]
    completion = ask(door)[1]
    assert (completion.text, completion.finish_reason) == ("abc", "length")


@pytest.mark.parametrize("door", DOORS)
def test_c7_an_answer_without_end_is_stopped(provider, ask, door, settings):
    """An answer longer than the setting allows is refused while it arrives."""
    settings.LLM_WRAPPER_MAX_ANSWER_CHARS = 1000
    provider.answers = [says("word " * 1000)]
    with pytest.raises(InvalidProviderResponse, match="LLM_WRAPPER_MAX_ANSWER_CHARS"):
        ask(door)


@pytest.mark.parametrize("door", DOORS)
def test_c9_tool_calls_get_ids_of_their_own(provider, ask, door):
    """Calls without an id, or with the same one twice, can still be told apart in the history."""
    calls = [tool_call("f", "{}", id="same", index=0), tool_call("g", "{}", id="same", index=1)]
    calls.append(tool_call("h", "{}", id="", index=2))
    if door in STREAMED:
        provider.answers = [
            streams(
                chunk({"role": "assistant", "tool_calls": calls}), chunk({}, finish="tool_calls"), chunk(usage=USAGE)
            )
        ]
    else:
        provider.answers = [sends(message(None, finish="tool_calls", tool_calls=calls))]
    found = ask(door)[1].tool_calls
    assert [call.name for call in found] == ["f", "g", "h"]
    assert len({call.id for call in found}) == 3
    assert all(call.id for call in found)


def test_c9_arguments_are_passed_on_unread(provider, ask):
    """Broken arguments of a tool call reach the turn as they are: it tells the model what is wrong."""
    provider.answers = [sends(message(None, finish="tool_calls", tool_calls=[tool_call("f", '{"a": NaN,,')]))]
    assert ask()[1].tool_calls[0].arguments == '{"a": NaN,,'


def test_c9_a_flood_of_tool_calls_is_no_answer(provider, ask):
    """More tool calls than any model sends in earnest are refused as a whole."""
    calls = [tool_call("f", "{}", id=f"call_{number}", index=number) for number in range(1000)]
    provider.answers = [sends(message(None, finish="tool_calls", tool_calls=calls))]
    with pytest.raises(InvalidProviderResponse, match="1000 tool calls"):
        ask()


@pytest.mark.parametrize("door", DOORS)
def test_c8_any_text_passes(provider, ask, door):
    """NUL, characters outside the basic plane and a lone line of 100,000 characters arrive as they were sent."""
    text = "a\x00b 🎉 \u2028 " + "x" * 100_000
    provider.answers = [streams(*text_chunks(text)) if door in STREAMED else sends(message(text))]
    assert ask(door)[1].text == text


FLOOD = [tool_call("f", "{}", id=f"call_{number}", index=number) for number in range(300)]
# What the answer is -> the error, the answer as a whole, and its chunks.
BILLED = {
    "empty": (InvalidProviderResponse, message(None), text_chunks("")),
    "refused": (ContentRefused, message("", finish="content_filter"), text_chunks("", finish="content_filter")),
    "too many tool calls": (
        InvalidProviderResponse,
        message(None, finish="tool_calls", tool_calls=FLOOD),
        [
            chunk({"role": "assistant", "tool_calls": FLOOD}),
            chunk({}, finish="tool_calls"),
            chunk(usage=USAGE),
        ],
    ),
    "no choices": (InvalidProviderResponse, {**message("x"), "choices": []}, [chunk(usage=USAGE)]),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", BILLED)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "hosted_vllm/x"])
def test_an_answer_that_is_none_has_its_price(provider, ask, model, case, door):
    """The provider bills an answer that is refused here too, so the error carries tokens, cost and its source."""
    error, whole, chunks = BILLED[case]
    provider.answers = [streams(*chunks) if door in STREAMED else sends(whole)]
    with pytest.raises(error if case != "no choices" else ProviderError) as caught:
        ask(door, model, price=PRICE)
    failed = caught.value
    assert (failed.usage.input_tokens, failed.usage.output_tokens) == (11, 7)
    assert (failed.cost, failed.price_source) == (Decimal("0.00025"), "config")


@pytest.mark.parametrize("door", DOORS)
def test_an_answer_that_is_too_long_has_its_price(provider, ask, settings, door):
    """An answer that is stopped for its length carries what was counted before it was stopped."""
    settings.LLM_WRAPPER_MAX_ANSWER_CHARS = 20
    long = chunk({"content": "word " * 10})
    provider.answers = [
        streams(chunk({"role": "assistant", "content": ""}, usage=USAGE), long, *text_chunks("x"))
        if door in STREAMED
        else says("word " * 10)
    ]
    with pytest.raises(InvalidProviderResponse, match="LLM_WRAPPER_MAX_ANSWER_CHARS") as caught:
        ask(door, price=PRICE)
    if door in STREAMED:
        # Counted in the middle of the answer: what goes in is known, what comes out has only begun.
        assert caught.value.usage == Usage(input_tokens=11)
        assert (caught.value.cost, caught.value.price_source) == (None, "")
    else:
        assert (caught.value.usage, caught.value.cost) == (Usage(11, 7), Decimal("0.00025"))


@pytest.mark.parametrize("door", STREAMED)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "hosted_vllm/x", "azure/x"])
def test_a_stream_that_is_cut_after_its_counts_has_its_price(provider, ask, model, door):
    """A stream whose connection breaks after the usage chunk is cut, and carries that chunk's counts."""
    without_finish = [*text_chunks("Hello")[:-2], chunk(usage=USAGE)]
    provider.answers = [streams(*without_finish, cut=True)]
    with pytest.raises(StreamCut) as caught:
        ask(door, model, price=PRICE)
    assert (caught.value.usage, caught.value.cost) == (Usage(11, 7), Decimal("0.00025"))


@pytest.mark.parametrize("door", STREAMED)
def test_a_stream_whose_time_is_up_has_what_was_counted(provider, ask, door):
    """So does one that is given up while it goes on, also where another thread reads it."""

    def counts_and_waits(handler):
        handler.start_stream()
        handler.piece(chunk({"role": "assistant", "content": "Hello"}))
        handler.piece(chunk(usage=USAGE))
        handler.server.release.wait(20)
        handler.close_connection = True

    provider.answers = [counts_and_waits]
    with pytest.raises(ProviderTimeout) as caught:
        ask(door, timeout=1, price=PRICE)
    assert (caught.value.usage, caught.value.cost) == (Usage(11, 7), Decimal("0.00025"))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "hosted_vllm/x"])
def test_c11_a_failure_without_counts_is_not_priced(provider, ask, model, door):
    """A failed call of which the provider counted nothing has no usage and no cost, and no estimate of them."""
    cut = streams(*text_chunks("Hello", usage=None)[:-1], cut=True)
    empty = streams(*text_chunks("", usage=None)) if door in STREAMED else sends(message(None, usage=None))
    for answer in (fails(429), empty, *([cut] if door in STREAMED else [])):
        provider.answers = [answer]
        with pytest.raises((RateLimited, InvalidProviderResponse, StreamCut)) as caught:
            ask(door, model, price=PRICE)
        assert (caught.value.usage, caught.value.cost, caught.value.price_source) == (None, None, "")


@pytest.mark.parametrize("door", DOORS)
def test_c11_litellms_own_answer_is_not_counted(provider, ask, door):
    """litellm makes an empty answer of one kind of refusal, and guesses its tokens, which nobody gets to see."""
    words = "Could not finish the message because max_tokens or model output limit was reached."
    provider.answers = [fails(400, words)]
    with pytest.raises(InvalidProviderResponse, match="length") as caught:
        ask(door, price=PRICE)
    assert (caught.value.usage, caught.value.cost) == (None, None)


def test_an_answer_is_not_lost_to_its_price(provider, ask, monkeypatch, caplog):
    """Where the cost cannot be worked out the answer stays, with a cost that is unknown and a line in the log."""

    def breaks(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(answers, "price", breaks)
    completion = ask()[1]
    assert (completion.text, completion.cost, completion.price_source) == ("Hello there.", None, "")
    assert "ZeroDivisionError" in caplog.text
