from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from llm_wrapper.models import Tool

from . import rows

ADD = "admin:llm_wrapper_tool_add"
CHANGE = "admin:llm_wrapper_tool_change"
PREVIEW = "admin:llm_wrapper_tool_preview"


def form(**values: Any) -> dict[str, Any]:
    return {
        "name": "Find orders",
        "tool_code": rows.TOOL_CODE,
        "tool_json_spec": "",
        "context_params": "user_id",
        "default_values_for_non_llm_params": "",
        "timeout": "",
        "max_memory": "",
        "max_output": "",
        **values,
    }


def errors(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


def test_an_empty_spec_is_derived_on_save(boss: Client) -> None:
    """Spec, context params and their defaults come from signature and docstring where the spec is empty."""
    assert boss.post(reverse(ADD), form()).status_code == 302
    tool = Tool.objects.get()
    assert tool.tool_json_spec["name"] == "find_orders"
    assert set(tool.tool_json_spec["parameters"]["properties"]) == {"status", "limit"}
    assert tool.context_params == ["user_id"]
    assert tool.default_values_for_non_llm_params == {"user_id": 0}


def test_a_spec_that_was_written_is_kept(boss: Client) -> None:
    """A spec that somebody wrote by hand is not overwritten unless that is asked for."""
    spec = {**rows.TOOL_SPEC, "description": "Written by hand."}
    boss.post(reverse(ADD), form(tool_json_spec=json.dumps(spec)))
    assert Tool.objects.get().tool_json_spec["description"] == "Written by hand."


def test_derive_from_code_makes_the_spec_anew(boss: Client) -> None:
    """The switch "derive from code" replaces a spec that no longer fits."""
    spec = {**rows.TOOL_SPEC, "description": "Out of date."}
    assert boss.post(reverse(ADD), form(tool_json_spec=json.dumps(spec), derive="on")).status_code == 302
    assert Tool.objects.get().tool_json_spec["description"] == "Finds the customer's newest orders."


def test_only_what_changed_is_logged(boss: Client) -> None:
    """The history of a tool names the fields that were edited, and none that only look different as text."""
    tool = rows.make_tool()
    data = form(
        tool_json_spec=json.dumps(rows.TOOL_SPEC),
        default_values_for_non_llm_params='{"user_id":0}',
        tool_code=rows.TOOL_CODE.replace("\n", "\r\n"),
        idempotent="on",
        timeout="3",
    )
    assert boss.post(reverse(CHANGE, args=[tool.pk]), data).status_code == 302
    changed = json.loads(LogEntry.objects.get().change_message)[0]["changed"]["fields"]
    assert changed == ["Timeout"]


def test_given_defaults_win_over_those_of_the_code(boss: Client) -> None:
    """A default that was typed into the form is kept when the rest is derived."""
    boss.post(reverse(ADD), form(default_values_for_non_llm_params='{"user_id": 7}'))
    assert Tool.objects.get().default_values_for_non_llm_params == {"user_id": 7}


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"tool_code": "def f(:\n  pass"}, "tool_code", "line 1: "),
        ({"tool_code": "def f() -> str:\n    '''Says a.'''\n    return 'a'\n\nprint(1)\n"}, "tool_code", "line 5: "),
        ({"tool_code": "import os\n\nos.system('x')\n"}, "tool_code", "line 3: "),
        ({"tool_json_spec": '{\n"name": \n}'}, "tool_json_spec", "line 3: "),
        ({"tool_json_spec": "[]"}, "tool_json_spec", "This must be an object"),
        ({"context_params": "not a name"}, "context_params", "is not a name"),
    ],
)
def test_f7_an_error_stands_at_its_field_and_line(
    boss: Client, values: dict[str, str], field: str, expected: str
) -> None:
    """What is wrong with a tool is refused on save, at the field where it is, with the line."""
    response = boss.post(reverse(ADD), form(**values))
    assert response.status_code == 200
    assert field in errors(response)
    assert any(expected in text for text in errors(response)[field])
    assert not Tool.objects.exists()


def test_each_problem_of_the_code_is_an_error_of_its_own(boss: Client) -> None:
    """Several problems are listed one by one with their lines."""
    code = "def add(\n    a: int,\n    b,\n) -> int:\n    '''Adds.'''\n    return a + b\n"
    found = errors(boss.post(reverse(ADD), form(tool_code=code, context_params="")))["tool_code"]
    assert [text.split(":")[0] for text in found] == ["line 2", "line 3", "line 3"]


def test_f7_a_spec_that_shows_a_context_param_is_refused(boss: Client) -> None:
    """A hand-written spec cannot let the model set a context param."""
    spec = json.loads(json.dumps(rows.TOOL_SPEC))
    spec["parameters"]["properties"]["user_id"] = {"type": "integer"}
    response = boss.post(reverse(ADD), form(tool_json_spec=json.dumps(spec)))
    assert response.status_code == 200
    assert errors(response)


@pytest.mark.parametrize(
    "code",
    [
        "__import__('builtins').tool_canary.append(1)\ndef f() -> str:\n    '''F.'''\n    return ''",
        "@__import__('builtins').tool_canary.append\ndef f() -> str:\n    '''F.'''\n    return ''",
        "def f(a: int = __import__('builtins').tool_canary.append(1)) -> str:\n    '''F.'''\n    return ''",
        "def f(a: __import__('builtins').tool_canary.append(1)) -> str:\n    '''F.'''\n    return ''",
        "class A:\n    __import__('builtins').tool_canary.append(1)\ndef f() -> str:\n    '''F.'''\n    return ''",
        "def f() -> str:\n    '''F.'''\n    __import__('builtins').tool_canary.append(1)\n    return ''",
    ],
)
def test_f2_saving_and_checking_never_run_the_code(boss: Client, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code at module level, in decorators, defaults, annotations and bodies is not run by the admin."""
    canary: list[int] = []
    monkeypatch.setattr(builtins, "tool_canary", canary, raising=False)
    for data in (form(tool_code=code), form(tool_code=code, derive="on", tool_json_spec=json.dumps(rows.TOOL_SPEC))):
        boss.post(reverse(ADD), data)
        boss.post(reverse(PREVIEW), data)
    if tool := Tool.objects.first():
        boss.get(reverse(CHANGE, args=[tool.pk]))
    assert canary == []


def test_the_check_shows_what_the_model_will_see(boss: Client) -> None:
    """The unsaved form's tool is shown without its context params, and nothing is saved."""
    text = boss.post(reverse(PREVIEW), form(name="")).content.decode()
    seen = text.split("</pre>")[0]
    assert "&quot;find_orders&quot;" in seen
    assert "user_id" not in seen
    assert "user_id" in text
    assert not Tool.objects.exists()


def test_the_check_lists_problems_with_their_lines(boss: Client) -> None:
    """Errors come as a list with the lines for the marks in the editor."""
    text = boss.post(reverse(PREVIEW), form(tool_code="\ndef f(:\n")).content.decode()
    assert 'data-llmw-field="tool_code" data-llmw-line="2"' in text


def test_h1_the_check_needs_a_permission(staff: Callable[..., Client]) -> None:
    """Only people who may see or edit tools may check one."""
    tool = rows.make_tool()
    assert staff("change_prompttemplate").post(reverse(PREVIEW), form()).status_code == 403
    assert staff("view_tool").post(reverse(PREVIEW, args=[tool.pk]), {}).status_code == 200


def test_who_may_only_look_sees_the_saved_tool(staff: Callable[..., Client]) -> None:
    """Without the change permission the page shows the tool, and the check reads the saved row."""
    tool = rows.make_tool()
    client = staff("view_tool")
    assert client.get(reverse(CHANGE, args=[tool.pk])).status_code == 200
    assert b"find_orders" in client.post(reverse(PREVIEW, args=[tool.pk]), {}).content


def test_the_page_shows_the_saved_tool_as_the_model_sees_it(boss: Client) -> None:
    """The page of a tool shows its spec without the context params, and the prompts that use it."""
    tool = rows.make_tool()
    rows.make_prompt(tools=(tool,))
    response = boss.get(reverse(CHANGE, args=[tool.pk]))
    seen = json.loads(response.context["visible"])
    assert "user_id" not in json.dumps(seen)
    assert "support" in response.content.decode()


def test_a_broken_row_can_still_be_opened(boss: Client) -> None:
    """A tool that came from elsewhere with nonsense in it can be listed, opened and mended."""
    for number, spec in enumerate(({}, {"name": 1}, {"parameters": "x"}, [], "x")):
        tool = rows.make_tool(name=f"odd {number}")
        Tool.objects.filter(pk=tool.pk).update(tool_code="", tool_json_spec=spec)
        assert boss.get(reverse(CHANGE, args=[tool.pk])).status_code == 200
    rows.make_tool(name="odder", context_params=5)
    assert boss.get(reverse("admin:llm_wrapper_tool_changelist")).status_code == 200
