from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.models import (
    ChatHistory,
    LLMCall,
    LLMConfigName,
    Message,
    PromptTemplate,
    PromptVersion,
    Tool,
    ToolCall,
    Turn,
)

from . import rows

MODELS = (ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, PromptVersion, Tool, ToolCall, Turn)
READ_ONLY = (LLMCall, LLMConfigName, Message, PromptVersion, ToolCall, Turn, ChatHistory)


@pytest.fixture
def chat(db: None) -> ChatHistory:
    return rows.support_chat(rows.make_prompt(tools=(rows.make_tool(),), configs=("azure-gpt",)))


def pages(model: Any) -> dict[str, str]:
    name, obj = model._meta.model_name, model.objects.first()
    urls = {page: reverse(f"admin:llm_wrapper_{name}_{page}") for page in ("changelist", "add")}
    for page in ("change", "delete", "history"):
        urls[page] = reverse(f"admin:llm_wrapper_{name}_{page}", args=[obj.pk])
    if model is LLMCall:
        urls["sent"] = reverse("admin:llm_wrapper_llmcall_sent", args=[obj.pk])
    return urls


@pytest.mark.parametrize("model", MODELS)
def test_h1_staff_without_permission_see_no_page(model: Any, chat: ChatHistory, staff: Callable[..., Client]) -> None:
    """A member of staff without a model's permissions gets 403 from each of its pages."""
    client = staff()
    assert {page: client.get(url).status_code for page, url in pages(model).items()} == dict.fromkeys(pages(model), 403)


@pytest.mark.parametrize("model", MODELS)
def test_h1_people_who_are_not_staff_are_sent_to_the_login(model: Any, chat: ChatHistory, client: Client) -> None:
    """Without a login no page of the admin answers with anything but the way to the login."""
    for url in pages(model).values():
        assert "/login/" in client.get(url).headers["Location"]


@pytest.mark.parametrize("model", READ_ONLY)
def test_what_the_runtime_writes_is_read_only(model: Any, chat: ChatHistory, boss: Client) -> None:
    """Nobody, not even a superuser, adds or changes the rows that tell what happened."""
    urls = pages(model)
    assert boss.get(urls["add"]).status_code == 403
    assert boss.post(urls["add"], {}).status_code == 403
    assert boss.post(urls["change"], {}).status_code == 403
    before = model.objects.count()
    if model not in (ChatHistory, LLMConfigName):
        assert boss.post(urls["delete"], {"post": "yes"}).status_code == 403
    assert model.objects.count() == before


@pytest.mark.parametrize("model", MODELS)
def test_view_permission_opens_list_and_page(model: Any, chat: ChatHistory, staff: Callable[..., Client]) -> None:
    """The view permission of a model is enough to read its list and its rows."""
    client, urls = staff(f"view_{model._meta.model_name}"), pages(model)
    assert client.get(urls["changelist"]).status_code == 200
    assert client.get(urls["change"], follow=model is not Message).status_code in (200, 302)


@pytest.mark.parametrize("model", MODELS)
def test_each_list_sorts_searches_and_filters(model: Any, chat: ChatHistory, boss: Client) -> None:
    """Every column that offers to sort does so, and search and filters answer."""
    url = pages(model)["changelist"]
    columns = len(boss.get(url, {"q": "100%"}).context["cl"].list_display)
    for column in range(columns):
        assert boss.get(url, {"o": f"-{column}"}).status_code == 200


@pytest.mark.parametrize("model", [Tool, PromptTemplate])
@pytest.mark.parametrize("way", ["add", "change", "delete"])
def test_f1_each_way_to_write_needs_its_own_permission(
    model: Any, way: str, chat: ChatHistory, staff: Callable[..., Client]
) -> None:
    """Staff with all permissions of a model but one cannot do what that one allows."""
    name = model._meta.model_name
    others = {"add", "change", "delete", "view"} - {way}
    client, before = staff(*(f"{other}_{name}" for other in sorted(others))), list(model.objects.values())
    data = {"name": "taken over", "tool_code": "x", "post": "yes"}
    assert client.post(pages(model)[way], data).status_code == 403
    assert list(model.objects.values()) == before


@pytest.mark.parametrize("model", [Tool, PromptTemplate])
def test_f1_a_copy_is_an_addition(model: Any, chat: ChatHistory, staff: Callable[..., Client]) -> None:
    """The change permission does not make new rows by the way of "save as new"."""
    name = model._meta.model_name
    client = staff(f"change_{name}", f"view_{name}")
    data = {"name": "taken over", "tool_code": "x", "_saveasnew": "1"}
    assert client.post(pages(model)["change"], data).status_code == 403
