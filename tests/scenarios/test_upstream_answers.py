"""Answers that are broken, empty, huge or odd: what is kept of them, and that the chat goes on. Group C."""

import json
from contextlib import nullcontext, suppress

import pytest

from llm_wrapper import configs, errors, events
from llm_wrapper.models import LLMCall, Message, ToolCall, Turn
from tests.transport.provider import USAGE, chunk, message, says, sends, streams, text_chunks, tool_call

from .test_recovery import assert_tool_calls_are_paired

pytestmark = pytest.mark.django_db


def send(wrapper, text="hi", variables=None):
    return wrapper.send_user_message_and_get_response(text, variables)


def recover(wrapper, upstream):
    """The chat is usable at once: the config is free, the next message is answered, rows and transcript agree."""
    upstream.answers.clear()
    for name in upstream.names:
        configs.warm_up(name)
    assert send(wrapper, "again") == "Here."
    assert_tool_calls_are_paired(upstream.last_messages)
    chat = wrapper.get_chat_history_object()
    assert chat.chat_history == chat.full_history()


# -- C6: broken streams ----------------------------------------------------------------------------------

BEGUN = text_chunks("Half an ", "answer")[:-2]
BROKEN = {
    "cut": streams(*BEGUN, cut=True),
    "no end": streams(*BEGUN, done=False),
    "bad UTF-8": streams(*BEGUN, b'data: {"id": "\xff\xfe"}\n\n', done=False),
    "broken JSON": streams(*BEGUN, b'data: {"id": \n\n', *text_chunks(" more")),
    "error event": streams(*BEGUN, {"error": {"message": "oops", "code": 500}}),
}


@pytest.mark.parametrize("how", BROKEN)
def test_c6_a_broken_stream_is_kept_as_incomplete(upstream, chat_on, how):
    """What had arrived of a broken stream is an incomplete step of a failed turn, never an answer, and without the
    caller's wish nothing is asked a second time."""
    wrapper = chat_on("main", "well")
    upstream.answers["main"] = BROKEN[how]
    seen = []
    with pytest.raises(errors.ProviderError) as caught:
        seen.extend(wrapper.stream_user_message("hi"))
    assert caught.value.retryable
    assert "".join(event.text for event in seen if isinstance(event, events.TextDelta)) == "Half an answer"
    assert isinstance(seen[-1], events.TurnFailed)
    turn = Turn.objects.get()
    assert (turn.status, turn.error_code) == ("failed", caught.value.code)
    call = turn.llm_calls.get()
    assert (call.status, call.partial_text, call.cost) == ("failed", "Half an answer", None)
    kept = Message.objects.get(type="assistant")
    assert (kept.text, kept.payload) == ("Half an answer", {"incomplete": True})
    assert len(upstream.requests) == 1
    recover(wrapper, upstream)


@pytest.mark.parametrize("how", BROKEN)
def test_c6_a_broken_stream_starts_anew_elsewhere_if_asked(upstream, chat_on, how):
    """With the caller's wish the answer is begun anew on another config, behind a StreamReset."""
    wrapper = chat_on("main", "well")
    upstream.answers["main"] = BROKEN[how]
    seen = list(wrapper.stream_user_message("hi", None, True))
    since = next(number for number, event in enumerate(seen) if isinstance(event, events.StreamReset))
    assert "".join(event.text for event in seen[since:] if isinstance(event, events.TextDelta)).strip() == "Here."
    assert [step.text.strip() for step in Message.objects.filter(type="assistant")] == ["Here."]


# -- C7: odd answers -------------------------------------------------------------------------------------


def body_of(size):
    return json.dumps(message("x" * size)).encode()


UNUSABLE = (errors.InvalidProviderResponse, errors.ProviderServerError)
NO_ANSWER = {
    "no choices": (sends({**message("x"), "choices": []}), errors.InvalidProviderResponse),
    "null content": (sends(message(None)), errors.InvalidProviderResponse),
    "thought too long": (sends(message(None, finish="length")), errors.InvalidProviderResponse),
    "filtered": (sends(message(None, finish="content_filter")), errors.ContentRefused),
    "not JSON": (sends(b"<html>Bad gateway</html>"), UNUSABLE),
    "empty": (sends(b""), UNUSABLE),
    "a list": (sends([]), UNUSABLE),
}


@pytest.mark.parametrize("what", NO_ANSWER)
def test_c7_what_is_no_answer_is_a_typed_error(upstream, chat_on, what):
    """A 200 without an answer in it ends the turn with an error that says so, and the chat goes on."""
    answer, kind = NO_ANSWER[what]
    wrapper = chat_on("main")
    upstream.answers["main"] = answer
    with pytest.raises(kind) as caught:
        send(wrapper)
    turn = Turn.objects.get()
    assert (turn.status, turn.error_code, turn.llm_calls.get().status) == ("failed", caught.value.code, "failed")
    assert not Message.objects.filter(type="assistant").exists()
    recover(wrapper, upstream)


def test_c7_a_body_of_50_mb_is_refused(upstream, chat_on):
    """An answer that is longer than LLM_WRAPPER_MAX_ANSWER_CHARS is not stored."""
    wrapper = chat_on("main")
    upstream.answers["main"] = sends(body_of(50_000_000))
    with pytest.raises(errors.InvalidProviderResponse, match="LLM_WRAPPER_MAX_ANSWER_CHARS"):
        send(wrapper)
    assert len(LLMCall.objects.get().error_message) < 1000
    recover(wrapper, upstream)


@pytest.mark.parametrize("finish", ["length", "content_filter"])
@pytest.mark.parametrize("streamed", [False, True])
def test_c7_why_an_answer_ended_can_be_seen(upstream, chat_on, finish, streamed):
    """An answer that was cut off for its length or by a filter is given, and its call says why it ended."""
    wrapper = chat_on("main")
    answer = streams(*text_chunks("Half", finish=finish)) if streamed else sends(message("Half", finish=finish))
    upstream.answers["main"] = answer
    if streamed:
        assert list(wrapper.stream_user_message("hi"))[-1].reply == "Half"
    else:
        assert send(wrapper) == "Half"
    assert LLMCall.objects.get().finish_reason == finish
    recover(wrapper, upstream)


# -- C8: odd text ----------------------------------------------------------------------------------------

ODD = {"NUL": "a\x00b", "lone surrogate": "a\ud800b", "1 MB on one line": "a" + "é" * 500_000 + "b"}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("streamed", [False, True])
def test_c8_odd_text_from_a_model_is_stored_and_sent_again(upstream, chat_on, what, streamed):
    """Text that a database or an encoder refuses is stored with a sign in its place, and the chat goes on with it."""
    wrapper = chat_on("main")
    upstream.answers["main"] = streams(*text_chunks(ODD[what])) if streamed else sends(message(ODD[what]))
    if streamed:
        seen = list(wrapper.stream_user_message("hi"))
        json.dumps([event.as_dict() for event in seen]).encode()
    else:
        send(wrapper)
    stored = ODD[what].replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert Message.objects.get(type="assistant").text == stored
    recover(wrapper, upstream)
    assert upstream.last_messages[-2] == {"role": "assistant", "content": stored}


@pytest.mark.parametrize("what", ODD)
def test_c8_odd_text_from_a_user_is_stored_and_sent(upstream, chat_on, settings, what):
    """What a user sends is stored and sent in the same form."""
    settings.LLM_WRAPPER_MAX_MESSAGE_CHARS = 2_000_000
    wrapper = chat_on("main")
    assert send(wrapper, ODD[what]) == "Here."
    stored = Message.objects.get(type="user").text
    assert stored == ODD[what].replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert upstream.last_messages == [{"role": "user", "content": stored}]
    assert LLMCall.objects.get().sent_messages() == upstream.last_messages


# -- C9: odd tool calls ----------------------------------------------------------------------------------


def asks_for(*calls):
    return sends(message(None, finish="tool_calls", tool_calls=list(calls)))


ORDER = "tests.host_tools.order_state"
REFUSED = {
    "bad JSON": '{"order": 1',
    "not an object": "[1]",
    "double keys": '{"order": 1, "order": 2}',
    "NaN": '{"order": NaN}',
    "nothing": "",
    "a context param": '{"order": 1, "user_id": 2}',
}


@pytest.mark.parametrize("what", REFUSED)
def test_c9_bad_arguments_become_a_result_that_the_model_reads(upstream, chat_on, make_tool, what):
    """Whatever a model writes as arguments, no tool runs with it, and the model is told in a result of its own."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    upstream.answers["main"] = [asks_for(tool_call("order_state", REFUSED[what])), says("Sorry.")]
    assert send(wrapper, "hi", {"user_id": 1}) == "Sorry."
    (row,) = ToolCall.objects.all()
    assert row.status in {"failed", "refused"}
    told = upstream.last_messages[-1]
    assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", "call_1", row.result)
    assert json.loads(row.result)["message"]
    assert_tool_calls_are_paired(upstream.last_messages)
    recover(wrapper, upstream)


@pytest.mark.parametrize(
    "arguments",
    ['{"order": ' + "[" * 5000 + "]" * 5000 + "}", '{"order": 1' + "0" * 5000 + "}"],
    ids=["nested deeply", "a huge number"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_c9_arguments_that_break_parsers_break_no_chat(upstream, chat_on, make_tool, arguments, streamed):
    """Arguments that Python's own parser gives up on run no tool, and the chat goes on."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    call = tool_call("order_state", arguments)
    begun = streams(chunk({"role": "assistant", "tool_calls": [call]}), chunk({}, finish="tool_calls"))
    upstream.answers["main"] = [begun if streamed else asks_for(call), says("Sorry.")]
    # Outside a stream litellm itself fails on them, and the turn with it.
    with nullcontext() if streamed else suppress(errors.ProviderError):
        list(wrapper.stream_user_message("hi", {"user_id": 1}) if streamed else send(wrapper, "hi", {"user_id": 1}))
    assert not ToolCall.objects.filter(status="done").exists()
    recover(wrapper, upstream)


def test_c9_an_unknown_tool_is_named_in_the_result(upstream, chat_on, make_tool):
    """The model learns that there is no such tool, and which there are."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    upstream.answers["main"] = [asks_for(tool_call("delete_all", "{}")), says("Sorry.")]
    assert send(wrapper, "hi", {"user_id": 1}) == "Sorry."
    assert "order_state" in upstream.last_messages[-1]["content"]
    recover(wrapper, upstream)


def test_c9_two_calls_of_one_id_are_two_calls(upstream, chat_on, make_tool):
    """Calls that a server gave the same id run once each, and each has a result of its own."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    calls = [tool_call("order_state", f'{{"order": {number}}}', id="same", index=number) for number in (0, 1)]
    upstream.answers["main"] = [asks_for(*calls), says("Both.")]
    assert send(wrapper, "hi", {"user_id": 1}) == "Both."
    results = [json.loads(entry["content"]) for entry in upstream.last_messages if entry["role"] == "tool"]
    assert [result["message"] for result in results] == ["order 0: shipped", "order 1: shipped"]
    assert_tool_calls_are_paired(upstream.last_messages)
    recover(wrapper, upstream)


def test_c9_ids_are_used_again_by_some_servers(upstream, chat_on, make_tool):
    """An id that came in an earlier round or turn is no trouble."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    asks = asks_for(tool_call("order_state", '{"order": 1}'))
    for _ in range(2):
        upstream.answers["main"] = [asks, asks, says("Done.")]
        assert send(wrapper, "hi", {"user_id": 1}) == "Done."
    assert list(ToolCall.objects.values_list("status", flat=True)) == ["done"] * 4
    recover(wrapper, upstream)


def test_c9_a_thousand_tool_calls_run_none(upstream, chat_on, make_tool):
    """A flood of tool calls is no answer that can be used."""
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    calls = [tool_call("order_state", '{"order": 1}', id=f"c{number}", index=number) for number in range(1000)]
    upstream.answers["main"] = asks_for(*calls)
    with pytest.raises(errors.InvalidProviderResponse, match="1000 tool calls"):
        send(wrapper, "hi", {"user_id": 1})
    assert not ToolCall.objects.exists()
    recover(wrapper, upstream)


def test_c9_more_tool_calls_than_allowed_are_refused_one_by_one(upstream, chat_on, make_tool, settings):
    """Past LLM_WRAPPER_MAX_TOOL_CALLS each call gets a result that says so, and the model can still answer."""
    settings.LLM_WRAPPER_MAX_TOOL_CALLS = 3
    wrapper = chat_on("main", tools=[make_tool(ORDER)])
    calls = [tool_call("order_state", '{"order": 1}', id=f"c{number}", index=number) for number in range(200)]
    upstream.answers["main"] = [asks_for(*calls), says("Enough.")]
    assert send(wrapper, "hi", {"user_id": 1}) == "Enough."
    states = list(ToolCall.objects.order_by("pk").values_list("status", flat=True))
    assert states == ["done"] * 3 + ["refused"] * 197
    assert_tool_calls_are_paired(upstream.last_messages)
    recover(wrapper, upstream)


# -- C11: windows, counts, prices ------------------------------------------------------------------------


def test_c11_a_conversation_that_is_too_long_says_what_to_do(upstream, chat_on):
    """Too long a context is an error of the request: no other config is tried, none rests, and the chat goes on."""
    wrapper = chat_on("main", "well")
    body = {
        "error": {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}
    }
    upstream.answers["main"] = sends({**body, "type": "invalid_request_error"}, 400)
    with pytest.raises(errors.ContextWindowExceeded, match="history_window"):
        wrapper.send_user_message_and_get_response("hi", None, True)
    assert configs.cooling(["main"]) == {}
    assert len(upstream.requests) == 1
    recover(wrapper, upstream)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6}])
@pytest.mark.parametrize("streamed", [False, True])
def test_c11_counts_that_are_missing_or_absurd_are_unknown(upstream, chat_on, usage, streamed):
    """Tokens that nobody counted are null and add nothing; their cost is unknown and never 0."""
    wrapper = chat_on("main", model_name="gpt-4o-mini")
    upstream.answers["gpt-4o-mini"] = (
        streams(*text_chunks("Hm.", usage=usage)) if streamed else sends(message("Hm.", usage=usage))
    )
    reply = list(wrapper.stream_user_message("hi"))[-1].reply if streamed else send(wrapper)
    assert reply.cost is None
    call = LLMCall.objects.get()
    assert (call.input_tokens, call.output_tokens, call.cost) == (None, None, None)
    chat = wrapper.get_chat_history_object()
    assert (chat.input_tokens_count, chat.output_tokens_count, chat.cost, chat.unpriced_calls) == (0, 0, 0, 1)


def test_c11_an_unknown_price_is_unknown(upstream, chat_on):
    """The tokens of a model without a known price are counted, and its cost is unknown and never 0."""
    wrapper = chat_on("nobody-knows-me")
    reply = send(wrapper)
    assert (reply.usage.input_tokens, reply.cost) == (USAGE["prompt_tokens"], None)
    assert LLMCall.objects.get().cost is None
    chat = wrapper.get_chat_history_object()
    assert (chat.input_tokens_count, chat.cost, chat.unpriced_calls) == (USAGE["prompt_tokens"], 0, 1)
