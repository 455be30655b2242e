from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.admin import transcript
from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn

from . import rows


@pytest.fixture
def chat(db: None) -> ChatHistory:
    return rows.support_chat(rows.make_prompt(), rows.make_user("ada"))


def page(client: Client, chat: ChatHistory, **query: Any) -> str:
    response = client.get(reverse("admin:llm_wrapper_chathistory_change", args=[chat.pk]), query)
    assert response.status_code == 200
    return response.content.decode()


def long_chat(turns: int, title: str = "long") -> ChatHistory:
    talk = rows.Conversation(title=title)
    for number in range(turns):
        talk.open(f"question {number}")
        call = talk.call()
        asked = (f"call_{number}", "find_orders", {})
        talk.answer("", call, (asked,))
        talk.ran(call, *asked, "[]")
        talk.answer(f"answer {number}", talk.call())
        talk.close()
    return talk.chat


def test_a_chat_shows_every_step_and_what_happened_between(boss: Client, chat: ChatHistory) -> None:
    """A conversation shows raw and rendered messages, tool calls with results, failed calls and failed turns."""
    text = page(boss, chat)
    for expected in (
        "You are the support assistant",
        "Why was I charged twice?",
        "Customer: Why was I charged twice?",
        "calls find_orders",
        "&quot;limit&quot;: 2",
        "You were charged 39.00 twice",
        "rate_limited",
        "There is no tool called refund_order",
        "thumb up",
        "thumb down",
        "Turn 3 failed: all_configs_unavailable",
        "Every config of the prompt is limited or failing",
        "A colleague will write to you before",
        "cost unknown",
        "cost 0.000223",
    ):
        assert expected in text, expected


def test_h9_what_models_and_users_wrote_is_escaped(boss: Client) -> None:
    """No text of a user, a model or a tool becomes markup of the page."""
    evil = "<script>alert(1)</script><img src=https://evil.example/x.png>"
    talk = rows.Conversation(title=evil, current_context_variables={evil: evil})
    talk.step("system", evil)
    talk.open(evil, rendered_text=evil + "!", payload={"context_vars": {evil: evil}})
    call = talk.call(config_name=evil[:90], model=evil, error_message=evil, route={evil: evil}, price_source=evil)
    asked = (evil, evil, {evil: evil})
    talk.answer(evil, call, (asked,))
    talk.ran(call, evil, evil, {evil: evil}, evil, error_code="<script>")
    talk.call("failed", partial_text=evil, error_message=evil, error_code="<script>")
    talk.step("widget", evil, payload={evil: evil})
    talk.close("failed", error_code="<script>", error_message=evil)
    urls = [
        reverse(f"admin:llm_wrapper_{name}_{kind}", args=args)
        for name, pk in (
            ("chathistory", talk.chat.pk),
            ("turn", Turn.objects.get().pk),
            ("llmcall", call.pk),
            ("toolcall", ToolCall.objects.get().pk),
            ("message", Message.objects.first().pk),  # type: ignore[union-attr]
        )
        for kind, args in (("change", [pk]), ("changelist", []))
    ]
    for url in urls:
        text = boss.get(url, follow=True).content.decode()
        assert "<script>alert" not in text, url
        assert "<img src=https://evil" not in text, url


def test_a_chat_is_shown_by_a_fixed_number_of_queries(
    boss: Client, django_assert_num_queries: Callable[..., Any], settings: Any
) -> None:
    """A long chat takes as many queries as a short one."""
    short, long = long_chat(2), long_chat(20)
    page(boss, short)  # the first page of a process reads what Django keeps from then on
    with django_assert_num_queries(8):
        page(boss, short)
    with django_assert_num_queries(8):
        page(boss, long)


def test_the_list_of_chats_takes_a_fixed_number_of_queries(
    boss: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    """The list of chats does not ask the database again for each chat."""
    prompt = rows.make_prompt()
    for number in range(12):
        rows.Conversation(prompt, title=f"chat {number}", user=rows.make_user(f"user{number}"))
    with django_assert_max_num_queries(9):
        response = boss.get(reverse("admin:llm_wrapper_chathistory_changelist"))
    assert b"chat 11" in response.content


def test_the_list_says_where_the_cost_is_only_a_lower_bound(boss: Client, chat: ChatHistory) -> None:
    """Chats with calls of unknown cost show that their cost is not all of it, and how the last turn ended."""
    text = boss.get(reverse("admin:llm_wrapper_chathistory_changelist")).content.decode()
    assert "0.000669 + unknown" in text
    assert "failed" in text


def test_a_long_chat_is_shown_in_pages(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest steps come first with a link to older ones, and the pages together hold each step once."""
    monkeypatch.setattr(transcript, "PAGE_SIZE", 10)
    chat = long_chat(6)
    seen: list[int] = []
    before = None
    for _ in range(10):
        shown = transcript.page(chat, before, size=10)
        seen = [
            item.message.position for block in shown.blocks for item in block.items if isinstance(item, transcript.Step)
        ] + seen
        before = shown.older
        if before is None:
            break
    assert seen == list(range(1, 25))
    text = page(boss, chat, before=chat.last_position + 1)
    assert "question 5" in text
    assert "Newest steps" not in text
    assert "Newest steps" in page(boss, chat, before=9)


@pytest.mark.parametrize("before", ["0", "-1", "x", "9" * 30, "\N{SUPERSCRIPT TWO}"])
def test_a_bad_page_address_does_no_harm(boss: Client, chat: ChatHistory, before: str) -> None:
    """A page address that was tampered with gives a page and no error."""
    page(boss, chat, before=before)


def test_a_turn_is_not_cut_between_pages(db: None) -> None:
    """A page starts with the first step of a turn, so that question and answer stand together."""
    shown = transcript.page(long_chat(4), size=6)
    assert [len(block.items) for block in shown.blocks] == [4]
    assert shown.older == 13


def test_a_turn_longer_than_a_page_is_shown_in_parts(db: None) -> None:
    """A turn with more steps than a page holds can be read in full, page by page."""
    talk = rows.Conversation()
    talk.open("go")
    for number in range(12):
        talk.step("assistant", f"part {number}")
    talk.close()
    shown = transcript.page(talk.chat, size=5)
    assert [len(block.items) for block in shown.blocks] == [5]
    assert shown.older == 9


def test_deleting_a_chat_needs_only_its_own_permission(chat: ChatHistory, staff: Callable[..., Client]) -> None:
    """Who may delete chats deletes one with all that was said in it, and is told how much that is. The LLM calls
    stay for what they cost, without a word of the conversation."""
    client = staff("view_chathistory", "delete_chathistory")
    LLMCall.objects.update(partial_text="secret words", error_message="about secret words")
    spent = LLMCall.objects.count()
    url = reverse("admin:llm_wrapper_chathistory_delete", args=[chat.pk])
    text = client.get(url).content.decode()
    assert "Turns" in text
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not ChatHistory.objects.exists()
    assert not Message.objects.exists()
    left = LLMCall.objects.filter(turn=None)
    assert left.count() == spent > 0
    assert set(left.values_list("partial_text", "error_message")) == {("", "")}
    for call in left:
        assert not call.messages.exists()


def test_several_chats_are_deleted_at_once(staff: Callable[..., Client]) -> None:
    """The action of the list deletes chats with their rows too."""
    pks = [long_chat(1).pk for _ in range(2)]
    data = {"action": "delete_selected", "_selected_action": pks, "post": "yes"}
    client = staff("view_chathistory", "delete_chathistory")
    assert client.post(reverse("admin:llm_wrapper_chathistory_changelist"), data).status_code == 302
    assert not ChatHistory.objects.exists()


def test_viewers_see_no_way_to_delete(chat: ChatHistory, staff: Callable[..., Client]) -> None:
    """The button to delete a chat is shown only to those who may."""
    assert "Delete chat" not in page(staff("view_chathistory"), chat)
    assert "Delete chat" in page(staff("view_chathistory", "delete_chathistory"), chat)


def test_a_turn_shows_its_part_of_the_chat(boss: Client, chat: ChatHistory) -> None:
    """The page of a turn shows its own steps and calls and no others."""
    turn = chat.turns.get(number=2)
    text = boss.get(reverse("admin:llm_wrapper_turn_change", args=[turn.pk])).content.decode()
    assert "Yes please" in text
    assert "Why was I charged twice?" not in text


def test_a_step_opens_in_its_chat(boss: Client, chat: ChatHistory) -> None:
    """A step found in the list leads to its place in the conversation."""
    step = chat.messages.get(thumb=-1)
    response = boss.get(reverse("admin:llm_wrapper_message_change", args=[step.pk]), follow=True)
    assert response.redirect_chain[-1][0].endswith(f"#step-{step.position}")
    assert f'id="step-{step.position}"' in response.content.decode()


def test_steps_are_found_by_thumb(boss: Client, chat: ChatHistory) -> None:
    """Answers that users disliked can be listed."""
    text = boss.get(reverse("admin:llm_wrapper_message_changelist"), {"thumb__exact": -1}).content.decode()
    assert "I cannot refund it myself" in text
    assert "You were charged" not in text


def test_malformed_payloads_are_shown_and_break_nothing(boss: Client) -> None:
    """A step whose payload came from an odd provider does not take the page down."""
    talk = rows.Conversation()
    talk.open("go")
    for payload in (
        {"tool_calls": "x"},
        {"tool_calls": [1, {}, {"function": "f"}, {"id": None, "function": {"name": None, "arguments": {"a": 1}}}]},
        {"tool_call_id": ["x"]},
    ):
        talk.step("assistant", "text", payload=payload)
        talk.step("tool", "text", payload=payload)
    talk.close()
    assert "calls" in page(boss, talk.chat)
