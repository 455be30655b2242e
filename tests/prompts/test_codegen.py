"""Compiling runs nothing of a template."""

from __future__ import annotations

from io import StringIO

import pytest

from llm_wrapper.prompts import check, operators
from llm_wrapper.prompts.codegen import BoundedCodeGenerator
from llm_wrapper.prompts.compiled import ENVIRONMENT, compiled
from llm_wrapper.types import PromptSpec

CONSTANT = [
    "{{ 'ab'|upper }}",
    "{{ 'ab' * 3 }}",
    "{{ 2 ** 8 }}",
    "{{ 'a' ~ 'b' }}",
    "{{ 1 < 2 }}",
    "{{ [1, 2][0] }}",
    "{{ 'abc'[1:] }}",
    "{{ 'abc'.upper() }}",
    "{{ 3 is odd }}",
    "{% set x = 'ab'|upper %}{{ x }}",
    "{% if 'ab'|upper == 'AB' %}x{% endif %}",
    "{% for x in 'ab'|list %}{% endfor %}",
    "{% filter upper %}ab{% endfilter %}",
    "{% macro m(x='ab'|upper) %}{{ x }}{% endmacro %}{{ m() }}",
]


@pytest.mark.parametrize("template", CONSTANT)
def test_e2_compiling_runs_nothing(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant expressions are not computed before a rendering, when nothing would count them."""
    ran: list[object] = []

    def trap(*args: object, **kwargs: object) -> object:
        ran.append(args)
        raise AssertionError

    for table in (ENVIRONMENT.filters, ENVIRONMENT.tests):
        for name in list(table):
            monkeypatch.setitem(table, name, trap)
    monkeypatch.setitem(operators.ARITHMETIC, "*", trap)
    monkeypatch.setattr(ENVIRONMENT, "call_binop", trap)
    compiled.cache_clear()
    assert check(PromptSpec("p", system=template, user=template)) == []
    compiled.cache_clear()
    assert ran == []


def test_only_text_is_written_as_a_constant() -> None:
    """The Python source holds the template's text, counted, and every expression as an expression."""
    source = StringIO()
    BoundedCodeGenerator(ENVIRONMENT, None, None, source).visit(ENVIRONMENT.parse("text{{ 'a' * 2 }}{{ 7 }}"))
    written = source.getvalue()
    assert "budget.text('text')" in written
    assert "budget.emit(environment.call_binop(context, '*', 'a', 2))" in written
    assert "budget.emit(7)" in written


def test_templates_are_compiled_once() -> None:
    """The same text gives the same compiled template."""
    assert compiled("{{ a }} once") is compiled("{{ a }} once")
