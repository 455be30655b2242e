"""The sandbox holds: only plain data can be used, and only in the listed ways."""

from __future__ import annotations

from typing import Any

import pytest

from llm_wrapper.errors import BadContextVariable, PromptError
from llm_wrapper.prompts import check, render_system
from llm_wrapper.prompts.budget import Budget
from llm_wrapper.prompts.compiled import ENVIRONMENT, compiled
from llm_wrapper.prompts.syntax import Unusable
from llm_wrapper.types import PromptSpec

from .corpus import ESCAPES

SECRET = "canary-is-reached"
DATA: dict[str, Any] = {"text": "some text", "xs": [1, 2, 3], "d": {"a": 1}}


class Canary:
    """Records whatever is done to it."""

    touched: list[str]

    def __init__(self) -> None:
        object.__setattr__(self, "touched", [])

    def __getattribute__(self, name: str) -> Any:
        object.__getattribute__(self, "touched").append(name)
        return lambda *args, **kwargs: SECRET


def _recorder(name: str) -> Any:
    def method(self: Canary, *args: Any) -> Any:
        object.__getattribute__(self, "touched").append(name)
        return {"__len__": 1, "__bool__": True, "__hash__": 1, "__iter__": iter([SECRET])}.get(name, SECRET)

    return method


SPECIAL = """
    str repr call len bool hash iter eq ne lt le gt ge add radd mul rmul mod rmod getitem contains neg index
    int float format html
"""
for _name in SPECIAL.split():
    setattr(Canary, f"__{_name}__", _recorder(f"__{_name}__"))


def touched(canary: Canary) -> list[str]:
    """What was done to it, except that `isinstance` asked for its class."""
    return [name for name in object.__getattribute__(canary, "touched") if name != "__class__"]


def budget() -> Budget:
    return Budget(seconds=2, steps=10_000, chars=10_000)


def test_e1_corpus_is_large_enough() -> None:
    """The corpus keeps its size: at least 80 different templates."""
    assert len(set(ESCAPES)) == len(ESCAPES) >= 80


@pytest.mark.parametrize("template", ESCAPES)
def test_e1_no_escape_through_the_api(template: str) -> None:
    """A hostile template gives an error of the package or harmless text, and touches no object."""
    canary = Canary()
    for value in (canary, {"canary": canary}, [canary]):
        try:
            text = render_system(PromptSpec("p", system=template), {**DATA, "canary": value})
        except PromptError as error:
            text = str(error)
        assert SECRET not in text
        assert not any(mark in text for mark in ("<class", "<function", "<built-in", "object at 0x", "<bound"))
    assert touched(canary) == []


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("template", ESCAPES)
def test_e1_no_escape_where_an_object_got_in(template: str, inside: bool) -> None:
    """The sandbox touches no object that is not plain data, even if one got among the variables."""
    canary = Canary()
    values: dict[str, Any] = {**DATA, "canary": canary, "box": {"canary": canary}}
    source = template.replace("canary", "box.canary") if inside and "a=canary" not in template else template
    try:
        text = compiled(source).render(values, budget())
    except Unusable:
        return
    except Exception as error:  # noqa: BLE001 - any refusal is fine here; the API turns it into a PromptError
        text = str(error)
    assert touched(canary) == []
    assert SECRET not in text


@pytest.mark.parametrize(
    "template",
    [
        "{{ box|tojson }}",
        "{{ box }}",
        "{{ box ~ '' }}",
        "{{ box == box }}",
        "{{ [box] == [1] }}",
        "{{ box|string }}",
        "{{ box|items }}",
        "{{ box.values()|first }}",
        "{% for v in box.values() %}{{ v }}{% endfor %}",
        "{{ box|dictsort(by='value') }}",
        "{{ xs|map(attribute='a')|list }}",
        "{{ xs[0] }}",
        "{{ xs|first }}",
        "{% if xs|first %}{% endif %}",
        "{% for x in xs %}{% if x %}{% endif %}{% endfor %}",
        "{{ xs|join }}",
        "{{ xs|sort }}",
        "{{ xs|unique }}",
        "{{ xs|sum }}",
        "{{ xs|max }}",
        "{{ 1 in xs }}",
        "{{ xs.index(1) }}",
        "{{ xs.count(1) }}",
        "{{ '%s' % xs }}",
        "{{ '%s' % box }}",
        "{{ xs|select }}",
        "{{ xs|select('eq', 1) }}",
        "{{ xs|map('upper') }}",
        "{{ xs|batch(1) }}",
        "{{ xs|urlencode }}",
    ],
)
def test_e1_objects_inside_data_are_not_touched(template: str) -> None:
    """An object inside a list or dict is refused by whatever walks through that."""
    canary = Canary()
    text = ""
    try:
        text = compiled(template).render({"box": {"a": canary}, "xs": [canary]}, budget())
    except Exception as error:  # noqa: BLE001 - any refusal is fine here
        text = str(error)
    assert SECRET not in text
    assert touched(canary) == []


def test_e1_model_instances_do_not_reach_templates(django_user_model: type) -> None:
    """A Django model in the context is refused by name, with what to do instead."""
    with pytest.raises(BadContextVariable, match=r"'user' is a User.*\{\"name\": user\.name\}"):
        render_system(PromptSpec("p", system="{{ user.password }}"), {"user": django_user_model(password=SECRET)})


def test_e1_only_listed_names_exist() -> None:
    """Every filter, test and global was written here; none is Jinja's own."""
    for table in (ENVIRONMENT.filters, ENVIRONMENT.tests, ENVIRONMENT.globals):
        assert {function.__module__.split(".")[0] for function in table.values()} == {"llm_wrapper"}
    assert set(ENVIRONMENT.globals) == {"range", "dict", "namespace"}
    assert not ENVIRONMENT.extensions
    assert ENVIRONMENT.loader is None


def test_e1_a_rendering_without_a_budget_fails() -> None:
    """Rendering through Jinja itself, around the budget, does not work."""
    with pytest.raises(AttributeError):
        compiled("{{ 1 }}").template.render()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ user.name }} {{ user['name'] }} {{ user.get('x', 'y') }}", "Ann Ann y"),
        ("{{ user.items is defined }} {{ user.name.upper() }}", "True ANN"),
        ("{{ xs[0] }}{{ xs[-1] }}{{ xs[1:] }}{{ xs[::-1] }}", "13[2, 3][3, 2, 1]"),
        (
            "{% for x in xs %}{{ loop.index }}{{ x }}{{ loop.cycle('a', 'b') }}{{ ',' if not loop.last }}{% endfor %}",
            "11a,22b,33a",
        ),
        ("{% for x in xs if x > 1 %}{{ x }}/{{ loop.length }} {% else %}none{% endfor %}", "2/2 3/2 "),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        (
            "{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}",
            "1(2(3))",
        ),
        (
            "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ varargs }}]{% endmacro %}{{ m(1) }}{{ m(1, 3, 4) }}",
            "[12()][13(4,)]",
        ),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}", "<in>"),
        (
            "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
            "6",
        ),
        ("{% set a, b = xs[:2] %}{{ a }}{{ b }}{% set c %}x{{ a }}{% endset %}{{ c }}", "12x1"),
        ("{% filter upper %}a{{ user.name }}{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}", "AANN1"),
        (
            "{{ 'yes' if xs else 'no' }}{{ 'a' if none }}{{ xs and 1 }}{{ none or 'x' }}{{ not xs }}",
            "yes1xFalse",
        ),
        (
            "{{ {'a': 1, 2: [3]} }}{{ (1, 'b') }}{{ () }}{{ dict(user, age=3).age }}{{ dict([['k', 'v']]).k }}",
            "{'a': 1, 2: [3]}(1, 'b')()3v",
        ),
        ("{% raw %}{{ x }}{% endraw %}{# not seen #}{{ '{{' }}", "{{ x }}{{"),
        ("{{ range(3)|list }}{% for x in range(2, 0, -1) %}{{ x }}{% endfor %}", "[0, 1, 2]21"),
        ("line\r\nnext\n", "line\nnext\n"),
    ],
)
def test_ordinary_templates_work_as_in_jinja(template: str, text: str) -> None:
    """What prompt authors know of Jinja works."""
    values = {"user": {"name": "Ann"}, "xs": [1, 2, 3], "tree": [{"v": 1, "c": [{"v": 2, "c": [{"v": 3}]}]}]}
    if "n.c" in template:
        values["tree"][0]["c"][0]["c"][0]["c"] = []  # type: ignore[index]
    spec = PromptSpec("p", system=template)
    assert check(spec) == []
    assert render_system(spec, values) == text
