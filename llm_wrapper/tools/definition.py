"""A tool's function as its code defines it. Stored source is parsed here, never run."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from llm_wrapper.errors import ToolDefinitionError

from .registry import is_dotted_path, resolve, tool_name

MAX_SOURCE_CHARS = 100_000

NO_DEFAULT: Final = inspect.Parameter.empty


class Problem(NamedTuple):
    """Something wrong with a tool: what, in which field, and in which line of it (1-based)."""

    message: str
    line: int | None = None
    field: str = "tool_code"

    def as_error(self) -> ToolDefinitionError:
        return ToolDefinitionError(self.message, field=self.field, line=self.line)


def joined_error(problems: Iterable[Problem]) -> ToolDefinitionError:
    """One error that tells all `problems`; its field and line are the first one's."""
    problems = sorted(problems, key=lambda problem: problem.line or 0)
    message = " ".join(
        f"Line {problem.line}: {problem.message}" if problem.line else problem.message for problem in problems
    )
    return ToolDefinitionError(message, field=problems[0].field, line=problems[0].line)


@dataclass(frozen=True)
class Parameter:
    """One parameter. `annotation` is a type, a string, a node of the source, or NO_DEFAULT where missing."""

    name: str
    annotation: Any
    default: Any
    line: int | None


@dataclass(frozen=True)
class Definition:
    """The function behind a tool. `function` is None where the code is source for the sandbox.

    `name` is what the model calls it, `function_name` what the source calls it.
    """

    name: str
    function_name: str
    doc: str
    parameters: tuple[Parameter, ...]
    is_async: bool
    line: int | None = None
    function: Callable[..., Any] | None = None


def load(code: str) -> Definition:
    """The definition in a tool's code: source, or a dotted path (whose module is imported).

    Raises ToolDefinitionError telling all that is wrong.
    """
    if is_dotted_path(code):
        return _from_function(resolve(code))
    definition, problems = read_source(code)
    if definition is None or problems:
        raise joined_error(problems)
    return definition


@lru_cache(maxsize=128)
def read_source(code: str) -> tuple[Definition | None, tuple[Problem, ...]]:
    """The definition in source, if there is one, and all problems that can be seen without running it."""
    if len(code) > MAX_SOURCE_CHARS:
        return None, (Problem(f"The source is longer than {MAX_SOURCE_CHARS} characters."),)
    try:
        tree = ast.parse(code)
        problems = [*_statement_problems(tree)]
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if not functions:
            problems.append(Problem("There is no function: write `def name(...):`, or a dotted path."))
            return None, tuple(problems)
        definition, more = _from_node(functions[0])
        return definition, (*problems, *more)
    except SyntaxError as error:
        return None, (Problem(f"The source is not valid Python: {error.msg}.", error.lineno),)
    except ValueError as error:
        return None, (Problem(f"The source is not valid Python: {error}."),)
    except (RecursionError, MemoryError):
        return None, (Problem("The source is nested too deeply."),)


def _statement_problems(tree: ast.Module) -> Iterator[Problem]:
    """What stands at module level may do nothing: imports, functions and constants only."""
    seen: set[str] = set()
    for node in tree.body:
        names: list[str] = []
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names = [name]
                yield from _function_problems(node)
            case ast.Assign(targets=targets, value=value) if _all_names(targets) and _is_literal(value):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is None or _is_literal(value):
                names = [name]
            case _:
                yield Problem(
                    "Only imports, functions and constants may stand outside a function; move this into one.",
                    node.lineno,
                )
        for name in names:
            if name in seen:
                yield Problem(f"{name!r} is defined twice.", node.lineno)
            seen.add(name)


def _function_problems(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Problem]:
    if node.decorator_list:
        yield Problem(f"{node.name!r} has a decorator; tool source may not use decorators here.", node.lineno)
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if default is not None and not _is_literal(default):
            yield Problem(
                f"The default {ast.unparse(default)[:100]} of {node.name!r} is not a plain value.",
                default.lineno,
            )


def _all_names(targets: list[ast.expr]) -> bool:
    return all(isinstance(target, ast.Name) for target in targets)


def _literal_value(node: ast.expr) -> Any:
    # Whatever is not a literal is a problem of its own; it is a default all the same.
    return ast.literal_eval(node) if _is_literal(node) else None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


def _from_node(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[Definition, list[Problem]]:
    arguments, problems = node.args, []
    for extra, sign in ((arguments.vararg, "*"), (arguments.kwarg, "**")):
        if extra is not None:
            problems.append(Problem(f"A tool cannot take {sign}{extra.arg}; name every parameter.", extra.lineno))
    if arguments.posonlyargs:
        problems.append(Problem("A tool is called by keyword; remove the '/' from its parameters.", node.lineno))
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    parameters = tuple(
        Parameter(
            argument.arg,
            NO_DEFAULT if argument.annotation is None else argument.annotation,
            NO_DEFAULT if default is None else _literal_value(default),
            argument.lineno,
        )
        for argument, default in pairs
    )
    is_async = isinstance(node, ast.AsyncFunctionDef)
    doc = ast.get_docstring(node) or ""
    return Definition(node.name, node.name, doc, parameters, is_async, node.lineno), problems


@lru_cache(maxsize=512)
def _from_function(function: Callable[..., Any]) -> Definition:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        # A name that cannot be resolved is reported, as an unknown type, where the types are needed.
        hints = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolDefinitionError(
                f"{function.__module__}.{function.__qualname__} is called by keyword; its parameter "
                f"{parameter} cannot be filled."
            )
        annotation = hints.get(parameter.name, parameter.annotation)
        parameters.append(Parameter(parameter.name, annotation, parameter.default, None))
    return Definition(
        name=tool_name(function),
        function_name=function.__name__,
        doc=inspect.getdoc(function) or "",
        parameters=tuple(parameters),
        is_async=inspect.iscoroutinefunction(function),
        function=function,
    )
