"""What the sandbox says of source without running it: can it read it, has it the imports and names?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .definition import Problem
from .pool import library, session
from .registry import host_functions
from .result import shorten

MAX_PROBES = 100

_LIMITS = {"max_feed_duration_secs": 2.0, "max_memory": 64 * 1024 * 1024}
# The whole text is parsed before its first line runs, and this first line ends the run.
_STOP = 'raise SystemExit("parsed")\n'
_BINDING_FIELDS = {
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.arg: "arg",
}


def source_problems(code: str) -> list[Problem]:
    """What keeps `code`, which Python can parse, from running in the sandbox.

    Raises MissingExtra, PoolUnavailable.
    """
    with session(_LIMITS) as worker:
        problem = _parse_problem(worker, code)
    if problem is not None:
        return [problem]
    tree = ast.parse(code)
    hosts = host_functions()
    return [
        *_import_problems(tree),
        *(
            Problem(
                f"{name!r} is not defined here. Define it, or register it with @host_function.",
                line,
            )
            for name, line in _free_names(tree).items()
            if name not in hosts and _error_of(name) is not None
        ),
    ]


def _parse_problem(worker: Any, code: str) -> Problem | None:
    monty = library()
    try:
        worker.feed_run(_STOP + code, print_callback=_drop_output)
    except monty.MontyCrashedError:
        return Problem("The sandbox cannot read this source.")
    except monty.MontyError as error:
        inner, frames = error.exception(), error.traceback()
        line = frames[-1].line - 1 if frames else 0
        if isinstance(inner, SystemExit) and line == 0:
            return None
        return Problem(f"The sandbox cannot run this: {shorten(str(inner))}.", line or None)
    return None


def _import_problems(tree: ast.Module) -> Iterator[Problem]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        statements: list[ast.stmt]
        if isinstance(node, ast.Import):
            statements = [ast.Import([ast.alias(alias.name)]) for alias in node.names]
        else:
            statements = [ast.ImportFrom(node.module, [ast.alias(alias.name)], 0) for alias in node.names]
        for statement in statements:
            if error := _error_of(ast.unparse(statement)):
                yield Problem(f"The sandbox does not have this: {shorten(error)}.", node.lineno)


def _free_names(tree: ast.Module) -> dict[str, int]:
    """Names that are read and nowhere bound, with the line of the first use. Annotations do not count."""
    bound: set[str] = set()
    read: dict[str, int] = {}
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read[node.id] = min(node.lineno, read.get(node.id, node.lineno))
        elif isinstance(node, ast.Name):
            bound.add(node.id)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.partition(".")[0])
        elif field := _BINDING_FIELDS.get(type(node)):
            bound.add(getattr(node, field) or "")
        annotations = {getattr(node, name, None) for name in ("annotation", "returns")}
        waiting += [child for child in ast.iter_child_nodes(node) if child not in annotations]
    free = [(name, line) for name, line in sorted(read.items()) if name not in bound]
    return dict(free[:MAX_PROBES])


@lru_cache(maxsize=1_000)
def _error_of(statement: str) -> str | None:
    """What the sandbox says to one import or one name, or None if it has it."""
    monty = library()
    with session(_LIMITS) as worker:
        try:
            worker.feed_run(statement, print_callback=_drop_output)
        except monty.MontyError as error:
            return str(error)
    return None


def _drop_output(stream: str, text: str) -> None: ...
