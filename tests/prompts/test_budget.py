"""Renderings end early, whatever a template does, and do not share what they may use."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_wrapper.errors import TemplateTooExpensive
from llm_wrapper.prompts import render_system
from llm_wrapper.prompts.budget import Budget
from llm_wrapper.types import PromptSpec

from .corpus import DOS

SHARES = 6
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("share", range(SHARES))
def test_e2_no_template_exhausts_the_server(share: int) -> None:
    """Each hostile template ends within 2 seconds and 256 MiB, at compile time and at render time."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.prompts.exhaust", str(share), str(SHARES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["number"] for result in results] == list(range(share, len(DOS), SHARES))
    bad = [
        (DOS[result["number"]][:100], result)
        for result in results
        if result["seconds"] > 2 or result["mebibytes"] > 256 or result["outcome"] == "crashed"
    ]
    assert not bad


def test_e2_corpus_is_large_enough() -> None:
    """The corpus keeps its size: at least 25 different templates."""
    assert len(set(DOS)) == len(DOS) >= 25


@pytest.mark.parametrize(
    ("setting", "value", "template"),
    [
        ("LLM_WRAPPER_TEMPLATE_MAX_STEPS", 50, "{% for x in range(40) %}{{ x }}{% endfor %}"),
        ("LLM_WRAPPER_TEMPLATE_MAX_CHARS", 100, "{% for x in range(11) %}1234567890{% endfor %}"),
        ("LLM_WRAPPER_TEMPLATE_MAX_CHARS", 100, "{% set x %}{{ 'a' * 60 }}{% endset %}ok"),
        ("LLM_WRAPPER_TEMPLATE_MAX_CHARS", 100, "{% macro m() %}{{ 'a' * 60 }}{% endmacro %}{{ m() }}"),
        ("LLM_WRAPPER_TEMPLATE_MAX_CHARS", 100, "{{ 'a' * 101 if true }}"),
        ("LLM_WRAPPER_TEMPLATE_MAX_SECONDS", 0.0, "{% for x in range(500) %}{{ x }}{% endfor %}"),
    ],
)
def test_e2_limits_come_from_the_settings(setting: str, value: float, template: str, settings: object) -> None:
    """Each limit is a setting, read for each rendering, and its error names that setting."""
    spec = PromptSpec("p", system="\n" + template)
    assert render_system(spec, {})
    setattr(settings, setting, value)
    with pytest.raises(TemplateTooExpensive, match=setting) as caught:
        render_system(spec, {})
    assert (caught.value.field, caught.value.line) == ("system_prompt_template", 2)


def test_e2_threads_do_not_share_a_budget() -> None:
    """Renderings at the same time each have all of their budget, and see only their own variables."""
    spec = PromptSpec("p", system="{% for x in xs %}{{ name }}{% endfor %}")
    barrier = threading.Barrier(8)

    def render(number: int) -> str:
        barrier.wait(10)
        return render_system(spec, {"name": f"<{number}>", "xs": list(range(20_000))})

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(render, range(8)))
    assert texts == [f"<{number}>" * 20_000 for number in range(8)]


def test_a_budget_is_taken_before_the_work() -> None:
    """What does not fit raises and leaves the rest of the budget as it was."""
    budget = Budget(seconds=1, steps=100, chars=10)
    with pytest.raises(TemplateTooExpensive):
        budget.grow(11)
    assert budget.text("0123456789") == "0123456789"
    assert budget.chars == 0


def test_measuring_counts_shared_parts_as_often_as_they_occur() -> None:
    """A list that holds one list many times over costs what comparing or writing it would."""
    budget = Budget(seconds=60, steps=10_000, chars=10)
    value: list[object] = [1]
    for _ in range(50):
        value = [value, value]
    with pytest.raises(TemplateTooExpensive):
        budget.measure(value)


def test_measuring_gives_at_least_the_size_of_the_text() -> None:
    """The estimate that refuses output is never above what Python writes, so that what fits passes."""
    budget = Budget(seconds=60, steps=10_000, chars=10)
    for value in (["a", 1, {"b": [None, 2.5]}], [], {}, [[]], ("x",), [True, "é" * 300]):
        assert budget.measure(value) <= len(str(value))
