"""The admin in a real browser. The fixture `tab` asserts that no request leaves the site and no script fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_wrapper.models import PromptTemplate, Tool
from tests.admin import rows

from .conftest import Tab

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

CONFIGS = {
    "azure-gpt": "llm_config_class: OpenAIConfig\nmodel_name: gpt-4.1-mini\napi_key: not-a-key\nweight: 2\n",
    "local-llama": "llm_config_class: OpenAICompatibleConfig\nmodel_name: llama\nendpoint: http://localhost:8000/v1\n",
}


@pytest.fixture(autouse=True)
def config_files(settings: Any, tmp_path: Path) -> None:
    for name, text in CONFIGS.items():
        (tmp_path / f"{name}.yml").write_text(f"name: {name}\n{text}")
    settings.LLM_CONFIGS_PATH = tmp_path


@pytest.fixture
def prompt(transactional_db: None) -> PromptTemplate:
    prompt = rows.make_prompt(tools=(rows.make_tool(),), configs=("azure-gpt", "local-llama"))
    prompt.current_version()
    return prompt


def change(obj: Any) -> str:
    return f"/admin/llm_wrapper/{obj._meta.model_name}/{obj.pk}/change/"


def test_the_preview_shows_the_unsaved_prompt(tab: Tab, prompt: PromptTemplate) -> None:
    """Preview renders what the editors hold now, beside them, and saves nothing."""
    tab.open(change(prompt))
    tab.write("system_prompt_template", rows.SYSTEM + "\nToday is {{ day }}.")
    tab.page.fill("#llmw-context", '{\n  "plan": "pro",\n  "day": "Friday"\n}')
    tab.page.fill("#llmw-message", "Why was I charged twice?")
    tab.page.click("[data-llmw-preview]")
    tab.page.wait_for_selector("#llmw-preview article")
    assert "Today is Friday." in tab.page.inner_text("#llmw-preview")
    assert "Customer: Why was I charged twice?" in tab.page.inner_text("#llmw-preview")
    tab.photograph("prompt")
    tab.page.fill("#llmw-message", "<img src=https://evil.example/x.png onerror=alert(1)>")
    tab.page.click("[data-llmw-preview]")
    tab.page.wait_for_selector("#llmw-preview >> text=evil.example")
    prompt.refresh_from_db()
    assert "Today" not in prompt.system_prompt_template


def test_errors_are_marked_at_their_lines(tab: Tab, prompt: PromptTemplate) -> None:
    """A template that does not parse is marked at its line by the preview and by saving, until it is mended."""
    tab.open(change(prompt))
    tab.write("system_prompt_template", "Hello\n\n{{ plan")
    tab.page.click("[data-llmw-preview]")
    tab.page.wait_for_selector("#llmw-preview .llmw-error")
    tab.wait_for_marks("system_prompt_template", [3])
    tab.page.click("[name=_continue]")
    tab.page.wait_for_selector("text=Please correct the error")
    tab.wait_for_marks("system_prompt_template", [3])
    tab.write("system_prompt_template", "Hello {{ plan }}")
    tab.page.click("[data-llmw-preview]")
    tab.page.wait_for_selector("#llmw-preview article")
    tab.page.click("[name=_continue]")
    tab.page.wait_for_selector("text=was changed successfully")
    prompt.refresh_from_db()
    assert prompt.system_prompt_template == "Hello {{ plan }}"


def test_a_version_is_restored(tab: Tab, prompt: PromptTemplate) -> None:
    """An older version comes back through the form with two clicks."""
    prompt.system_prompt_template = "Something else."
    prompt.save()
    prompt.current_version()
    tab.open(change(prompt))
    tab.page.click("text=Restore")
    tab.page.wait_for_selector("text=is in the form and not saved yet")
    tab.page.click("[name=_continue]")
    tab.page.wait_for_selector("text=was changed successfully")
    prompt.refresh_from_db()
    assert prompt.system_prompt_template == rows.SYSTEM
    tab.open(change(prompt.versions.get(number=2)))
    tab.photograph("version", height=800)


def test_a_tool_is_checked_and_derived(tab: Tab, prompt: PromptTemplate) -> None:
    """A new tool is typed in as code; the check shows what the model will see, and saving fills the spec."""
    tab.open("/admin/llm_wrapper/tool/add/")
    tab.page.fill("[name=name]", "Orders by status")
    tab.page.fill("[name=context_params]", "user_id")
    tab.write("tool_code", "def find_orders(status):\n    return []\n")
    tab.page.click("text=Check")
    tab.page.wait_for_selector("#llmw-preview .llmw-error")
    tab.wait_for_marks("tool_code", [1])
    tab.write("tool_code", rows.TOOL_CODE)
    tab.page.click("text=Check")
    tab.page.wait_for_selector("#llmw-preview pre")
    assert "user_id" not in tab.page.inner_text("#llmw-preview pre")
    tab.page.click("[name=_continue]")
    tab.page.wait_for_selector("text=was added successfully")
    assert Tool.objects.get(name="Orders by status").tool_json_spec["name"] == "find_orders"
    tab.page.evaluate("window.scrollTo(0, 0)")
    tab.photograph("tool")


@pytest.mark.parametrize("tab", ["dark"], indirect=True)
def test_editors_follow_the_dark_theme(tab: Tab, prompt: PromptTemplate) -> None:
    """In the dark the editors are dark too."""
    tab.open(change(prompt))
    tab.page.wait_for_selector(".ace-github-dark")
    assert tab.page.query_selector(".ace-github-light-default") is None
    tab.photograph("prompt-dark")


def test_chats_and_calls_are_shown(tab: Tab, prompt: PromptTemplate) -> None:
    """Every page of a conversation loads from this site alone, and text of a model stays text."""
    chat = rows.support_chat(prompt, rows.make_user("grace"))
    evil = chat.messages.get(thumb=-1)
    evil.text += "<script>alert(1)</script> ![x](https://evil.example/x.png)<img src=https://evil.example/y.png>"
    evil.save()
    call = chat.turns.get(number=1).llm_calls.get(attempt=3)
    tab.open(change(chat))
    assert "<script>alert(1)</script>" in tab.page.inner_text(f"#step-{evil.position}")
    evil.text = evil.text.partition("<")[0]
    evil.save()
    tab.open(change(chat))
    tab.photograph("chat", height=1500)
    tab.page.click("text=azure-gpt >> nth=0")
    tab.page.wait_for_url("**/llmcall/**")
    tab.open(change(call))
    tab.photograph("llm-call", height=1100)
    for model in ("chathistory", "turn", "message", "llmcall", "toolcall", "promptversion", "llmconfigname"):
        tab.open(f"/admin/llm_wrapper/{model}/")
        assert "Server Error" not in tab.page.inner_text("body")
        if model == "llmcall":
            tab.photograph("llm-calls", height=620)
    tab.open("/admin/llm_wrapper/llmconfigname/azure-gpt/change/")
    tab.photograph("config", height=620)


def test_a_chat_that_outgrew_its_window_is_told(tab: Tab, prompt: PromptTemplate) -> None:
    """Summaries stand across the conversation, answers that were given anew are dimmed, and a click on what a call left
    out leads to those messages; the prompt's form has the budget in a part of its own."""
    chat = rows.long_support_chat(prompt)
    tab.open(change(chat))
    assert "summary of all up to step" in tab.page.inner_text(".llmw-chat").lower()
    tab.photograph("long-chat", height=2200)
    tab.open(change(chat.turns.get(number=5).llm_calls.get()))
    tab.photograph("call-left-out")
    tab.page.click("text=6 messages before step")
    tab.page.wait_for_selector("text=Question 1")
    tab.open(change(prompt))
    assert "Context budget" in tab.page.content()
    tab.page.locator("text=Context budget").first.scroll_into_view_if_needed()
    tab.photograph("prompt-budget", height=1600)
