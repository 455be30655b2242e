"""The admin of a project that has neither unfold nor django_ace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SITE = """
from example.test_settings import *
INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("unfold", "django_ace")]
LANGUAGE_CODE = "en"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

VISIT = """
import sys
import django

django.setup()
# From here on neither may be needed.
assert not {"unfold", "django_ace"} & {name.partition(".")[0] for name in sys.modules}

from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import reverse

setup_test_environment()
call_command("migrate", verbosity=0)

from llm_wrapper.models import (
    ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, PromptVersion, Tool, ToolCall, Turn
)
from tests.admin import rows

client = Client()
client.force_login(rows.make_user("boss", superuser=True))
prompt = rows.make_prompt(tools=(rows.make_tool(),), configs=("demo",))
rows.support_chat(prompt)
for model in (ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, PromptVersion, Tool, ToolCall, Turn):
    name = f"admin:llm_wrapper_{model._meta.model_name}"
    for url in (reverse(name + "_changelist"), reverse(name + "_change", args=[model.objects.first().pk])):
        response = client.get(url, follow=True)
        assert response.status_code == 200, (url, response.status_code)
text = client.get(reverse("admin:llm_wrapper_prompttemplate_change", args=[prompt.pk])).content.decode()
assert '<textarea name="system_prompt_template"' in text
assert "llm_wrapper/admin.css" in text and "data-llmw-preview" in text
text = client.get(reverse("admin:llm_wrapper_chathistory_change", args=[1])).content.decode()
assert "Delete chat" in text and "You were charged 39.00 twice" in text
text = client.get(reverse("admin:llm_wrapper_llmcall_costs")).content.decode()
assert "Cost by model" in text and "llmw-chart-day" in text
data = {"name": "Again", "tool_code": rows.TOOL_CODE, "context_params": "user_id"}
assert client.post(reverse("admin:llm_wrapper_tool_add"), data).status_code == 302
print("visited")
"""


def test_the_admin_works_without_unfold_and_ace(tmp_path: Path) -> None:
    """All pages work in Django's own admin with plain text areas."""
    (tmp_path / "plain_site.py").write_text(SITE)
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", VISIT],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]),
            "DJANGO_SETTINGS_MODULE": "plain_site",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "visited" in result.stdout, result.stderr[-3000:]
