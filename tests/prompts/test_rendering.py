"""Rendering: values stay values, and errors say where but never what was in a variable."""

from __future__ import annotations

import datetime as dt
import random
import traceback
from decimal import Decimal
from typing import Any

import pytest

from llm_wrapper.errors import BadContextVariable, MissingContextVariables, PromptError, TemplateFailed
from llm_wrapper.prompts import (
    logged,
    preview,
    remembered,
    render_initial,
    render_system,
    render_user,
)
from llm_wrapper.types import PromptSpec

SECRET = "s3cr3t-value"
HOSTILE = [
    "{{7*7}}",
    "{{ 7*'7' }}",
    "{% for x in range(10) %}{{ x }}{% endfor %}",
    "{% include 'x' %}",
    "{# hidden #}",
    "{% raw %}",
    "{{ '".strip(),
    "%}{{ 1 }}",
    "{{ user_msg }}",
    "${7*7} #{7*7} <%= 7*7 %> %s %(x)s {0}",
    "{{ ''.__class__ }}",
    "{%- set message = 1 -%}",
    "\\{\\{7*7\\}\\}",
    "{{{{7*7}}}}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_e4_a_message_is_never_evaluated(text: str) -> None:
    """Text of a user that looks like a template goes out as it came, in every place it can get to."""
    spec = PromptSpec(
        "p",
        system="S {{ name }}",
        user="{{ user_msg }}|{{ message }}|{{ message|upper|lower|length }}|{{ [message]|join }}|{{ name }}",
        initial_messages=({"role": "assistant", "content": "{{ name }}"},),
    )
    context = {"name": text}
    assert render_user(spec, text, context) == f"{text}|{text}|{len(text.upper().lower())}|{text}|{text}"
    assert render_user(PromptSpec("p"), text, {}) == text
    assert render_system(spec, context) == f"S {text}"
    assert render_initial(spec, context) == [{"role": "assistant", "content": text}]


def test_e4_no_mix_of_template_signs_is_evaluated() -> None:
    """Random text made of template signs is never read as a template."""
    signs = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "7*7",
        " ",
        "'",
        '"',
        "\n",
        "message",
        "|",
        "endfor",
        "raw",
        "é",
    ]
    spec, chance = PromptSpec("p", user="<{{ message }}>"), random.Random(7)
    for _ in range(300):
        text = "".join(chance.choices(signs, k=12))
        assert render_user(spec, text, {}) == f"<{text}>"


def test_e4_the_context_cannot_replace_the_message() -> None:
    """A context variable named like the message does not shadow it."""
    spec = PromptSpec("p", user="{{ user_msg }} {{ message }}")
    assert render_user(spec, "real", {"user_msg": "fake", "message": "fake"}) == "real real"


@pytest.mark.parametrize(
    ("template", "kind", "says"),
    [
        ("{{ nope }}", MissingContextVariables, "Missing required keys: nope"),
        ("{{ nope.x }}", MissingContextVariables, "nope"),
        ("{% for x in nope %}{% endfor %}", MissingContextVariables, "nope"),
        ("{% if nope %}{% endif %}", MissingContextVariables, "nope"),
        ("{{ nope + 1 }}", MissingContextVariables, "nope"),
        ("{{ 1 == nope }}", MissingContextVariables, "nope"),
        ("{{ nope|upper }}", MissingContextVariables, "nope"),
        ("{{ [nope]|join }}", MissingContextVariables, "nope"),
        ("{{ nope() }}", MissingContextVariables, "nope"),
        ("{{ xs[nope] }}", MissingContextVariables, "nope"),
        ("{{ {nope: 1} }}", MissingContextVariables, "nope"),
        ("{{ '%s' % nope }}", MissingContextVariables, "nope"),
        ("{{ nope ~ 'x' }}", MissingContextVariables, "nope"),
        ("{{ xs[nope:] }}", MissingContextVariables, "nope"),
        ("{{ message }}", TemplateFailed, "only user_prompt_template knows 'message'"),
        ("{% if not xs %}{% set y = 1 %}{% endif %}{{ y }}", TemplateFailed, "'y' is used but not set"),
        ("{{ user.nme }}", TemplateFailed, "there is no 'nme' in a value of type dict"),
        ("{{ user['nme'] }}", TemplateFailed, "there is no 'nme'"),
        ("{{ xs[9] }}", TemplateFailed, "there is no such item in a value of type list"),
        ("{{ xs|first + 1 }}{{ []|first }}", TemplateFailed, "there is no first item"),
        ("{{ 1 / 0 }}", TemplateFailed, "division by zero"),
        ("{{ 'a' + 1 }}", TemplateFailed, "concatenate"),
        ("{{ 'x'.format() }}", TemplateFailed, "use the filter"),
        ("{{ xs.append(1) }}", TemplateFailed, "not available in templates"),
        ("{{ user() }}", TemplateFailed, "cannot be called"),
        ("{{ xs|map(user.name)|list }}", TemplateFailed, "map takes the name of a filter"),
        ("{% set xs.a = 1 %}", TemplateFailed, "namespace"),
    ],
)
def test_e3_errors_name_what_is_wrong_and_where(template: str, kind: type[PromptError], says: str) -> None:
    """An error while rendering names the variable or operation, the field and the line."""
    with pytest.raises(kind, match=says) as caught:
        render_system(PromptSpec("p", system="one\ntwo\n" + template), {"xs": [1, 2], "user": {"name": 1}})
    assert "system_prompt_template, line 3" in str(caught.value)
    if isinstance(caught.value, TemplateFailed):
        assert (caught.value.field, caught.value.line) == ("system_prompt_template", 3)


def test_errors_of_initial_messages_say_which() -> None:
    """The place of an error in an initial message holds its index."""
    spec = PromptSpec(
        "p", initial_messages=({"role": "user", "content": "a"}, {"role": "user", "content": "{{ 1/0 }}"})
    )
    with pytest.raises(TemplateFailed, match=r"initial_messages_templates\[1\], line 1"):
        render_initial(spec, {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ d[key] }}",
        "{{ d[key].x }}",
        "{{ xs.index(key) }}",
        "{{ key.index('zzz') }}",
        "{{ key|int + key }}",
        "{{ key() }}",
        "{{ key.nope }}",
        "{{ key / 2 }}",
        "{{ [key]|sum }}",
        "{{ key|filesizeformat }}",
        "{{ '%d' % key }}",
        "{{ dict([key]) }}",
        "{{ range(key) }}",
        "{{ xs|map(key)|list }}",
        "{{ {key: 1}.b }}",
        "{{ [key]|map(attribute='x')|list }}",
        "{{ key|tojson(key) }}",
        "{{ key|round }}",
        "{{ namespace(**{key: 1})[key] }}",
        "{{ xs|groupby(key) }}",
        "{{ xs|select(key)|list }}",
        "{{ key > 1 }}",
        "{{ key * key }}",
    ],
)
def test_errors_hold_no_values(template: str) -> None:
    """No error, and nothing attached to it, shows what a variable holds."""
    with pytest.raises(PromptError) as caught:
        render_system(PromptSpec("p", system=template), {"d": {}, "xs": [1], "key": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_remembered_is_what_templates_use_and_what_is_logged() -> None:
    """A variable that neither a template nor the log uses is not kept, nor looked at."""
    spec = PromptSpec(
        "p",
        system="{{ name }}{{ plan|default('') }}{% if absent is defined %}{% endif %}",
        user="{{ message }} {{ when }}",
        required_kwargs=("token",),
        logged_context_vars=("tenant", "absent"),
    )
    context: dict[str, Any] = {
        "name": "Ann",
        "when": dt.date(2025, 1, 2),
        "tenant": Decimal("1.50"),
        "token": SECRET,
        "user": object(),
        "message": "fake",
        "plan": None,
    }
    assert remembered(spec, context) == {"name": "Ann", "plan": None, "tenant": "1.50", "when": "2025-01-02"}
    assert logged(spec, context) == {"tenant": "1.50"}
    assert render_user(spec, "hi", context) == "hi 2025-01-02"


def test_a_remembered_variable_renders_as_in_its_first_turn() -> None:
    """Rendering from what is remembered gives the same text as rendering from what was passed."""
    spec = PromptSpec("p", system="{{ price }} {{ day }} {{ tags|join(',') }} {{ ids[0] }} {{ scores['1'] }}")
    context = {
        "price": Decimal("19.90"),
        "day": dt.datetime(2025, 1, 2, 3, 4),
        "tags": {"b", "a"},
        "ids": (1, 2),
        "scores": {1: "x"},
    }
    first = render_system(spec, context)
    assert first == "19.90 2025-01-02T03:04:00 a,b 1 x"
    assert render_system(spec, remembered(spec, context)) == first


def test_a_variable_that_is_not_data_is_refused_only_where_used() -> None:
    """An object for a tool does not disturb templates that do not mention it."""
    assert render_system(PromptSpec("p", system="{{ a }}"), {"a": 1, "user": object()}) == "1"
    with pytest.raises(BadContextVariable, match="'user'"):
        remembered(PromptSpec("p", logged_context_vars=("user",)), {"user": object()})


def test_preview_is_what_a_turn_sends() -> None:
    """A preview joins the results of the functions that turns use, and refuses what they would."""
    spec = PromptSpec(
        "p",
        system="S {{ a }}",
        user="U {{ message }}",
        initial_messages=({"role": "assistant", "content": "I {{ a }}"},),
    )
    assert preview(spec, "hi", {"a": 1}) == [
        {"role": "system", "content": "S 1"},
        {"role": "assistant", "content": "I 1"},
        {"role": "user", "content": "U hi"},
    ]
    assert preview(PromptSpec("p"), "hi", {}) == [{"role": "user", "content": "hi"}]
    with pytest.raises(MissingContextVariables):
        preview(spec, "hi", {})
