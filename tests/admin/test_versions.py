from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.admin.versions import MAX_DIFF_LINES, changes, diff_lines
from llm_wrapper.models import PromptTemplate, PromptVersion

from . import rows

CHANGE = "admin:llm_wrapper_promptversion_change"


@pytest.fixture
def versions(db: None) -> list[PromptVersion]:
    prompt = rows.make_prompt(tools=(rows.make_tool(),), system_prompt_template="one\ntwo\nthree")
    first = prompt.current_version()
    prompt.system_prompt_template = "one\n2 <b>\nthree"
    prompt.model_params = {}
    prompt.save()
    return [first, prompt.current_version()]


def test_a_version_shows_its_content_and_what_changed(boss: Client, versions: list[PromptVersion]) -> None:
    """The page of a version can be read as a whole, and shows the lines that differ from the one before."""
    response = boss.get(reverse(CHANGE, args=[versions[1].pk]))
    text = response.content.decode()
    assert '<span class="llmw-drop">two</span>' in text
    assert '<span class="llmw-add">2 &lt;b&gt;</span>' in text
    assert [change.label for change in response.context["changes"]] == ["System prompt template", "Model parameters"]
    assert "def find_orders" in text


def test_the_first_version_has_nothing_to_compare_with(boss: Client, versions: list[PromptVersion]) -> None:
    """The first version is shown without changes."""
    assert "Changes since" not in boss.get(reverse(CHANGE, args=[versions[0].pk])).content.decode()


def test_a_changed_tool_is_a_change_of_the_prompt(versions: list[PromptVersion]) -> None:
    """An edit of a tool's code appears among the changes of the version that it made."""
    tool = rows.Tool.objects.get()
    tool.tool_code = tool.tool_code.replace("orders = [", "orders = []\n    others = [")
    tool.save()
    newest = PromptTemplate.objects.get().current_version()
    assert [change.label for change in changes(versions[1].content, newest.content)] == ["Tool Find orders"]


def test_long_texts_are_not_compared(db: None) -> None:
    """A comparison that would take too long is left out and says so."""
    kind, text = diff_lines("a\n" * MAX_DIFF_LINES, "b")[0]
    assert kind == "gap"
    assert "Too long" in text


def test_a_difference_of_line_ends_only_is_named(db: None) -> None:
    """Texts that differ in what no line shows are still told apart."""
    assert diff_lines("a\n", "a") == [("gap", "Only blanks or line ends differ.")]


def test_a_version_outlives_its_template(boss: Client, versions: list[PromptVersion]) -> None:
    """The version that a call used can be read after its prompt was deleted."""
    PromptTemplate.objects.all().delete()
    text = boss.get(reverse(CHANGE, args=[versions[1].pk])).content.decode()
    assert "support (deleted)" in text
    assert "Restore into the form" not in text


def test_who_sees_prompts_sees_their_versions(versions: list[PromptVersion], staff: Callable[..., Client]) -> None:
    """The permission to view prompts opens their versions, and restoring needs the one to change them."""
    url = reverse(CHANGE, args=[versions[0].pk])
    viewer = staff("view_prompttemplate").get(url)
    assert viewer.status_code == 200
    assert b"Restore into the form" not in viewer.content
    assert b"Restore into the form" in staff("change_prompttemplate").get(url).content


def test_the_list_of_versions_is_filtered_by_prompt(boss: Client, versions: list[PromptVersion]) -> None:
    """The link "all versions" of a prompt lists its own versions only."""
    other = rows.make_prompt(name="other")
    other.current_version()
    url = reverse("admin:llm_wrapper_promptversion_changelist")
    response = boss.get(url, {"prompt_template__id__exact": other.pk})
    assert response.context["cl"].result_count == 1
