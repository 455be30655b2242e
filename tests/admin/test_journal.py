from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.models import ChatHistory, LLMCall, ToolCall

from . import rows


@pytest.fixture
def chat(db: None) -> ChatHistory:
    return rows.support_chat(rows.make_prompt())


def page(client: Client, call: LLMCall, **query: Any) -> str:
    response = client.get(reverse("admin:llm_wrapper_llmcall_change", args=[call.pk]), query)
    assert response.status_code == 200
    return response.content.decode()


def test_a_call_shows_what_was_sent_and_why_it_went_there(boss: Client, chat: ChatHistory) -> None:
    """The page of a call holds the sent messages, the answer, the route, tokens, cost and latency."""
    text = page(boss, chat.turns.get(number=1).llm_calls.get(attempt=3))
    for expected in (
        "Sent: 5 messages",
        "Customer: Why was I charged twice?",
        "You were charged 39.00 twice",
        "cooling for 12 s: rate_limited",
        "498",
        "0.000223 (litellm 1.106.2)",
        "1.28 s",
        "support v1",
    ):
        assert expected in text, expected


def test_the_exact_messages_can_be_fetched_as_json(boss: Client, chat: ChatHistory) -> None:
    """The JSON of a call is the list of messages as it was sent, nothing added."""
    call = chat.turns.get(number=1).llm_calls.get(attempt=3)
    response = boss.get(reverse("admin:llm_wrapper_llmcall_sent", args=[call.pk]))
    assert json.loads(response.content) == call.sent_messages()


def test_what_a_call_did_not_report_is_unknown(boss: Client, chat: ChatHistory) -> None:
    """A call without cost or token counts says unknown and does not say 0."""
    call = chat.turns.get(number=3).llm_calls.get()
    text = page(boss, call)
    assert text.count("unknown") >= 3
    assert "The answer broke off before its end" in text
    assert "A colleague will write to you before" in text


def test_many_sent_messages_are_shown_in_pages(boss: Client) -> None:
    """A call that sent a long history shows a part of it at a time."""
    talk = rows.Conversation()
    for number in range(130):
        talk.step("user", f"message <{number}>")
    talk.open("last")
    call = talk.call()
    talk.answer("done", call)
    talk.close()
    assert "message &lt;0&gt;" in page(boss, call)
    assert "message &lt;129&gt;" not in page(boss, call)
    assert "message &lt;129&gt;" in page(boss, call, page=2)


@pytest.mark.parametrize(
    "query",
    [
        {"status__exact": "failed"},
        {"config_name": "azure-gpt"},
        {"model": "azure/gpt-4.1-mini"},
        {"error_code": "stream_cut"},
        {"started_at__year": "2020"},
        {"q": "12 s"},
    ],
)
def test_calls_can_be_filtered(boss: Client, chat: ChatHistory, query: dict[str, str]) -> None:
    """Calls are found by status, config, model, error, date and words of the error."""
    response = boss.get(reverse("admin:llm_wrapper_llmcall_changelist"), query)
    assert response.status_code == 200
    assert 0 <= response.context["cl"].result_count < LLMCall.objects.count()


def test_the_lists_take_a_fixed_number_of_queries(
    boss: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    """The lists of calls, tool runs, turns and steps do not ask the database again for each row."""
    for _ in range(5):
        rows.support_chat(rows.make_prompt(name=f"support {_}"))
    for name in ("llmcall", "toolcall", "turn", "message"):
        with django_assert_max_num_queries(16):
            boss.get(reverse(f"admin:llm_wrapper_{name}_changelist"))


def test_a_tool_call_shows_arguments_and_result(boss: Client, chat: ChatHistory) -> None:
    """The page of a tool call shows what it was given, what it gave, and how it ended."""
    run = ToolCall.objects.get(tool="refund_order")
    text = boss.get(reverse("admin:llm_wrapper_toolcall_change", args=[run.pk])).content.decode()
    for expected in ("&quot;order&quot;: 1043", "There is no tool called refund_order", "refused", "unknown_tool"):
        assert expected in text


# -- long chats ------------------------------------------------------------------------------------------


@pytest.fixture
def long_chat(db: None) -> ChatHistory:
    return rows.long_support_chat(rows.make_prompt(), rows.make_user("bob"))


def test_a_call_says_what_was_left_out_and_for_whom_it_was_made(boss: Client, long_chat: ChatHistory) -> None:
    """Purpose, user, and how many messages had no room, with a link to where they stand in the chat."""
    call = long_chat.turns.get(number=5).llm_calls.get()
    text = page(boss, call)
    assert "6 messages before step" in text
    assert f"?before={call.first_position}" in text
    assert "bob" in text
    earlier = boss.get(reverse("admin:llm_wrapper_chathistory_change", args=[long_chat.pk]), {"before": 5})
    assert "Question 1" in earlier.content.decode()
    roomy = page(boss, long_chat.turns.get(number=1).llm_calls.get())
    assert "Left out" not in roomy


def test_a_summarys_call_shows_what_was_summed_up(boss: Client, long_chat: ChatHistory) -> None:
    """Its purpose, the steps that it is about, what was sent, and the summary that came back."""
    call = long_chat.turns.get(number=4).llm_calls.get(purpose="summary")
    text = page(boss, call)
    assert f"steps {call.first_position} to {call.last_position}" in text
    assert "Summary so far: The customer asked 2 times" in text
    assert "The customer asked 3 times" in text


def test_an_answer_from_the_cache_is_marked(boss: Client, long_chat: ChatHistory) -> None:
    """Nobody takes it for a call that was made and cost nothing."""
    call = long_chat.turns.get(number=6).llm_calls.get(cache_hit=True)
    assert "from the response cache" in page(boss, call)
    assert "not sent" in page(boss, call)
    listed = boss.get(reverse("admin:llm_wrapper_llmcall_changelist")).content.decode()
    assert "cached" in listed


@pytest.mark.parametrize(
    ("query", "found"),
    [({"purpose__exact": "summary"}, 3), ({"cache_hit__exact": "1"}, 1), ({"q": "bob"}, 9), ({"q": "nobody"}, 0)],
)
def test_calls_are_found_by_purpose_cache_and_user(
    boss: Client, long_chat: ChatHistory, query: dict[str, str], found: int
) -> None:
    """The list can be cut down to summaries, to answers from the cache, and to one user's calls."""
    response = boss.get(reverse("admin:llm_wrapper_llmcall_changelist"), query)
    assert response.context["cl"].result_count == found


def test_a_chat_links_to_its_calls(boss: Client, long_chat: ChatHistory) -> None:
    """The list that it leads to holds this chat's calls and no others."""
    rows.support_chat(rows.make_prompt(name="other"))
    text = boss.get(reverse("admin:llm_wrapper_chathistory_change", args=[long_chat.pk])).content.decode()
    assert f"?q={long_chat.public_id}" in text
    response = boss.get(reverse("admin:llm_wrapper_llmcall_changelist"), {"q": str(long_chat.public_id)})
    assert response.context["cl"].result_count == LLMCall.objects.filter(turn__chat=long_chat).count()


def test_a_transcript_shows_summaries_and_answers_given_anew(boss: Client, long_chat: ChatHistory) -> None:
    """A summary stands out with what it is about and whether it is in force; a turn that was answered anew and the one
    that did it lead to each other; what is no longer sent says so; a failed summary is not taken for an answer."""
    text = boss.get(reverse("admin:llm_wrapper_chathistory_change", args=[long_chat.pk])).content.decode()
    old, new = long_chat.turns.get(number=4), long_chat.turns.get(number=5)
    for expected in (
        "summary of all up to step 5",
        "replaced by a newer one",
        "in force",
        "no longer sent",
        f'answered anew in <a href="{reverse("admin:llm_wrapper_turn_change", args=[new.pk])}">turn 5</a>',
        f'answers <a href="{reverse("admin:llm_wrapper_turn_change", args=[old.pk])}">turn 4</a> anew',
        "<span>summary</span>",
        "from the response cache",
    ):
        assert expected in text, expected
    assert text.count("llmw-left") == 3
    assert "Answers anew" in boss.get(reverse("admin:llm_wrapper_turn_change", args=[new.pk])).content.decode()
