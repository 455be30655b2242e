"""Reads templates and says what in them is not allowed, without running anything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unicodedata import normalize

from jinja2 import defaults, nodes
from jinja2.environment import Environment
from jinja2.exceptions import TemplateSyntaxError
from jinja2.parser import Parser

from .values import MAX_INT_BITS, unstorable

MAX_TEMPLATE_CHARS = 200_000
MAX_TOKENS = 10_000
MAX_BRACKETS = 15
MAX_DEPTH = 60
MAX_NUMBER = 310
MAX_DIGITS = 5_000
DIGITS = re.compile(r"[0-9a-fA-F_]+")

LOADS = "Prompts stand alone: put the text into this template."
FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Include: f"{{% include %}} is not available. {LOADS}",
    nodes.Import: f"{{% import %}} is not available. {LOADS}",
    nodes.FromImport: f"{{% from %}} is not available. {LOADS}",
    nodes.Extends: f"{{% extends %}} is not available. {LOADS}",
    nodes.Block: "{% block %} is not available, since nothing extends a prompt. Keep its content only.",
    nodes.ScopedEvalContextModifier: "{% autoescape %} is not available: prompts are not HTML.",
}
ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock,
    nodes.FilterBlock, nodes.With, nodes.Assign, nodes.AssignBlock, nodes.Scope, nodes.Name, nodes.NSRef,
    nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter,
    nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare,
    nodes.Operand, nodes.BinExpr, nodes.UnaryExpr,
)  # fmt: skip
JINJA_ONLY = frozenset(defaults.DEFAULT_NAMESPACE) - {"range", "dict", "namespace"}
BY_NAME = {"map": 0, "select": 0, "reject": 0, "selectattr": 1, "rejectattr": 1}
GUARDS = frozenset({"defined", "undefined"})
DEFAULTS = frozenset({"default", "d"})


class Unusable(Exception):
    """A template is refused; `problems` are (line or None, sentence)."""

    def __init__(self, problems: list[tuple[int | None, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


@dataclass
class Syntax:
    """A parsed template. `guarded` names may be undefined; `assigned` ones are set by the template itself."""

    tree: nodes.Template
    guarded: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)


def read(environment: Environment, text: str) -> Syntax:
    """Parses a template, or raises Unusable with everything that is wrong with it."""
    if len(text) > MAX_TEMPLATE_CHARS:
        raise Unusable(
            [(None, f"The template is longer than {MAX_TEMPLATE_CHARS} characters. Pass data as variables.")]
        )
    try:
        _scan(environment, text)
        syntax = Syntax(Parser(environment, text).parse())
    except TemplateSyntaxError as error:
        raise Unusable([(error.lineno, _sentence(error.message or "The syntax is wrong"))]) from None
    except RecursionError:
        raise Unusable([(None, _too_deep())]) from None
    problems = list(_inspect(environment, syntax))
    if problems:
        raise Unusable(problems)
    return syntax


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _too_deep() -> str:
    return "Expressions or blocks are nested too deeply. Split them up with {% set %}."


def _scan(environment: Environment, text: str) -> None:
    """Bounds what the parser, which is recursive, and the compiler get to see."""
    # Jinja's expression for numbers takes quadratic time, all of it without letting another thread run.
    if any(len(match[0]) > MAX_DIGITS for match in DIGITS.finditer(text)):
        raise Unusable([(None, f"The template holds more than {MAX_DIGITS} digits in a row.")])
    depth = 0
    for count, (line, kind, value) in enumerate(environment.lexer.tokeniter(text, None)):
        if count > MAX_TOKENS:
            raise Unusable([(line, f"The template has more than {MAX_TOKENS} tags, names and signs.")])
        if kind == "operator":
            depth += (value in "([{") - (value in ")]}")
            if depth > MAX_BRACKETS:
                raise Unusable([(line, _too_deep())])
        elif kind in ("integer", "float") and len(value) > MAX_NUMBER:
            raise Unusable([(line, "A number is too long.")])


def _inspect(environment: Environment, syntax: Syntax) -> Iterator[tuple[int | None, str]]:
    stack: list[tuple[nodes.Node, int]] = [(syntax.tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield node.lineno, _too_deep()
            return
        if problem := _problem(environment, node):
            yield node.lineno, problem
        _note(node, syntax)
        stack.extend((child, depth + 1) for child in reversed(list(node.iter_child_nodes())))


def _problem(environment: Environment, node: nodes.Node) -> str:
    """What is wrong with one node by itself; '' if nothing is."""
    if not isinstance(node, ALLOWED):
        return FORBIDDEN.get(type(node), f"{type(node).__name__} is not available in prompts.")
    if isinstance(node, nodes.Filter):
        return _filter(environment, node)
    if isinstance(node, nodes.Test) and node.name not in environment.tests:
        return _unknown("test", node.name, environment.tests, defaults.DEFAULT_TESTS)
    if isinstance(node, nodes.Name):
        if node.name in ("self", "super"):
            return f"'{node.name}' is not available, since nothing extends a prompt."
        if node.name in JINJA_ONLY and node.ctx == "load":
            return f"'{node.name}' is not available in prompts."
        return _identifier(node.name)
    if isinstance(node, nodes.Keyword):
        return f"'{node.key}' cannot be an argument." if node.key.startswith("_") else _identifier(node.key)
    if isinstance(node, nodes.Macro):
        return _identifier(node.name)
    if isinstance(node, nodes.Const):
        return _constant(node.value)
    if isinstance(node, nodes.TemplateData) and (bad := unstorable(node.data)):
        return f"The text holds {bad}."
    return ""


def _filter(environment: Environment, node: nodes.Filter) -> str:
    """An unknown filter, or an unknown name of a filter or test given to one."""
    if node.name not in environment.filters:
        return _unknown("filter", node.name, environment.filters, defaults.DEFAULT_FILTERS)
    place = BY_NAME.get(node.name, len(node.args))
    named = node.args[place] if place < len(node.args) else None
    if isinstance(named, nodes.Const) and isinstance(named.value, str):
        if node.name == "map" and named.value not in environment.filters:
            return _unknown("filter", named.value, environment.filters, defaults.DEFAULT_FILTERS)
        if node.name != "map" and named.value not in environment.tests:
            return _unknown("test", named.value, environment.tests, defaults.DEFAULT_TESTS)
    return ""


def _identifier(name: str) -> str:
    # Python sees names in this form, so that two names which look alike would be one.
    return "" if normalize("NFKC", name) == name else f"'{name}' is written with compatibility characters."


def _constant(value: object) -> str:
    if isinstance(value, str) and (bad := unstorable(value)):
        return f"A text holds {bad}."
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "A number is too large."
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return "A number is too large."
    return ""


def _unknown(kind: str, name: str, known: Mapping[str, Any], jinja: Mapping[str, Any]) -> str:
    said = "is not available in prompts" if name in jinja else "does not exist"
    close = difflib.get_close_matches(name[:50], known, n=1)
    return f"The {kind} '{name}' {said}." + (f" Did you mean '{close[0]}'?" if close else "")


def _note(node: nodes.Node, syntax: Syntax) -> None:
    if isinstance(node, nodes.Name):
        if node.ctx != "load":
            syntax.assigned.add(node.name)
    elif isinstance(node, nodes.Macro):
        syntax.assigned.add(node.name)
    elif (
        (isinstance(node, nodes.Test) and node.name in GUARDS)
        or (isinstance(node, nodes.Filter) and node.name in DEFAULTS)
    ) and isinstance(node.node, nodes.Name):
        syntax.guarded.add(node.node.name)
