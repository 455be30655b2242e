"""Chats that are longer than their model's context window."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llm_wrapper import errors, events, history
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptTemplate, Turn
from llm_wrapper.models.journal import SUMMARY_INSTRUCTIONS
from llm_wrapper.models.loading import load_prompt
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import failure, rate_limit, scripted_model, text, tool_call
from llm_wrapper.transport.counting import count_tokens
from llm_wrapper.turn import TurnJob, run_turn
from llm_wrapper.types import Usage
from tests.history.talks import Talk
from tests.transport.provider import fails, message, says, sends
from tests.transport.provider import tool_call as asks_for

from .test_recovery import assert_tool_calls_are_paired, run_until

pytestmark = pytest.mark.django_db

LONG = "Please look into the matter of the parcel that never came. " * 6  # 67 tokens


def tokens(messages: list[dict[str, Any]]) -> int:
    return sum(
        count_tokens(message.get("content") or "")
        + (count_tokens(json.dumps(message["tool_calls"])) if message.get("tool_calls") else 0)
        for message in messages
    )


def grown(chat: ChatHistory, turns: int) -> None:
    """Let a chat have so many turns behind it, each of two messages of 150 tokens or so."""
    talk = Talk(random.Random(turns), longest=60)
    talk.chat = chat
    system = talk.step("system", "Be brief.")
    Turn.objects.bulk_create([Turn(chat=chat, number=number + 1, status="done") for number in range(turns)])
    for turn in chat.turns.order_by("number"):
        talk.step("user", f"{turn.number:04}: {LONG}{LONG}", turn=turn)
        talk.step("assistant", f"{turn.number:04}: {LONG}{LONG}", turn=turn)
    Message.objects.bulk_create(talk.steps, batch_size=500)
    ChatHistory.objects.filter(pk=chat.pk).update(
        last_position=talk.position, turn_count=turns, system_message=system, transcript_start=talk.position + 1
    )


def ask(wrapper: LLMCommunicationWrapper, words: str = "What now?", **values: Any) -> Any:
    return wrapper.send_user_message_and_get_response(words, values)


def prompt_with(name: str, **fields: Any) -> None:
    PromptTemplate.objects.filter(name=name).update(**fields)


# -- windows ---------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("window", [4096, 8192])
def test_a_chat_of_5000_messages_goes_on_like_one_of_50(upstream: Any, chat_on: Any, window: int) -> None:
    """On a model with a small window (the YAML's `context_window`) what is sent fits; the newest messages are sent;
    and the turn takes as many statements and reads as many rows as in a short chat that is cut, too."""
    took: dict[int, list[str]] = {}
    rows: dict[int, int] = {}
    for turns in (25, 250, 2500):
        wrapper = chat_on("small", context_window=window, max_tokens=500)
        grown(wrapper.get_chat_history_object(), turns)
        ask(wrapper)  # counts what was never counted
        with CaptureQueriesContext(connection) as captured:
            assert ask(wrapper) == "Here."
        took[turns] = [query["sql"] for query in captured.captured_queries]
        sent = upstream.last_messages
        assert tokens(sent) <= window - 500
        assert tokens(sent) > 0.7 * (window - 500)
        assert sent[0] == {"role": "system", "content": "Be brief."}
        assert sent[-1]["content"] == "What now?"
        call = LLMCall.objects.latest("pk")
        assert call.sent_messages() == sent
        assert call.left_out == turns * 2 + 2 - (len(sent) - 2)
        rows[turns] = call.messages.count()
    assert len(took[25]) == len(took[250]) == len(took[2500]) <= 21, "\n".join(sql[:120] for sql in took[2500])
    assert rows[250] == rows[2500]


def test_the_price_tables_window_is_used_where_the_yaml_names_none(upstream: Any, chat_on: Any) -> None:
    """gpt-4 takes 8,192 tokens; the tools' definitions and the answer have their room in them."""
    upstream.add("table", model_name="gpt-4", weight=1)
    wrapper = chat_on("table")
    grown(wrapper.get_chat_history_object(), 100)
    ask(wrapper)
    assert 0.7 * 4096 < tokens(upstream.last_messages) <= 4096
    upstream.add("short answers", model_name="gpt-4", weight=1, max_tokens=100)
    wrapper = chat_on("short answers")
    grown(wrapper.get_chat_history_object(), 100)
    ask(wrapper)
    assert 0.7 * 8092 < tokens(upstream.last_messages) <= 8092


def test_tools_have_their_room(upstream: Any, chat_on: Any, make_tool: Any) -> None:
    """What the definitions of the tools take is not given to messages."""
    tool = make_tool("tests.host_tools.order_state")
    tool.tool_json_spec = {**tool.tool_json_spec, "description": "Says where an order is. " * 400}  # 2,400 tokens
    tool.save()
    wrapper = chat_on("small", context_window=4096, max_tokens=500, tools=[tool])
    grown(wrapper.get_chat_history_object(), 60)
    ask(wrapper)
    request = upstream.requests[-1]["body"]
    assert tokens(request["messages"]) + count_tokens(json.dumps(request["tools"])) <= 4096 - 500


def test_the_prompts_number_of_tokens_bounds_what_is_sent(make_prompt: Any) -> None:
    """`history_tokens` holds for any model, and the setting of the newest messages beside it."""
    make_prompt(history_tokens=400)
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    grown(wrapper.get_chat_history_object(), 30)
    with scripted_model("one", "two", "three") as model:
        ask(wrapper)
        assert 250 < tokens(model.requests[0].messages) <= 400
        prompt_with("support", history_window=3)
        ask(wrapper)
        assert [m["content"] for m in model.requests[1].messages] == ["Be brief.", "What now?", "one", "What now?"]
        prompt_with("support", history_window=None, history_tokens=10)
        ask(wrapper)
    # What is always sent is more than the budget: that is sent all the same.
    assert [m["content"] for m in model.requests[2].messages] == ["Be brief.", "What now?"]


def test_a_large_number_of_tokens_does_not_exceed_the_model(upstream: Any, chat_on: Any) -> None:
    """`history_tokens` says how many at most: a model with less room gets what it has room for."""
    wrapper = chat_on("small", context_window=4096, max_tokens=500)
    prompt_with("on small", history_tokens=100_000)
    grown(wrapper.get_chat_history_object(), 60)
    ask(wrapper)
    assert 2000 < tokens(upstream.last_messages) <= 3596


def test_failover_to_a_smaller_model_cuts_anew(upstream: Any, chat_on: Any) -> None:
    """Each config gets what it has room for, in one and the same turn, and each call's row says what that was."""
    upstream.add("large", weight=1, context_window=16_000, max_tokens=500)
    upstream.add("small", weight=0, context_window=2_000, max_tokens=500)
    upstream.answers["large"] = fails(429, retry_after="30")
    wrapper = chat_on("large", "small")
    grown(wrapper.get_chat_history_object(), 120)
    wrapper.send_user_message_and_get_response("What now?", retry_on_openai_time_limit=True)
    first, second = (request["body"]["messages"] for request in upstream.requests)
    assert 8_000 < tokens(first) <= 15_500
    assert tokens(second) <= 1_500
    assert [call.sent_messages() for call in LLMCall.objects.order_by("pk")] == [first, second]


def test_tool_results_that_outgrow_the_window_make_the_next_round_cut_anew(
    upstream: Any, chat_on: Any, make_tool: Any
) -> None:
    """Older turns make way for what the tools gave; the running turn is sent whole, and no pair is parted."""
    tool = make_tool("tests.host_tools.order_state")
    wrapper = chat_on("small", context_window=4096, max_tokens=500, tools=[tool])
    grown(wrapper.get_chat_history_object(), 60)
    calls = [asks_for("order_state", '{"order": 1}', id=f"call_{number}", index=number) for number in range(25)]
    upstream.answers["small"] = [
        sends(message(None, tool_calls=calls, finish="tool_calls")),
        sends(message("Looking.", tool_calls=[{**calls[0], "id": "again"}], finish="tool_calls")),
        says("Sent."),
    ]
    assert ask(wrapper, user_id=1) == "Sent."
    sent = [request["body"]["messages"] for request in upstream.requests]
    assert [tokens(messages) <= 3596 for messages in sent] == [True, True, True]
    assert [sum(m.get("content") == "What now?" for m in messages) for messages in sent] == [1, 1, 1]
    for messages in sent:
        assert_tool_calls_are_paired(messages)
    assert len([m for m in sent[2] if m["role"] == "tool"]) == 26
    assert len([m for m in sent[0] if m["role"] == "user"]) > len([m for m in sent[1] if m["role"] == "user"]) > 1
    # On the wire an answer without a text has no `content`.
    for call, messages in zip(LLMCall.objects.order_by("pk"), sent, strict=True):
        assert call.sent_messages() == [{"content": None, **message} for message in messages]


def test_the_user_templates_words_have_their_room(upstream: Any, chat_on: Any) -> None:
    """A template that makes much of a short message leaves less room for earlier ones."""
    wrapper = chat_on("small", context_window=4096, max_tokens=500)
    prompt_with("on small", user_prompt_template="{{ user_msg }}" + " Look at the manual first." * 400)
    grown(wrapper.get_chat_history_object(), 60)
    ask(wrapper)
    assert upstream.last_messages[-1]["content"].startswith("What now? Look at the manual")
    assert tokens(upstream.last_messages) <= 3596


def test_a_failed_regeneration_shows_that_the_old_answer_was_not_sent(make_prompt: Any) -> None:
    """The old answer comes back where the new one fails; it is not among what the failed call sent."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one", failure(errors.ContentRefused("no")), "two") as model:
        ask(wrapper)
        with pytest.raises(errors.ContentRefused):
            wrapper.regenerate_response()
        ask(wrapper)
    sent = [call.sent_messages() for call in LLMCall.objects.order_by("pk")]
    assert sent == [request.messages for request in model.requests]
    assert [len(messages) for messages in sent] == [1, 1, 3]


# -- summaries -------------------------------------------------------------------------------------------


@pytest.fixture
def summed(make_prompt: Any) -> LLMCommunicationWrapper:
    """A chat on a prompt that has room for a few messages of LONG and wants summaries."""
    make_prompt(system_prompt_template="Be brief.", history_tokens=600, summarise_left_out=True)
    return LLMCommunicationWrapper(prompt_name="support")


def purposes() -> list[str]:
    return list(LLMCall.objects.order_by("pk").values_list("purpose", flat=True))


def agree(wrapper: LLMCommunicationWrapper) -> None:
    call_command("llm_check_history", verbosity=0)
    assert not list(audit.differences(wrapper.get_chat_history_object()))


def test_a_full_window_is_summed_up_once_until_it_is_full_again(summed: LLMCommunicationWrapper) -> None:
    """The first turn without room makes a summary, by a call of its own; the next turns send it and make none, until
    there is no room again, and then the next goes on from the one before. Each call shows exactly what was sent."""
    answers = [f"answer {number}" for number in range(40)]
    with scripted_model(*answers) as model:
        while purposes().count("summary") < 2:
            ask(summed, LONG)
    made = purposes()
    first, second = (number for number, purpose in enumerate(made) if purpose == "summary")
    assert first > 3
    assert second - first > 2
    asked = model.requests[first].messages
    assert asked[0] == {"role": "system", "content": SUMMARY_INSTRUCTIONS}
    assert asked[1]["content"].startswith(f"User: {LONG}\n\nAssistant: answer 0\n\nUser:")
    told = model.requests[first + 1].messages
    assert told[0]["role"] == "system"
    assert told[1] == {
        "role": "user",
        "content": f"Summary of the earlier part of this conversation:\n{answers[first]}",
    }
    # Each message is either in the summary or sent.
    assert asked[1]["content"].count(LONG) + sum(m["content"] == LONG for m in told) == first + 1
    again = model.requests[second].messages[1]["content"]
    assert again.startswith(f"Summary so far: {answers[first]}\n\nUser: ")
    for call, request in zip(LLMCall.objects.order_by("pk"), model.requests, strict=True):
        assert call.sent_messages() == request.messages
        assert tokens(request.messages) <= 600 or call.purpose == "summary"
    step = Message.objects.get(type="summary", left_context_at=None)
    assert step.llm_call == LLMCall.objects.order_by("pk")[second]
    assert Message.objects.filter(type="summary").count() == 2
    agree(summed)
    shown = LLMCommunicationWrapper(prompt_name="support", chat_history_id=summed.chat_history_id)
    assert shown.get_chat_history_object().turn_count == made.count("answer")


def filled(wrapper: LLMCommunicationWrapper) -> int:
    """Send until the next turn would need a summary; gives the number of calls."""
    sent = 0
    while Message.objects.filter(type="user").count() < 6:
        with scripted_model(f"answer {sent}"):
            ask(wrapper, LONG)
        sent += 1
    return sent


def test_the_prompt_says_how_to_sum_up(summed: LLMCommunicationWrapper) -> None:
    """`summary_instructions` take the place of the package's, and stay on the call's record when they are changed."""
    prompt_with("support", summary_instructions="In one line.")
    filled(summed)
    with scripted_model("They spoke.", "fine") as model:
        ask(summed, LONG)
    prompt_with("support", summary_instructions="As a poem.")
    call = LLMCall.objects.get(purpose="summary")
    assert call.sent_messages() == model.requests[0].messages
    assert model.requests[0].messages[0]["content"] == "In one line."


def test_what_a_summary_takes_is_counted(summed: LLMCommunicationWrapper) -> None:
    """Its tokens and its cost are in the reply's usage, in the chat's counters and on a row of its own, and it is seen
    in the events."""
    filled(summed)
    before = summed.get_chat_history_object()
    steps = [
        text("They spoke.", usage=Usage(input_tokens=500, output_tokens=50), cost=Decimal("0.5")),
        text("fine", usage=Usage(input_tokens=300, output_tokens=2), cost=Decimal("0.25")),
    ]
    with scripted_model(*steps):
        happened = list(summed.stream_user_message(LONG))
    reply = happened[-1].reply
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.cost) == (800, 52, Decimal("0.75"))
    after = summed.get_chat_history_object()
    assert after.input_tokens_count - before.input_tokens_count == 800
    assert after.cost - before.cost == Decimal("0.75")
    calls = [event for event in happened if isinstance(event, events.LLMCallFinished)]
    assert [call.cost for call in calls] == [Decimal("0.5"), Decimal("0.25")]
    assert "".join(event.text for event in happened if isinstance(event, events.TextDelta)) == "fine"
    summary = LLMCall.objects.get(purpose="summary")
    assert (summary.cost, summary.answers.get().cost, summary.answers.get().tokens) == (Decimal("0.5"),) * 2 + (50,)
    agree(summed)


@pytest.mark.parametrize("wrong", [rate_limit(), failure(errors.ContentRefused("no")), text("", cost=Decimal("0.5"))])
def test_a_turn_goes_on_without_a_summary_that_fails(summed: LLMCommunicationWrapper, wrong: Any) -> None:
    """The failed call is on record with what it cost; the turn is answered from as much as has room, also in its later
    rounds, without another try; the next turn tries again."""
    filled(summed)
    with scripted_model(wrong, tool_call("nope"), "fine") as model:
        assert ask(summed, LONG) == "fine"
    tried = LLMCall.objects.get(purpose="summary")
    assert tried.status == "failed"
    assert tried.error_code
    assert (tried.cost, tried.output_tokens) == ((Decimal("0.5"), 1) if wrong.completion else (None, None))
    # With no summary the window is filled, and not cut in half.
    assert 600 - 2 * 80 < tokens(model.requests[1].messages) <= 600
    assert purposes()[-3:] == ["summary", "answer", "answer"]
    assert tried.sent_messages() == model.requests[0].messages
    with scripted_model("They spoke.", "well") as model:
        assert ask(summed, LONG) == "well"
    assert LLMCall.objects.get(purpose="summary", status="done").sent_messages() == model.requests[0].messages
    agree(summed)


def test_a_turn_that_is_cancelled_in_its_summary_can_be_sent_again(summed: LLMCommunicationWrapper) -> None:
    """The caller goes away while the summary is made: its call is cancelled, the message leaves the context, and the
    next turn makes the summary."""
    filled(summed)
    with scripted_model("They spoke.", "fine"):
        stream = summed.stream_user_message("gone")
        for event in stream:
            if isinstance(event, events.LLMCallStarted):
                break
        stream.close()
    turn = Turn.objects.latest("pk")
    assert turn.status == "cancelled"
    assert turn.llm_calls.get().status in ("cancelled", "lost")
    with scripted_model("They spoke.", "fine") as model:
        assert ask(summed, LONG) == "fine"
    assert not any(m["content"] == "gone" for m in model.requests[1].messages)
    agree(summed)


def test_a_number_of_messages_is_summed_up_too(make_prompt: Any) -> None:
    """With `history_window` half of it is kept at a cut, so that not every turn makes a summary."""
    make_prompt(history_window=8, summarise_left_out=True)
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(*[f"answer {number}" for number in range(40)]) as model:
        for number in range(15):
            ask(wrapper, f"message {number}")
    made = purposes()
    assert 3 <= made.count("summary") <= 8
    first = made.index("summary")
    assert made[first:].index("answer") == 1
    assert "summary" not in made[first + 1 : first + 3]
    said = model.requests[first].messages[1]["content"]
    sent = model.requests[first + 1].messages
    for number in range(made[:first].count("answer")):
        assert (f"User: message {number}" in said) != any(m["content"] == f"message {number}" for m in sent)
    for call, request in zip(LLMCall.objects.order_by("pk"), model.requests, strict=True):
        assert call.sent_messages() == request.messages
        assert call.purpose == "summary" or len(request.messages) <= 9
    agree(wrapper)


def test_a_regenerated_answer_makes_no_summary_of_nothing(summed: LLMCommunicationWrapper) -> None:
    """After a summary the newest answers may be given anew: what left the context is not summed up, and what was sent
    for each call can be seen all along."""
    filled(summed)
    requests = []
    for words in ("They spoke.", "fine"), ("finer",), ("finest",), ("on",):
        with scripted_model(*words) as model:
            ask(summed, LONG) if words[0] in ("They spoke.", "on") else summed.regenerate_response()
        requests += model.requests
    assert purposes().count("summary") == 1
    calls = LLMCall.objects.order_by("pk").filter(pk__gte=LLMCall.objects.get(purpose="summary").pk)
    for call, request in zip(calls, requests, strict=True):
        assert call.sent_messages() == request.messages
    assert [m["content"] for m in requests[-1].messages].count("finest") == 1
    assert not any(m["content"] in ("fine", "finer") for m in requests[-1].messages)
    agree(summed)


def test_a_failed_regeneration_shows_what_it_sent(summed: LLMCommunicationWrapper) -> None:
    """An answer that comes back because the new one failed is not among what that one's calls sent, be it the answer's
    or the summary's."""
    filled(summed)
    requests = []
    with scripted_model("They spoke.", "fine") as model:
        ask(summed, LONG)
    requests += model.requests
    prompt_with("support", history_tokens=200)
    wrong = failure(errors.ContentRefused("no"))
    with scripted_model("They spoke on.", wrong) as model, pytest.raises(errors.ContentRefused):
        summed.regenerate_response()
    requests += model.requests
    with scripted_model("They went on.", "on") as model:
        ask(summed, LONG)
    requests += model.requests
    # And it is lost to nobody: the next turn sends it, or has it summed up.
    assert "fine" in str(requests[-1].messages) + str(requests[-2].messages)
    calls = LLMCall.objects.order_by("pk").filter(pk__gte=LLMCall.objects.filter(purpose="summary").earliest("pk").pk)
    for call, request in zip(calls, requests, strict=True):
        assert call.sent_messages() == request.messages


def test_a_chat_far_beyond_the_window_is_summed_up_by_what_fits(upstream: Any, chat_on: Any) -> None:
    """Summaries are switched on for a long chat, or it comes to a model with less room: the request for the summary has
    room itself, and is about the newest of what no longer fits."""
    wrapper = chat_on("small", context_window=4096, max_tokens=500)
    prompt_with("on small", summarise_left_out=True)
    grown(wrapper.get_chat_history_object(), 500)
    assert ask(wrapper) == "Here."
    asked, sent = (request["body"]["messages"] for request in upstream.requests)
    assert 2_000 < tokens(asked) <= 3_596
    assert tokens(sent) <= 3_596 // 2 + 20
    assert [call.sent_messages() for call in LLMCall.objects.order_by("pk")] == [asked, sent]
    assert ask(wrapper) == "Here."
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("stop", range(3, 16))
def test_a_crash_around_a_summary_loses_nothing(summed: LLMCommunicationWrapper, stop: int) -> None:
    """Wherever the worker dies, the turn is ended by another with an answer, the summary is made at most once more,
    and rows, transcript and counters agree."""
    filled(summed)
    _, version, *_ = load_prompt("support")
    job = TurnJob(
        chat_id=summed.chat_history_id,
        message=LONG,
        spec=version.spec(),
        version=version,
        config_names=["demo"],
    )
    with scripted_model("They spoke.", "fine"):
        try:
            run_until(run_turn(job, history), stop)
        except StopIteration:
            assert Turn.objects.latest("pk").status == "done"
            return
    turn = Turn.objects.latest("pk")
    Turn.objects.filter(status="running").update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    kept = Message.objects.filter(type="summary").exists()
    with scripted_model(*(["fine"] if kept else ["They spoke.", "fine"])) as model:
        if Turn.objects.filter(status="running").exists():
            resume(turn)
            turn.refresh_from_db()
            assert turn.status == "done"
            assert LLMCall.objects.latest("pk").sent_messages() == model.requests[-1].messages
    assert Message.objects.filter(type="summary").count() == 1
    assert not LLMCall.objects.filter(status="running").exists()
    agree(summed)
