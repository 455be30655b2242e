"""What is not allowed in templates is said when they are saved."""

from __future__ import annotations

import pytest

from llm_wrapper.prompts import check
from llm_wrapper.types import PromptSpec


@pytest.mark.parametrize(
    ("template", "says", "line"),
    [
        ("{% include 'x' %}", "include", 1),
        ("\n{% extends 'x' %}", "extends", 2),
        ("{% import 'x' as y %}", "import", 1),
        ("{% from 'x' import y %}", "from", 1),
        ("{% block x %}{% endblock %}", "block", 1),
        ("{% autoescape true %}{% endautoescape %}", "autoescape", 1),
        ("{% do 1 %}", "unknown tag 'do'", 1),
        ("{{ x|atrr }}", "'atrr' does not exist", 1),
        ("{{ x|uper }}", "Did you mean 'upper'", 1),
        ("{{ x|pprint }}", "'pprint' is not available in prompts", 1),
        ("{% if 0 %}{{ x|nope }}{% endif %}", "'nope' does not exist", 1),
        ("{{ 1 if x is nope }}", "The test 'nope' does not exist", 1),
        ("{{ x|map('nope') }}", "The filter 'nope' does not exist", 1),
        ("{{ x|selectattr('a', 'nope') }}", "The test 'nope' does not exist", 1),
        ("{{ x is callable }}", "is not available", 1),
        ("{{ lipsum() }}", "'lipsum' is not available", 1),
        ("{{ self }}", "'self'", 1),
        ("{{ f(_loop_vars=1) }}", "cannot be an argument", 1),
        ("{{ f(a=1, a=2) }}", "cannot be compiled", None),
        ("{% for x in y %}", "Unexpected end of template", 1),
        ("{{ 'a\\ud800' }}", "surrogate", 1),
        ("a\x00b", "NUL", 1),
        ("{{ " + "(" * 20 + "1" + ")" * 20 + "}}", "nested too deeply", 1),
        ("{% if 1 %}" * 70 + "{% endif %}" * 70, "nested too deeply", 1),
        ("{{ " + "not " * 3000 + "1 }}", "nested too deeply", None),
        ("{{ a }}" * 9000, "more than 10000 tags", 1),
        ("x" * 200_001, "longer than 200000", None),
        ("{{ " + "9" * 400 + " }}", "number is too long", 1),
        ("{{ 0x" + "f" * 300 + " }}", "number is too large", 1),
        ("{{ " + "9" * 6000 + " }}", "digits in a row", None),
        ("{{ 1e999 }}", "number is too large", 1),
        ("{{ ﬁ }}", "compatibility characters", 1),
    ],
)
def test_e1_e2_forbidden_templates_are_refused_when_saved(template: str, says: str, line: int | None) -> None:
    """A template that cannot be rendered is refused with reason and line, never with another exception."""
    problem = check(PromptSpec("p", system=template))[0]
    assert says in str(problem)
    assert (problem.field, problem.line) == ("system_prompt_template", line)


def test_several_problems_of_one_template_are_told() -> None:
    """The author sees all unknown names of a template, in order."""
    found = check(PromptSpec("p", system="{{ a|one }}\n{{ b|two }}\n{{ c is three }}"))
    assert [problem.line for problem in found] == [1, 2, 3]
