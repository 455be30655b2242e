"""Rules of the check that a tool passes before it is saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llm_wrapper.tools import check, describe
from llm_wrapper.tools.validate import CODE, CONTEXT, DEFAULTS, SPEC
from llm_wrapper.types import ToolSpec

from .shop import PATH, tool

STRING = {"type": "string"}


def problems(stored: ToolSpec) -> list[tuple[str, str]]:
    return [(error.field, str(error)) for error in check(stored)]


def only_problem(stored: ToolSpec) -> tuple[str, str]:
    found = problems(stored)
    assert len(found) == 1, found
    return found[0]


GOOD = '''
"""Prices."""
import json
from datetime import date, timedelta

RATES: dict = {"EUR": 1.0, "USD": -1.1}
NAMES = ["a", ("b",)]

async def price(article: str, currency: Literal["EUR", "USD"] = "EUR", __user_id__: int = 0) -> str:
    """Price of an article.

    Args:
        article: Its name.
        currency: In which money.
    """
    import re
    stock = shop_stock(article)
    late = await shop_stock_async(article)
    names = [name for name in NAMES if (found := name)]
    try:
        total = helper(RATES[currency], *names)
    except (KeyError, ValueError) as error:
        total = str(error)
    match total:
        case {"x": value, **rest}:
            total = value, rest
        case [first, *others] as whole:
            total = first, others, whole
    return json.dumps({"total": total, "when": date.today().isoformat(), "k": sorted(names, key=lambda n: n)})

def helper(rate, *names, **more):
    return rate * len(names)
'''


@pytest.mark.parametrize("code", [GOOD, f"{PATH}refund", f"{PATH}orders"])
def test_what_describe_gives_passes_the_check(code: str) -> None:
    """A tool whose row was derived from its code has no problem."""
    described = describe(code)
    stored = ToolSpec(
        "A",
        code,
        described.spec,
        tuple(described.context_params),
        described.defaults,
        bounds={"timeout": 1.5},
    )
    assert problems(stored) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class A(B): pass\ndef f(): pass", "Only imports, functions and constants"),
        ("print(1)\ndef f(): pass", "Only imports, functions and constants"),
        ("X = print(1)\ndef f(): pass", "Only imports, functions and constants"),
        ("X = [].append\ndef f(): pass", "Only imports, functions and constants"),
        ("X.y = 1\ndef f(): pass", "Only imports, functions and constants"),
        ("if 1:\n    X = 1\ndef f(): pass", "Only imports, functions and constants"),
        ("for x in []: pass\ndef f(): pass", "Only imports, functions and constants"),
        ("X = f'{1}'\ndef f(): pass", "Only imports, functions and constants"),
        ("@staticmethod\ndef f(): pass", "has a decorator"),
        ("def f(x=print(1)): pass", "The default print(1) of 'f' is not a plain value"),
        ("def f(): pass\ndef g(x=f()): pass", "The default f() of 'g'"),
        ("def f(): pass\nf = 1", "'f' is defined twice"),
        ("def f(): pass\ndef f(): pass", "'f' is defined twice"),
        ("def f():\n    yield 1", "yield expressions"),
        ("def f():\n    x = 1\n    del x", "'del' statement"),
        ("def f():\n    class A(list): pass", "class inheritance"),
        ("async def f():\n    async with x: pass", "async context managers"),
        ("from . import x\ndef f(): pass", "relative import"),
        ("from json import *\ndef f(): pass", "Wildcard"),
        ("import socket\ndef f(): pass", "No module named 'socket'"),
        ("def f():\n    import subprocess", "No module named 'subprocess'"),
        ("from os import system\ndef f(): pass", "cannot import name 'system'"),
        ("import json, uuid\ndef f(): pass", "No module named 'uuid'"),
        ("def f():\n    return nope(1)", "'nope' is not defined"),
        ("def f():\n    return __import__('os')", "'__import__' is not defined"),
        ("def f(:", "not valid Python"),
    ],
)
def test_code_that_the_sandbox_cannot_run_is_refused(code: str, words: str) -> None:
    """What would fail at the first call, or run at module level, fails when it is saved."""
    field, message = only_problem(tool(code))
    assert field == CODE
    assert words in message
    assert check(tool(code))[0].line is not None


def test_the_line_of_a_problem_is_that_of_the_source() -> None:
    """Lines count from the author's first line, also where the sandbox's parser found the problem."""
    assert check(tool("def f():\n\n    yield 1"))[0].line == 3
    assert check(tool("def f():\n    x = 1\n    return x + nope"))[0].line == 3
    assert check(tool("X = 1\nimport socket\ndef f(): pass"))[0].line == 2


def test_f2_checking_never_runs_source(tmp_path: Path) -> None:
    """Neither Python nor the sandbox runs stored source when it is checked, at no level."""
    canary = tmp_path / "canary"
    touch = f"open({str(canary)!r}, 'w')"
    for code in (
        f"{touch}\ndef f(): pass",
        f"@{touch}\ndef f(): pass",
        f"def f(x={touch}): pass",
        f"X = {touch}\ndef f(): pass",
    ):
        assert problems(tool(code))
    endless = "def f():\n    while True: pass"
    assert problems(tool(endless)) == []
    assert not canary.exists()


def test_the_body_is_not_run_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host functions that the body calls stay uncalled."""
    from llm_wrapper.tools import registry

    calls: list[int] = []
    monkeypatch.setitem(registry._host_functions, "probe", lambda: calls.append(1))
    assert problems(tool("def f():\n    return probe()")) == []
    assert calls == []


def spec(**fields: Any) -> dict[str, Any]:
    return {"name": "f", "parameters": {"type": "object", "properties": {}}, **fields}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "not an object"),
        ({}, '"name" must be'),
        ({"type": "function", "function": {}}, 'under "function"'),
        (spec(name="a b"), '"name" must be'),
        (spec(name="g"), "'g' is not the function's, 'f'"),
        (spec(extra=1), "'extra' is not a key"),
        (spec(description=1), '"description" is not text'),
        (spec(strict="yes"), '"strict"'),
        (spec(parameters=[]), '"type": "object"'),
        (spec(parameters={"type": "string"}), '"type": "object"'),
        (spec(parameters={"type": "object", "properties": []}), "not a valid JSON Schema"),
        (
            spec(parameters={"type": "object", "properties": {"x": {"type": "strnig"}}}),
            "not a valid JSON Schema",
        ),
        (spec(parameters={"type": "object", "required": "x"}), "not a valid JSON Schema"),
        (spec(parameters={"type": "object", "required": ["x"]}), "not among the properties"),
        (
            spec(parameters={"type": "object", "properties": {}, "$ref": "http://example.com/x"}),
            "points outside",
        ),
        (
            spec(parameters={"type": "object", "properties": {"x": STRING}}),
            "'x', which the function does not take",
        ),
        ({"name": "f", "description": float("nan")}, "not JSON"),
    ],
)
def test_f7_a_bad_spec_is_refused(value: Any, words: str) -> None:
    """A spec that a provider or the validator would trip over is not saved."""
    field, message = only_problem(tool("def f(): pass", spec=value))
    assert field == SPEC
    assert words in message


@pytest.mark.parametrize("name", ["user_id", "__user_id__", "USER_ID", "_user_id"])
def test_f7_a_spec_may_not_list_a_context_param(name: str) -> None:
    """The model must not be shown what it may not set, in any spelling."""
    stored = tool("def f(user_id): pass", {name: STRING}, context_params=("user_id",))
    assert (
        SPEC,
        f"The spec lists {name!r}, which is a context param: the model must not see it.",
    ) in problems(stored)
    dunder = tool("def f(__user_id__): pass", {name: STRING})
    assert any("context param" in message for _, message in problems(dunder))


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"context_params": ("nope",)}, CONTEXT, "does not take 'nope'"),
        ({"context_params": ("a", "__a__")}, CONTEXT, "listed twice"),
        ({"context_params": ("a b",)}, CONTEXT, "not a name"),
        ({"context_params": (5,)}, CONTEXT, "not a name"),
        ({"defaults": {"nope": 1}}, DEFAULTS, "does not take 'nope'"),
        ({"defaults": {"a": {1}}}, DEFAULTS, "not a JSON object"),
        ({"defaults": [1]}, DEFAULTS, "not a JSON object"),
        ({"bounds": {"timeout": 0}}, "timeout", "positive number"),
        ({"bounds": {"timeout": True}}, "timeout", "positive number"),
        ({"bounds": {"timeout": float("inf")}}, "timeout", "positive number"),
        ({"bounds": {"max_memory": 1.5}}, "max_memory", "positive number"),
        ({"bounds": {"cpu": 1}}, "bounds", "'cpu' is not a bound"),
        ({"bounds": []}, "bounds", "not an object"),
    ],
)
def test_the_other_fields_are_checked_too(fields: dict[str, Any], field: str, words: str) -> None:
    """Each problem is told at the field of the row that holds it."""
    found = only_problem(tool("def f(a=1): pass", **fields))
    assert found[0] == field
    assert words in found[1]


def test_a_parameter_that_nothing_fills_is_a_problem() -> None:
    """A required parameter must be in the spec as required, or filled by the system."""
    code = "def f(city): pass"
    assert "'city'" in only_problem(tool(code))[1]
    optional = {"name": "f", "parameters": {"type": "object", "properties": {"city": STRING}}}
    assert "optional" in only_problem(tool(code, spec=optional))[1]
    assert problems(tool(code, {"city": STRING})) == []
    assert problems(tool(code, context_params=("city",))) == []
    assert problems(tool(code, defaults={"city": "Bonn"})) == []
    assert problems(tool("def f(__city__): pass")) == []


def test_problems_of_all_fields_come_together() -> None:
    """One look at the form shows everything that is wrong."""
    stored = tool("def f(:", spec={"name": "!"}, context_params=("a b",), bounds={"timeout": -1})
    assert {field for field, _ in problems(stored)} == {CODE, SPEC, CONTEXT, "timeout"}


def test_a_dotted_path_is_checked() -> None:
    """A path must name a registered function whose name is in the spec."""
    assert "@llm_tool" in only_problem(tool(f"{PATH}not_registered"))[1]
    assert "'find_orders'" in only_problem(tool(f"{PATH}orders"))[1]
    assert problems(tool(f"{PATH}orders", name="find_orders")) == []


def test_without_the_sandbox_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source cannot be saved where it cannot run; a dotted path can."""
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    assert 'pip install "llm_wrapper[sandbox]"' in only_problem(tool("def f(): pass"))[1]
    assert problems(tool(f"{PATH}orders", name="find_orders")) == []
