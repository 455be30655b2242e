from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.configs import cool
from llm_wrapper.models import LLMConfigName

from . import rows

LIST = "admin:llm_wrapper_llmconfigname_changelist"


@pytest.fixture(autouse=True)
def names(db: None) -> None:
    LLMConfigName.objects.bulk_create(LLMConfigName(name=name) for name in ("azure-gpt", "gone"))


def page(client: Client, name: str) -> str:
    return client.get(reverse("admin:llm_wrapper_llmconfigname_change", args=[name])).content.decode()


def test_i5_the_yaml_is_shown_without_the_key(boss: Client) -> None:
    """The page of a config shows class, model and values of its file, and never a secret."""
    text = page(boss, "azure-gpt")
    for expected in ("AzureOpenAILLMConfig", "azure/gpt-4.1-mini", "enabled", "api_key: set", "weight: 2"):
        assert expected in text, expected
    assert "sk-canary" not in text
    assert b"sk-canary" not in boss.get(reverse(LIST)).content


def test_i5_a_broken_file_is_shown_without_its_values(boss: Client, config_files: Path) -> None:
    """The problems of a file name key and reason, and quote nothing of the file."""
    (config_files / "gone.yml").write_text("name: gone\nllm_config_class: OpenAIConfig\napi_key: [sk-canary-4712]\n")
    for text in (page(boss, "gone"), boss.get(reverse(LIST)).content.decode()):
        assert "gone.yml" in text
        assert "sk-canary" not in text
        assert "broken" in text


def test_a_cooling_config_says_for_how_long_and_why(boss: Client) -> None:
    """A config that rests is marked in the list and on its page."""
    cool("azure-gpt", retry_after=90, reason="rate_limited")
    assert "cooling" in boss.get(reverse(LIST)).content.decode()
    assert "after: rate_limited" in page(boss, "azure-gpt")


def test_a_name_without_a_file_is_marked(boss: Client) -> None:
    """A name that no file holds is shown as such and breaks no page."""
    assert "no file" in page(boss, "gone")
    assert "no file" in boss.get(reverse(LIST)).content.decode()


def test_files_without_a_row_are_pointed_out(boss: Client, config_files: Path) -> None:
    """A new file that no prompt can choose yet is named, with what to do."""
    (config_files / "fresh.yml").write_text("name: fresh\nllm_config_class: DemoConfig\n")
    text = boss.get(reverse(LIST)).content.decode()
    assert "Not in this list yet: fresh" in text


def test_the_prompts_of_a_config_are_listed(boss: Client) -> None:
    """The page of a config shows who uses it."""
    rows.make_prompt(configs=("azure-gpt",))
    assert "support" in page(boss, "azure-gpt")


def test_a_name_can_be_deleted_and_no_file_is(boss: Client, config_files: Path) -> None:
    """Deleting a name that is no longer wanted leaves the files alone."""
    url = reverse("admin:llm_wrapper_llmconfigname_delete", args=["azure-gpt"])
    assert boss.post(url, {"post": "yes"}).status_code == 302
    assert not LLMConfigName.objects.filter(name="azure-gpt").exists()
    assert (config_files / "azure-gpt.yml").exists()
