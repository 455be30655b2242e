"""What is said of a prompt before anything is rendered."""

from __future__ import annotations

from typing import Any

import pytest

from llm_wrapper.errors import MissingContextVariables, TemplateInvalid
from llm_wrapper.prompts import check, referenced, render_initial, require, required
from llm_wrapper.types import PromptSpec


def problems(**fields: Any) -> list[tuple[str, int | None, str]]:
    return [(problem.field, problem.line, str(problem)) for problem in check(PromptSpec("p", **fields))]


def test_a_good_prompt_has_no_problems() -> None:
    """A prompt with every field in use passes."""
    assert not problems(
        system="You help {{ name|default('you') }}.",
        user="{{ user_msg }} / {{ message|upper }} {{ lang }}",
        initial_messages=({"role": "assistant", "content": "Hi {{ name }}"}, {"role": "user", "content": ""}),
        required_kwargs=("question",),
        logged_context_vars=["plan"],
    )


def test_all_problems_are_told_at_once() -> None:
    """Every field is checked, and each problem says where it is."""
    found = problems(
        system="ok\n{{ x|nope }}\n{% include 'y' %}{{ 1 is odder }}",
        user="{{ unclosed",
        initial_messages=({"role": "tool", "content": 5}, {"role": "user", "content": "\n{{ x|attr('y') }}"}),
        required_kwargs=("2x",),
        logged_context_vars="plan",
    )
    assert [(field, line) for field, line, _ in found] == [
        ("system_prompt_template", 2),
        ("system_prompt_template", 3),
        ("system_prompt_template", 3),
        ("initial_messages_templates", None),
        ("initial_messages_templates", None),
        ("initial_messages_templates", 2),
        ("user_prompt_template", 1),
        ("required_kwargs", None),
        ("logged_context_vars", None),
    ]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (None, "Must be a list"),
        ("text", "Must be a list"),
        ({"role": "user", "content": "x"}, "Must be a list"),
        (["text"], r"\[0\]: Must be"),
        ([None], r"\[0\]: Must be"),
        ([{"role": "tool", "content": "x"}], "role must be assistant or user"),
        ([{"role": "system", "content": "x"}], "role must be assistant or user"),
        ([{"role": ["user"], "content": "x"}], "role must be assistant or user"),
        ([{"content": "x"}], "role must be assistant or user"),
        ([{"role": "user"}], "content must be text"),
        ([{"role": "user", "content": 5}], "content must be text"),
        ([{"role": "user", "content": ["x"]}], "content must be text"),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "content": None}],
            r"\[1\]: The content must be text",
        ),
        ([{"role": "user", "content": "x", "name": "y"}], "Takes only role and content, not name"),
        ([{"role": "user", "content": "{{ x"}], r"\[0\], line 1"),
        ([{"role": "user", "content": "{% extends 'x' %}"}], "extends"),
    ],
)
def test_e5_bad_initial_messages_are_refused(messages: Any, says: str) -> None:
    """Initial messages of the wrong shape are a problem when checked and an error when used."""
    spec = PromptSpec("p", initial_messages=messages)
    (problem,) = check(spec)
    assert problem.field == "initial_messages_templates"
    with pytest.raises(TemplateInvalid, match=says):
        render_initial(spec, {})
    with pytest.raises(TemplateInvalid, match=says):
        require(spec, {})


@pytest.mark.parametrize("field", ["system", "user"])
@pytest.mark.parametrize("value", [None, 5, ["x"], b"x"])
def test_e5_templates_that_are_not_text_are_refused(field: str, value: Any) -> None:
    """A template of the wrong type is a problem, not a crash."""
    (found,) = problems(**{field: value})
    assert found[0] == f"{field}_prompt_template"


@pytest.mark.parametrize("names", [None, "question", {"question": 1}, [5], ["a b"], ["2x"], [""], [None], ["a-b"]])
@pytest.mark.parametrize("field", ["required_kwargs", "logged_context_vars"])
def test_e3_lists_of_names_hold_names(field: str, names: Any) -> None:
    """Names that no template and no call could use are refused."""
    found = problems(**{field: names})
    assert [name for name, _, _ in found] == [field]


@pytest.mark.parametrize(
    ("template", "names", "needed"),
    [
        ("plain", set(), set()),
        ("{{ a }} {{ b.c }} {{ d['e'] }}", {"a", "b", "d"}, {"a", "b", "d"}),
        ("{% set a = 1 %}{{ a }}", set(), set()),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}", {"xs"}, {"xs"}),
        ("{% macro m(a) %}{{ a }}{{ g }}{% endmacro %}{{ m(b) }}", {"b", "g"}, {"b", "g"}),
        ("{{ a|default('x') }}{{ b|d }}", {"a", "b"}, set()),
        ("{% if a is defined %}{{ a }}{% endif %}", {"a"}, set()),
        ("{% if a is not defined %}{% else %}{{ a }}{% endif %}", {"a"}, set()),
        ("{% if a is undefined %}{% endif %}", {"a"}, set()),
        ("{% if a.b is defined %}{% endif %}", {"a"}, {"a"}),
        ("{% if a %}{% set b = 1 %}{% endif %}{{ b }}", {"a", "b"}, {"a"}),
        ("{% if false %}{{ a }}{% endif %}", {"a"}, {"a"}),
        ("{{ range(n)|list }}{{ dict(a=b) }}", {"n", "b"}, {"n", "b"}),
        ("{{ user_msg }}{{ message }}", set(), set()),
        ("{{ 'a' * 10**9 }}{{ x }}", {"x"}, {"x"}),
    ],
)
def test_e3_names_are_found_without_rendering(template: str, names: set[str], needed: set[str]) -> None:
    """Which variables a prompt uses, and which of them it cannot do without, is read from its templates."""
    for spec in (
        PromptSpec("p", user=template),
        PromptSpec("p", initial_messages=({"role": "user", "content": template},)),
    ):
        assert referenced(spec) == names
        assert required(spec) == needed


def test_e3_a_guard_counts_in_its_own_template_only() -> None:
    """A name that one template guards and another does not is required: the other would fail without it."""
    spec = PromptSpec("p", system="{{ a|d }}{{ b|d }}", user="{{ a }}", required_kwargs=("b",))
    assert required(spec) == {"a", "b"}


def test_e3_all_missing_names_are_told_at_once() -> None:
    """The error holds every missing name, in upstream's words, and says where to pass them."""
    spec = PromptSpec("p", system="{{ c }}", user="{{ b }}{{ user_msg }}", required_kwargs=("a", "given"))
    with pytest.raises(
        MissingContextVariables, match=r"^Missing required keys: a, b, c\. Pass them for prompt p "
    ) as caught:
        require(spec, {"given": 1, "more": 2}, "prompt p")
    assert caught.value.names == ["a", "b", "c"]
    assert isinstance(caught.value, ValueError)
    require(spec, {"given": 1, "a": 0, "b": "", "c": None})


def test_e3_a_required_kwarg_is_not_none() -> None:
    """None for a name in required_kwargs counts as not given; for one that a template tests it is a value."""
    with pytest.raises(MissingContextVariables, match="question"):
        require(PromptSpec("p", required_kwargs=("question",)), {"question": None})
    require(PromptSpec("p", system="{% if x is none %}{% endif %}"), {"x": None})


def test_e3_the_message_is_known_to_the_user_template_only() -> None:
    """A system text that needs the user's message is a problem: there is none yet when it is rendered."""
    (found,) = problems(system="{{ user_msg }}")
    assert "user_msg" in found[2]
    assert not problems(system="{{ message|default('') }}", user="{{ message }}")
