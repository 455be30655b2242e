"""Operators give what Python gives, where that is bounded."""

from __future__ import annotations

import pytest

from llm_wrapper.errors import PromptError, TemplateTooExpensive
from llm_wrapper.prompts import render_system
from llm_wrapper.types import PromptSpec


def render(expression: str, **context: object) -> str:
    return render_system(PromptSpec("p", system="{{ " + expression + " }}"), context)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1 + 2 * 3 - 4 / 2", "5.0"),
        ("7 // 2 + 7 % 4", "6"),
        ("2 ** 10", "1024"),
        ("2 ** -1", "0.5"),
        ("-3", "-3"),
        ("2.5 ** 2", "6.25"),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", "[1, 2]"),
        ("(1,) * 2", "(1, 1)"),
        ("'-' * 3", "---"),
        ("3 * 'ab'", "ababab"),
        ("'a' * -1", ""),
        ("True + 1", "2"),
        ("1 ~ 'a' ~ none ~ [1]", "1aNone[1]"),
        ("1 < 2", "True"),
        ("1 < 2 < 3", "True"),
        ("1 < 3 < 2", "False"),
        ("3 < 2 < missing", "False"),
        ("1 == 1.0 != 2", "True"),
        ("'a' in 'cat'", "True"),
        ("1 in [1]", "True"),
        ("'a' in {'a': 1}", "True"),
        ("2 not in (1,)", "True"),
        ("3 in range(4)", "True"),
        ("'x' in range(4)", "False"),
        ("[1] in [[1]]", "True"),
        ("[1, [2]] == [1, [2]]", "True"),
        ("'b' > 'a' >= 'a'", "True"),
        ("{'a': 1} == {'a': 1}", "True"),
        ("'%s-%05.2f-%d%%' % ('a', 2.5, 3)", "a-02.50-3%"),
        ("'%(a)s %(b)x' % {'a': 1, 'b': 255}", "1 ff"),
        ("'%s' % [1]", "[1]"),
        ("'%-5s|' % 'a'", "a    |"),
        ("'%r' % 'a'", "'a'"),
        ("7.5 % 2", "1.5"),
        ("'hello'[1:3] ~ 'hello'[::-1] ~ [1, 2, 3][-2:]", "elolleh[2, 3]"),
        ("range(9)[2:4]|list", "[2, 3]"),
    ],
)
def test_operators_compute_as_in_python(expression: str, text: str) -> None:
    """Interception changes no result."""
    assert render(expression) == text


@pytest.mark.parametrize(
    "expression",
    [
        "'a' * 10**8",
        "10**8 * 'a'",
        "[0] * 10**8",
        "(0,) * 10**8",
        "2 ** 5000",
        "10 ** 10 ** 10 ** 10",
        "'%99999d' % 1",
        "'%.99999f' % 1",
        "'%*d' % (5, 1)",
        "'%(a)99999s' % {'a': 1}",
        "2 ** 1000 * 2 ** 1000",
    ],
)
def test_e2_large_results_are_refused_before_they_are_made(expression: str) -> None:
    """An operator whose result would be too large does not start."""
    with pytest.raises(TemplateTooExpensive):
        render(expression)


@pytest.mark.parametrize(
    "expression", ["'a' - 1", "{} + {}", "'%c' % 0", "'%' % 1", "(-8) ** 0.5", "1 in 5", "[1] < 1"]
)
def test_operators_without_meaning_fail_clearly(expression: str) -> None:
    """What Python refuses, and what makes values no template knows, is an error of the package."""
    with pytest.raises(PromptError):
        render(expression)
