"""Whole turns through the wrapper, on a scripted model."""

import json
from decimal import Decimal

import pytest

from llm_wrapper import errors, events
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptTemplate, ToolCall, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import (
    assertNumLLMCalls,
    cut_stream,
    failure,
    rate_limit,
    scripted_model,
    text,
    tool_call,
    tool_calls,
)
from llm_wrapper.types import Usage
from tests import host_tools

pytestmark = pytest.mark.django_db


def test_a_turn_saves_every_step_and_sums_up(make_prompt):
    """An answer leaves its steps as rows and transcript entries, its call, and the chat's tokens and cost."""
    make_prompt(
        system_prompt_template="Plan: {{ plan }}",
        user_prompt_template="They say: {{ user_msg }}",
        initial_messages_templates=[{"role": "assistant", "content": "Hello {{ name }}!"}],
        required_kwargs=["plan"],
        logged_context_vars=["ticket"],
    )
    wrapper = LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"plan": "pro", "name": "Ada"})
    usage = Usage(input_tokens=30, output_tokens=4, cached_tokens=10)
    with scripted_model(text("Because of a bug.", usage=usage, cost=Decimal("0.0123"))) as model:
        reply = wrapper.send_user_message_and_get_response("Why twice?", {"ticket": "T-1", "secret": "canary"})

    assert reply == "Because of a bug."
    assert (reply.usage.input_tokens, reply.cost, reply.config_name) == (30, Decimal("0.0123"), "demo")
    assert model.requests[0].messages == [
        {"role": "system", "content": "Plan: pro"},
        {"role": "assistant", "content": "Hello Ada!"},
        {"role": "user", "content": "They say: Why twice?"},
    ]
    chat = wrapper.get_chat_history_object()
    assert [(e["role"], e["content"]) for e in chat.chat_history] == [
        ("system", "Plan: pro"),
        ("assistant", "Hello Ada!"),
        ("user", "Why twice?"),
        ("assistant", "Because of a bug."),
    ]
    assert chat.chat_history == chat.full_history()
    assert chat.chat_history[2]["context_vars"] == {"ticket": "T-1"}
    assert "canary" not in json.dumps(chat.chat_history) + json.dumps(chat.current_context_variables)
    assert chat.current_context_variables == {"plan": "pro", "name": "Ada", "ticket": "T-1"}
    assert (chat.input_tokens_count, chat.output_tokens_count, chat.cost) == (30, 4, Decimal("0.0123"))
    call = LLMCall.objects.get()
    assert call.status == "done"
    assert call.cached_tokens == 10
    assert call.sent_messages() == model.requests[0].messages
    assert Turn.objects.get().status == "done"
    assert reply.id == Message.objects.get(text="Because of a bug.").pk


def test_later_turns_replay_the_raw_text_and_render_the_system_prompt_anew(make_prompt):
    """The system prompt follows the turn's variables; earlier messages are sent as the user wrote them; what an
    earlier call sent can still be seen exactly."""
    make_prompt(system_prompt_template="Plan: {{ plan }}", user_prompt_template="<{{ message }}>")
    wrapper = LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"plan": "pro"})
    with scripted_model("one", "two") as model:
        wrapper.send_user_message_and_get_response("first")
        wrapper.send_user_message_and_get_response("second", {"plan": "free"})
    assert model.requests[1].messages == [
        {"role": "system", "content": "Plan: free"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "<second>"},
    ]
    sent = [call.sent_messages() for call in LLMCall.objects.order_by("pk")]
    assert sent == [request.messages for request in model.requests]


def test_missing_variables_are_named_at_once_before_anything_is_stored(make_prompt):
    """E3: nothing is sent or stored when variables are missing, and all of them are named."""
    make_prompt(system_prompt_template="{{ a }}", user_prompt_template="{{ b }} {{ user_msg }}", required_kwargs=["c"])
    wrapper = LLMCommunicationWrapper(prompt_name="support", initialize=False)
    with scripted_model(), pytest.raises(ValueError, match="Missing required keys: a, b, c"):
        wrapper.send_user_message_and_get_response("hi")
    assert not Turn.objects.exists()
    assert not Message.objects.exists()


@pytest.mark.parametrize("message", ["", "  \n", None, 7, "x" * 200_001])
def test_a_bad_message_is_refused_with_a_reason(make_prompt, message):
    """An empty, huge or non-text message is refused before anything is stored."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with pytest.raises(errors.BadMessage):
        wrapper.send_user_message_and_get_response(message)
    assert not Turn.objects.exists()


def test_unknown_prompt_and_chat_are_named(make_prompt):
    """An unknown prompt raises DoesNotExist and names the known ones; an unknown chat raises DoesNotExist."""
    make_prompt("known")
    with pytest.raises(PromptTemplate.DoesNotExist, match="known"):
        LLMCommunicationWrapper(prompt_name="nope")
    with pytest.raises(ChatHistory.DoesNotExist):
        LLMCommunicationWrapper(prompt_name="known", chat_history_id=999_999)


def test_an_existing_chat_remembers_the_given_variables(make_prompt):
    """With an existing chat the initializing variables are remembered and used, and its history is left alone."""
    make_prompt(system_prompt_template="{{ question }}")
    first = LLMCommunicationWrapper(prompt_name="support", initializing_context_vars={"question": "one"})
    with scripted_model("a", "b") as model:
        first.send_user_message_and_get_response("hi")
        again = LLMCommunicationWrapper(
            prompt_name="support",
            chat_history_id=first.chat_history_id,
            initialize=False,
            initializing_context_vars={"question": "two"},
        )
        again.send_user_message_and_get_response("more")
    assert model.requests[1].messages[0] == {"role": "system", "content": "two"}
    assert again.get_chat_history_object().current_context_variables == {"question": "two"}


def test_three_bad_tool_calls_become_results_and_an_answer(make_prompt, make_tool, caplog):
    """An unknown tool, bad arguments and a tool that raises each become a result step; the caller gets an answer."""
    make_prompt(tools=[make_tool("tests.host_tools.order_state"), make_tool("tests.host_tools.breaks")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    calls = tool_calls(("nope", {}), ("order_state", {"order": "seven"}), ("breaks", {"order": 1}))
    with scripted_model(calls, "I could not find out.") as model:
        reply = wrapper.send_user_message_and_get_response("Where is it?", {"user_id": 7})
    assert reply == "I could not find out."
    assert [run["status"] for run in reply.tool_calls] == ["refused", "refused", "failed"]
    results = [message for message in model.requests[1].messages if message["role"] == "tool"]
    assert len(results) == 3
    assert all(json.loads(result["content"])["status"] == "Failed" for result in results)
    assert "canary-of-the-exception" not in json.dumps(model.requests[1].messages)
    assert "canary-of-the-exception" in caplog.text
    assert ToolCall.objects.count() == 3
    assert Turn.objects.get().status == "done"


def test_a_context_param_is_hidden_injected_and_never_stored(make_prompt, make_tool, caplog):
    """The model does not see `user_id`, cannot set it, and no row or log holds the real value."""
    caplog.set_level("DEBUG")
    host_tools.SEEN.clear()
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    spoof = tool_call("order_state", order=1, user_id=999)
    with scripted_model(spoof, tool_call("order_state", order=1), "Shipped.") as model:
        wrapper.send_user_message_and_get_response("Where is it?", {"user_id": 424242})
    assert host_tools.SEEN == [(1, 424242)]
    assert "user_id" not in json.dumps(model.requests[0].tools)
    rows = [list(model_class.objects.values()) for model_class in (ChatHistory, Turn, Message, LLMCall, ToolCall)]
    assert "424242" not in repr(rows)
    assert "424242" not in caplog.text
    assert list(ToolCall.objects.values_list("status", flat=True)) == ["refused", "done"]


def test_a_limited_config_is_left_for_another_and_rests(make_prompt):
    """With retry_on_openai_time_limit a 429 moves the turn to another config; the limited one rests for all."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(20), "Here.", "Again.") as model:
        assert wrapper.send_user_message_and_get_response("hi", None, True) == "Here."
        other = LLMCommunicationWrapper(prompt_name="support")
        assert other.send_user_message_and_get_response("hi") == "Again."
    first, second, third = (request.config.name for request in model.requests)
    assert first != second == third
    failed, done, _ = LLMCall.objects.order_by("pk")
    assert (failed.status, failed.error_code, done.status) == ("failed", "rate_limited", "done")
    assert done.route["skipped"] == {first: "failed in this turn: rate_limited"}
    assert "cooling" in LLMCall.objects.latest("pk").route["skipped"][first]
    assert wrapper.llm_config_name == second


def test_without_the_flag_a_limit_reaches_the_caller_and_the_chat_goes_on(make_prompt):
    """Without the flag the limit is raised; the message, the failed call and its code are kept; the next send works."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(5), "Now.") as model:
        with pytest.raises(errors.RateLimited) as raised:
            wrapper.send_user_message_and_get_response("first")
        assert raised.value.retry_after == 5
        assert wrapper.send_user_message_and_get_response("second") == "Now."
    assert Message.objects.get(text="first").type == "user"
    turn = Turn.objects.get(number=1)
    assert (turn.status, turn.error_code, turn.llm_calls.get().error_code) == (
        "failed",
        "rate_limited",
        "rate_limited",
    )
    # The unanswered message is kept, and not sent again as if it were part of the talk.
    assert [m["content"] for m in model.requests[1].messages] == ["second"]
    assert turn.llm_calls.get().sent_messages() == model.requests[0].messages


def test_when_all_are_limited_every_cause_is_told(make_prompt):
    """When no config is left the error holds each cause and the soonest time; the chat goes on."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(30), rate_limit(10)), assertNumLLMCalls(2):
        with pytest.raises(wrapper.LLMConfigsNotAvailable) as raised:
            wrapper.send_user_message_and_get_response("hi", {}, True)
        assert set(raised.value.causes) == {"demo", "demo-b"}
        assert 0 < raised.value.retry_after <= 10
        with pytest.raises(errors.AllConfigsUnavailable):
            wrapper.send_user_message_and_get_response("once more", {}, True)
        again = LLMCommunicationWrapper(prompt_name="support")
        with pytest.raises(errors.AllConfigsUnavailable):
            again.send_user_message_and_get_response("a new chat", {}, True)
    assert set(Message.objects.filter(type="user").values_list("text", flat=True)) == {
        "hi",
        "once more",
        "a new chat",
    }


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ProviderError)],
    ids=lambda kind: kind.code,
)
def test_any_provider_failure_leaves_a_chat_that_goes_on(make_prompt, kind):
    """Whatever the provider does, the message, a failed call with its code, and a usable chat are left."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(failure(kind("It failed.")), "Fine.") as model:
        with pytest.raises(kind):
            wrapper.send_user_message_and_get_response("hello")
        from llm_wrapper import configs

        for request in model.requests:
            configs.warm_up(request.config.name)
        assert wrapper.send_user_message_and_get_response("again") == "Fine."
    call = LLMCall.objects.order_by("pk").first()
    assert (call.status, call.error_code) == ("failed", kind.code)
    assert Message.objects.filter(text="hello", type="user").exists()


def test_a_bad_request_does_not_fail_over(make_prompt):
    """Authentication errors and bad requests are raised, not hidden by another config."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with (
        scripted_model(failure(errors.AuthenticationFailed("no"))),
        pytest.raises(errors.AuthenticationFailed),
    ):
        wrapper.send_user_message_and_get_response("hi", None, True)


def test_streaming_gives_the_events_in_order(make_prompt, make_tool):
    """A streamed turn yields its events in order, text numbered without gaps, and ends with the reply."""
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(tool_call("order_state", order=1), "It is shipped."):
        seen = list(wrapper.stream_user_message("hi", {"user_id": 1}))
    assert [event.type for event in seen if not isinstance(event, events.TextDelta)] == [
        "turn_started",
        "llm_call_started",
        "llm_call_finished",
        "tool_call_started",
        "tool_call_finished",
        "llm_call_started",
        "llm_call_finished",
        "turn_finished",
    ]
    deltas = [event for event in seen if isinstance(event, events.TextDelta)]
    assert "".join(delta.text for delta in deltas) == "It is shipped."
    assert [delta.number for delta in deltas] == list(range(1, len(deltas) + 1))
    json.dumps([event.as_dict() for event in seen])
    assert LLMCall.objects.latest("pk").streamed


def test_a_cut_stream_starts_again_elsewhere_behind_a_reset(make_prompt):
    """A stream that breaks off after its first text is begun anew on another config, behind a StreamReset."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(cut_stream("Half an "), "Whole."):
        seen = list(wrapper.stream_user_message("hi", None, True))
    kinds = [event.type for event in seen]
    assert kinds.index("stream_reset") < kinds.index("turn_finished")
    assert seen[-1].reply == "Whole."
    assert LLMCall.objects.order_by("pk").first().partial_text == "Half an "
    assert Message.objects.filter(type="assistant").get().text == "Whole."


def test_a_cut_stream_without_another_config_keeps_its_text(make_prompt):
    """What had arrived of a failed answer is kept as an incomplete step."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(cut_stream("Half an ")), pytest.raises(errors.StreamCut):
        list(wrapper.stream_user_message("hi"))
    kept = Message.objects.get(type="assistant")
    assert (kept.text, kept.payload) == ("Half an ", {"incomplete": True})


def test_closing_the_stream_ends_the_turn_as_cancelled(make_prompt):
    """A caller that stops listening leaves a cancelled turn with what had arrived, and a chat that goes on."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one two three four", "Fine."):
        stream = wrapper.stream_user_message("hi")
        for event in stream:
            if isinstance(event, events.TextDelta) and event.number == 2:
                break
        stream.close()
        turn = Turn.objects.get()
        assert (turn.status, turn.error_code, turn.llm_calls.get().status) == (
            "cancelled",
            "turn_cancelled",
            "cancelled",
        )
        assert Message.objects.get(type="assistant").text == "one two "
        assert wrapper.send_user_message_and_get_response("go on") == "Fine."


def test_a_model_that_only_asks_for_tools_is_stopped(make_prompt, make_tool, settings):
    """C9: rounds are bounded: the model is told to answer, and then the turn ends with a clear error."""
    settings.LLM_WRAPPER_MAX_TOOL_ROUNDS = 2
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    loop = [tool_call("order_state", order=number) for number in range(9)]
    with scripted_model(*loop) as model, pytest.raises(errors.TooManyToolRounds):
        wrapper.send_user_message_and_get_response("hi", {"user_id": 1})
    assert len(model.requests) == 4
    statuses = list(ToolCall.objects.order_by("pk").values_list("status", flat=True))
    assert statuses == ["done", "done", "refused", "refused"]


def test_nul_and_surrogates_are_stored_safely(make_prompt):
    """C8: text that a database cannot hold is stored with a sign in its place, on every database."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(text("a\x00b\ud800c")):
        wrapper.send_user_message_and_get_response("x\x00y\udfffz")
    assert [entry["content"] for entry in wrapper.get_chat_history_object().chat_history] == [
        "x\ufffdy\ufffdz",
        "a\ufffdb\ufffdc",
    ]


def test_an_unknown_cost_stays_unknown(make_prompt):
    """A call without a known price has no cost, and the chat counts it as unpriced instead of as free."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one", text("two", cost=Decimal("0.5"))):
        assert wrapper.send_user_message_and_get_response("a").cost is None
        assert wrapper.send_user_message_and_get_response("b").cost == Decimal("0.5")
    chat = wrapper.get_chat_history_object()
    assert (chat.cost, chat.unpriced_calls) == (Decimal("0.5"), 1)


def test_an_edit_between_turns_makes_a_new_version_and_old_calls_keep_theirs(make_prompt):
    """E6: each call points at the version of the prompt that it used."""
    prompt = make_prompt(system_prompt_template="one")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("a", "b", "c"):
        wrapper.send_user_message_and_get_response("hi")
        wrapper.send_user_message_and_get_response("hi")
        PromptTemplate.objects.filter(pk=prompt.pk).update(system_prompt_template="two")
        wrapper.send_user_message_and_get_response("hi")
    versions = [call.prompt_version for call in LLMCall.objects.order_by("pk")]
    assert [version.number for version in versions] == [1, 1, 2]
    assert [version.content["system"] for version in versions] == ["one", "one", "two"]


def test_a_render_failure_keeps_the_message(make_prompt):
    """A template that fails for reasons other than a missing variable fails the turn, not the user's message."""
    make_prompt(system_prompt_template="{{ 1 // zero }}")
    wrapper = LLMCommunicationWrapper(prompt_name="support", initialize=False)
    with scripted_model(), pytest.raises(errors.TemplateFailed):
        wrapper.send_user_message_and_get_response("hello", {"zero": 0})
    assert Message.objects.get(type="user").text == "hello"
    assert Turn.objects.get().error_code == "template_failed"


def test_idempotency_key_gives_the_stored_reply(make_prompt):
    """B2: the same key and message give the stored reply without a call; another message is refused."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("Once."):
        first = wrapper.send_user_message_and_get_response("hi", idempotency_key="k1")
        again = wrapper.send_user_message_and_get_response("hi", idempotency_key="k1")
        with pytest.raises(errors.IdempotencyConflict):
            wrapper.send_user_message_and_get_response("other", idempotency_key="k1")
    assert (again, again.id) == (first, first.id)


def test_window_sends_the_newest_whole_exchanges(make_prompt, make_tool):
    """A window keeps system and initial messages and never parts a tool call from its result."""
    make_prompt(
        system_prompt_template="S",
        initial_messages_templates=[{"role": "assistant", "content": "Hello"}],
        tools=[make_tool("tests.host_tools.order_state")],
        history_window=4,
    )
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(tool_call("order_state", order=1), "one", "two", "three") as model:
        for message in ("a", "b", "c"):
            wrapper.send_user_message_and_get_response(message, {"user_id": 1})
    assert [m["content"] for m in model.requests[-1].messages] == ["S", "Hello", "b", "two", "c"]
    assert LLMCall.objects.latest("pk").sent_messages() == model.requests[-1].messages


def test_the_transcript_is_cut_in_batches_and_rows_keep_all(make_prompt, settings):
    """The transcript keeps the newest entries; thumbs still hit the right one; full_history has everything."""
    settings.LLM_WRAPPER_TRANSCRIPT_LIMIT = 8
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    replies = []
    with scripted_model(*[f"answer {n}" for n in range(12)]):
        for number in range(12):
            replies.append(wrapper.send_user_message_and_get_response(f"message {number}"))
    chat = wrapper.get_chat_history_object()
    assert 8 <= len(chat.chat_history) <= 12
    assert len(chat.full_history()) == 24
    assert chat.chat_history == chat.full_history()[-len(chat.chat_history) :]
    assert chat.transcript_start == 24 - len(chat.chat_history) + 1


def test_a_system_prompt_that_renders_to_nothing_is_not_sent(make_prompt):
    """An empty system prompt is left out, also where an earlier turn had one."""
    make_prompt(system_prompt_template="{% if plan is defined %}Plan {{ plan }}{% endif %}")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("a", "b", "c") as model:
        wrapper.send_user_message_and_get_response("one")
        wrapper.send_user_message_and_get_response("two", {"plan": "pro"})
        PromptTemplate.objects.update(system_prompt_template="{% if plan is not defined %}never{% endif %}")
        wrapper.send_user_message_and_get_response("three")
    systems = [[m["content"] for m in request.messages if m["role"] == "system"] for request in model.requests]
    assert systems == [[], ["Plan pro"], []]
    assert [call.sent_messages() for call in LLMCall.objects.order_by("pk")] == [r.messages for r in model.requests]


def test_a_caller_may_leave_at_any_event(make_prompt, make_tool):
    """Wherever the caller stops listening, the turn ends at once, what is final stays final, and the chat goes on."""
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    script = (tool_call("order_state", order=1), "one two")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(*script):
        total = len(list(wrapper.stream_user_message("hi", {"user_id": 1})))
    ended = []
    for leave_at in range(1, total + 1):
        wrapper = LLMCommunicationWrapper(prompt_name="support")
        with scripted_model(*script):
            stream = wrapper.stream_user_message("hi", {"user_id": 1})
            for _ in range(leave_at):
                next(stream)
            stream.close()
        turn = Turn.objects.get(chat=wrapper.chat_history_id)
        ended.append(turn.status)
        assert not LLMCall.objects.filter(turn=turn, status="running").exists()
        chat = wrapper.get_chat_history_object()
        assert chat.chat_history == chat.full_history()
        with scripted_model("Fine."):
            assert wrapper.send_user_message_and_get_response("go on") == "Fine."
    assert ended == ["cancelled"] * (total - 2) + ["done"] * 2
