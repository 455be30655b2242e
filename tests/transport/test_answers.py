import pytest

from llm_wrapper.errors import ContentRefused, InvalidProviderResponse
from llm_wrapper.types import Usage

from .conftest import DOORS, STREAMED
from .provider import USAGE, chunk, message, says, sends, streams, text_chunks, tool_call


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
