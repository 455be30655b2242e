from __future__ import annotations

import pytest

from llm_wrapper.errors import TemplateInvalid, ToolDefinitionError
from llm_wrapper.types import PromptSpec, ToolSpec
from llm_wrapper.validation import api_errors, at_line, by_field, prompt_errors, prompt_spec, tool_errors


def texts(errors: dict[str, list[object]]) -> dict[str, list[str]]:
    return {field: [text for error in found for text in error.messages] for field, found in errors.items()}  # type: ignore[attr-defined]


def test_a_prompt_that_is_right_has_no_errors() -> None:
    """Nothing is said against a prompt that works, given as a value or as the data of a form."""
    assert prompt_errors(PromptSpec(name="a", system="Hello {{ name }}", user="{{ user_msg }}")) == {}
    assert prompt_errors({"name": "a", "system_prompt_template": "Hello {{ name }}"}) == {}


def test_errors_of_a_prompt_stand_at_their_fields() -> None:
    """Each error is at the model field it concerns and says the line once, also as a parameter."""
    found = prompt_errors(
        {
            "system_prompt_template": "a\n\n{{ b",
            "initial_messages_templates": [{"role": "user", "content": "a"}, {"role": "user", "content": "\n{{"}],
            "required_kwargs": ["not a name"],
        }
    )
    assert found.keys() == {"system_prompt_template", "initial_messages_templates", "required_kwargs"}
    assert found["system_prompt_template"][0].params == {"line": 3}
    said = texts(found)
    assert said["system_prompt_template"][0].startswith("line 3: ")
    assert "system_prompt_template" not in said["system_prompt_template"][0]
    assert said["initial_messages_templates"][0].startswith("entry 2, line 2: ")
    assert found["initial_messages_templates"][0].params == {"line": None}


def test_missing_form_fields_count_as_empty() -> None:
    """The data of a form in which other fields failed can be checked all the same."""
    assert prompt_spec({"name": None, "required_kwargs": None}) == PromptSpec(name="")


def test_errors_of_a_tool_stand_at_their_fields() -> None:
    """A tool's errors are at the model field they concern."""
    found = tool_errors(ToolSpec(name="a", code="def f(:", spec={"name": "f"}))
    assert texts(found)["tool_code"][0].startswith("line 1: ")


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("It is wrong.", None, ["It is wrong."]),
        ("It is wrong.", 4, ["line 4: It is wrong."]),
        ("Line 4: It is wrong.", 4, ["line 4: It is wrong."]),
        ("Line 1: A. Line 12: B.", 1, ["line 1: A.", "line 12: B."]),
        ("No function. Line 3: B.", None, ["No function.", "line 3: B."]),
    ],
)
def test_one_error_that_tells_several_is_taken_apart(text: str, line: int | None, expected: list[str]) -> None:
    """Each problem of a tool's code is an error of its own with its own line."""
    assert texts(by_field([ToolDefinitionError(text, line=line)]))["tool_code"] == expected


def test_percent_signs_in_a_message_do_no_harm() -> None:
    """A message that quotes a template with percent signs is shown as it is."""
    assert at_line("unexpected %(line)s and 100%", 2).messages == ["line 2: unexpected %(line)s and 100%"]
    error = TemplateInvalid("user_prompt_template, line 1: {% x %}", field="user_prompt_template", line=1)
    assert texts(by_field([error])) == {"user_prompt_template": ["line 1: {% x %}"]}


@pytest.mark.parametrize(
    "name",
    [
        "user",
        "user_id",
        "userid",
        "USER_ID",
        "current_user",
        "username",
        "account_id",
        "customer_key",
        "tenant",
        "email",
        "session_id",
        "is_staff",
        "roles",
        "permission",
        "organisation_id",
    ],
)
def test_callers_of_the_api_never_say_who_they_are(name: str) -> None:
    """A variable that says who the user is cannot be opened to callers of the API, who could claim to be another."""
    found = api_errors(["plan", name])
    assert list(found) == ["api_context_vars"]
    assert repr(name) in texts(found)["api_context_vars"][0]
    assert "LLM_WRAPPER_API_CONTEXT" in texts(found)["api_context_vars"][0]


def test_other_variables_may_be_opened_to_callers() -> None:
    """Names that only look a little like it are fine."""
    assert api_errors(["plan", "question", "order_id", "language", "user_message", "customer_language", "usage"]) == {}
    assert api_errors([]) == {}
