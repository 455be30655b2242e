"""Rules of the spec that is derived from signature and docstring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_wrapper.errors import ToolDefinitionError
from llm_wrapper.tools import describe

from .shop import PATH

GOOGLE = '''
import json

LIMIT = 10

def search(
    query: str,
    tags: list[str],
    prices: dict[str, float],
    sort: Literal["price", "date"],
    page: int = 1,
    shop: Optional[str] = None,
    exact: bool | None = None,
    *,
    __user_id__: int,
    __locale__: str = "en",
) -> str:
    """Search the catalogue.

    Use it before you name
    an article.

    Args:
        query: What to
            look for.
        tags (list): All of these.
        prices: Highest price by currency.
        sort: Order of the hits.
        page: Page of the hits.
        shop: Only this shop.
        exact: No similar words.
    """
    return helper(query)

def helper(x):
    return x
'''

NUMPY = '''
def f(x: int) -> int:
    """Short.

    Parameters
    ----------
    x : int
        The number.
    """
'''
REST = 'async def f(x: int):\n    """Short.\n\n    :param x: The number.\n    """\n'


def problem_of(code: str, **options: Any) -> ToolDefinitionError:
    with pytest.raises(ToolDefinitionError) as caught:
        describe(code, **options)
    assert caught.value.field == "tool_code"
    return caught.value


def test_the_whole_spec_of_a_function() -> None:
    """Types, descriptions, defaults and the two parts of the docstring reach the spec; dunder params do not."""
    described = describe(GOOGLE)
    assert described.context_params == ["user_id", "locale"]
    assert described.defaults == {"locale": "en"}
    assert described.spec == {
        "name": "search",
        "description": "Search the catalogue.\n\nUse it before you name\nan article.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to\nlook for."},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "All of these."},
                "prices": {
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                    "description": "Highest price by currency.",
                },
                "sort": {"type": "string", "enum": ["price", "date"], "description": "Order of the hits."},
                "page": {"type": "integer", "description": "Page of the hits.", "default": 1},
                "shop": {
                    "anyOf": [{"type": "string"}, {"type": "null"}],
                    "description": "Only this shop.",
                    "default": None,
                },
                "exact": {
                    "anyOf": [{"type": "boolean"}, {"type": "null"}],
                    "description": "No similar words.",
                    "default": None,
                },
            },
            "required": ["query", "tags", "prices", "sort"],
            "additionalProperties": False,
        },
    }


@pytest.mark.parametrize("code", [NUMPY, REST])
def test_every_docstring_style_is_read(code: str) -> None:
    """NumPy and reST docstrings describe parameters as well as Google's."""
    described = describe(code)
    assert described.spec["description"] == "Short."
    assert described.spec["parameters"]["properties"] == {"x": {"type": "integer", "description": "The number."}}


def test_a_registered_function_is_described_like_source() -> None:
    """A dotted path gives the same kind of spec, under the name the decorator was given."""
    described = describe(f"{PATH}refund")
    assert described.spec["name"] == "refund"
    assert described.context_params == ["user_id"]
    assert described.spec["parameters"]["required"] == ["order_id"]
    assert described.spec["parameters"]["properties"]["reason"] == {
        "type": "string",
        "enum": ["late", "broken"],
        "description": "Why the money goes back.",
        "default": "late",
    }
    orders = describe(f"{PATH}orders").spec
    assert orders["name"] == "find_orders"
    assert orders["parameters"]["properties"]["status"]["anyOf"] == [{"type": "string"}, {"type": "null"}]


def test_listed_context_params_are_hidden() -> None:
    """A parameter without underscores is a context param where it is listed, in either spelling."""
    code = 'def f(x: int, user_id, limit=5):\n    """Do.\n\n    Args:\n        x: The number.\n    """'
    for listed in (["user_id", "limit"], ["__user_id__", "__limit__"]):
        described = describe(code, context_params=listed)
        assert described.context_params == ["user_id", "limit"]
        assert described.defaults == {"limit": 5}
        assert list(described.spec["parameters"]["properties"]) == ["x"]
    assert "'nope' is not a parameter" in str(problem_of(code, context_params=["nope", "user_id", "limit"]))


def test_all_problems_come_at_once_with_the_first_line() -> None:
    """One error tells every missing type and description, and points at the first."""
    error = problem_of('def f(\n    a,\n    b: int,\n    c: Order,\n    d: int = "x",\n):\n    """Do."""')
    assert error.line == 2
    message = str(error)
    for words in (
        "'a' has no type",
        "not describe 'b'",
        "the type Order is not",
        "default 'x' of 'd'",
        "Line 5:",
    ):
        assert words in message


@pytest.mark.parametrize(
    "annotation",
    [
        "Order",
        "list",
        "dict",
        "tuple[int]",
        "dict[int, str]",
        "list[Order]",
        "list[int, str]",
        "Literal[1.5]",
        "Literal[print(1)]",
        "Optional[int, str]",
        "print(1)",
        "'list['",
        "set[str]",
        "a.b",
        "Any",
    ],
)
def test_an_unknown_type_is_named(annotation: str) -> None:
    """A type without a JSON Schema is an error that lists those that have one."""
    message = str(problem_of(f'def f(x: {annotation}):\n    """D.\n\n    Args:\n        x: D.\n    """'))
    assert "use str, int" in message or "Literal may hold" in message


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("'int'", {"type": "integer"}),
        ("typing.List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("Union[int, str]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Literal['a', 1, None]", {"enum": ["a", 1, None]}),
        ("Literal[1, 2]", {"type": "integer", "enum": [1, 2]}),
        (
            "list[dict[str, int | None]]",
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
            },
        ),
    ],
)
def test_types_nest(annotation: str, schema: dict[str, Any]) -> None:
    """Supported types may be combined and quoted."""
    spec = describe(f'def f(x: {annotation}):\n    """D.\n\n    Args:\n        x: The d.\n    """').spec
    assert spec["parameters"]["properties"]["x"] == {**schema, "description": "The d."}


@pytest.mark.parametrize(
    ("code", "words", "line"),
    [
        ("def f(*args): pass", "cannot take *args", 1),
        ("def f(**kw): pass", "cannot take **kw", 1),
        ("def f(a, /): pass", "called by keyword", 1),
        ("x = 1", "There is no function", None),
        ("def f(:", "not valid Python", 1),
        ("\ndef f():\n  return (", "not valid Python", 3),
        ("def naïve(): pass", "not a name that models accept", 1),
        (f"def {'f' * 65}(): pass", "not a name that models accept", 1),
        ("def f(user, __user__): pass", "too alike", 1),
        ("\0", "not valid Python", None),
        ("(" * 5000, "not valid Python", 1),
        ("-" * 90_000 + "1", "nested too deeply", None),
        ("#" * 100_001, "longer than", None),
    ],
)
def test_code_that_cannot_be_a_tool(code: str, words: str, line: int | None) -> None:
    """Each thing that keeps code from being a tool is told in plain words."""
    error = problem_of(code)
    assert words in str(error)
    if line is not None:
        assert error.line == line


def test_f2_describing_never_runs_source(tmp_path: Path) -> None:
    """Source at module level, in decorators, defaults, annotations and bodies is read and not run."""
    canary = tmp_path / "canary"
    touch = f"open({str(canary)!r}, 'w')"
    for code in (
        f"{touch}\ndef f(): pass",
        f"@{touch}\ndef f(): pass",
        f"def f(x={touch}): pass",
        f"def f(x: {touch}): pass",
        f"x = {touch}\ndef f(): pass",
        f"def f():\n    {touch}",
        f"class A:\n    {touch}\ndef f(): pass",
        f"def f(x: Literal[{touch}]): pass",
    ):
        try:
            describe(code)
        except ToolDefinitionError:
            pass
        else:
            assert code.startswith("def f():")
        assert not canary.exists()


def test_a_function_without_parameters_needs_no_docstring() -> None:
    """Nothing is asked for that a model could do without."""
    assert describe("def ping():\n    return 'pong'").spec == {
        "name": "ping",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    }
