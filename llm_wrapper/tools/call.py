"""From the model's arguments to a call that may run: parsed, checked, context params filled in."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from llm_wrapper.errors import ToolDefinitionError
from llm_wrapper.types import Credentials, ToolResult, ToolSpec

from .context import by_plain_name, hidden_spellings, plain_name, spelling, visible_parameters
from .definition import NO_DEFAULT, Definition, load
from .result import NOT_AVAILABLE, failed
from .schema import BrokenSchema, schema_problems

logger = logging.getLogger("llm_wrapper.tools")

MAX_ARGUMENT_CHARS = 200_000
MAX_ARGUMENT_DEPTH = 32


@dataclass(frozen=True)
class PreparedCall:
    """A tool call that may run. `arguments` are the model's, fit to be stored and shown.

    `injected` holds the context params by the names of the function's parameters: never store or log them.
    """

    tool: ToolSpec
    arguments: Mapping[str, Any]
    injected: Credentials
    definition: Definition

    def keywords(self) -> dict[str, Any]:
        """What the function is called with; a context param wins over an argument."""
        return {**self.arguments, **self.injected}


def prepare(tool: ToolSpec, arguments: str, context: Mapping[str, Any]) -> PreparedCall | ToolResult:
    """Check the model's `arguments` (JSON text, not trusted) and fill the context params from `context`.

    Where the call may not run it gives the result to show the model instead: refused with the code
    `bad_arguments`, `context_param_refused` or `missing_context_param`, or failed with `tool_error` where
    the tool itself is broken. Nothing of the tool runs here.
    """
    try:
        definition = load(tool.code)
    except ToolDefinitionError as error:
        logger.error("Tool %s is not usable: %s", tool.name, error)
        return failed(NOT_AVAILABLE)
    try:
        values = parse_arguments(arguments)
    except ValueError as error:
        return _refused(f"The arguments cannot be used: {error}. Call again with one JSON object.")

    parameters = [parameter.name for parameter in definition.parameters]
    hidden = hidden_spellings(tool, parameters)
    taken = sorted(name for name in values if spelling(name) in hidden)
    if taken:
        logger.warning("Tool %s: the model tried to set context params: %.200s", tool.name, taken)
        names = _listed(taken)
        return failed(
            f"You may not set {names}; the system does. Call again without.",
            "context_param_refused",
            "refused",
        )
    try:
        problems = _problems(visible_parameters(tool), values)
    except BrokenSchema as error:
        logger.error("Tool %s is not usable: %s", tool.name, error)
        return failed(NOT_AVAILABLE)
    if problems:
        return _refused(f"Bad arguments: {'; '.join(problems)}. Correct them and call again.")

    injected = _injected(tool, definition, hidden, context)
    missing = [name for name, value in injected.items() if value is NO_DEFAULT]
    if missing:
        logger.error("Tool %s: no value for the context params %s", tool.name, ", ".join(missing))
        return failed(NOT_AVAILABLE, "missing_context_param", "refused")
    return PreparedCall(tool, values, Credentials(injected), definition)


def parse_arguments(text: str) -> dict[str, Any]:
    """The object in a model's JSON text; empty text is an empty object.

    Raises ValueError, in words for the model, for anything that two readers could take differently or that
    cannot be stored: a key given twice, NaN, Infinity, NUL, half a surrogate pair, too long, too deep.
    """
    if not text.strip():
        return {}
    if len(text) > MAX_ARGUMENT_CHARS:
        raise ValueError(f"they are longer than {MAX_ARGUMENT_CHARS} characters")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"they are not valid JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("they are not a JSON object")
    _check_values(value)
    return value


def _check_values(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_ARGUMENT_DEPTH:
            raise ValueError("they are nested too deeply")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str) and ("\0" in item or any("\ud800" <= char <= "\udfff" for char in item)):
            raise ValueError("they hold characters that are not text")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is given twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 400:
        raise ValueError("a number is too large")
    return int(text)


def _problems(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    properties = schema["properties"]
    # Whatever the schema says of additional properties, nothing reaches a function that it does not name.
    unknown = sorted(name for name in values if name not in properties)
    if unknown:
        allowed = ", ".join(properties) or "none"
        return [f"there is no parameter {_listed(unknown)} (the parameters are: {allowed})"]
    return schema_problems(schema, values)


def _injected(
    tool: ToolSpec, definition: Definition, hidden: frozenset[str], context: Mapping[str, Any]
) -> dict[str, Any]:
    """The hidden parameters' values by parameter name; NO_DEFAULT where there is none."""
    given, defaults = by_plain_name(context), by_plain_name(tool.defaults)
    values: dict[str, Any] = {}
    for parameter in definition.parameters:
        if spelling(parameter.name) not in hidden:
            continue
        name = plain_name(parameter.name)
        if name in given:
            values[parameter.name] = given[name]
        elif name in defaults:
            values[parameter.name] = defaults[name]
        elif parameter.default is NO_DEFAULT:
            values[parameter.name] = NO_DEFAULT
    return values


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:64]) for name in list(names)[:10])


def _refused(message: str) -> ToolResult:
    return failed(message, "bad_arguments", "refused")
