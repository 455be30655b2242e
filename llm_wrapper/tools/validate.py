"""All that is wrong with a stored tool, found without running any of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from llm_wrapper.errors import MissingExtra, ToolDefinitionError
from llm_wrapper.types import ToolSpec

from .context import hidden_spellings, plain_name, spelling
from .definition import NO_DEFAULT, Definition, Problem, load, read_source
from .pool import PoolUnavailable
from .probe import source_problems
from .registry import FUNCTION_NAME, is_dotted_path
from .result import plain_json

CODE, SPEC, CONTEXT, DEFAULTS = (
    "tool_code",
    "tool_json_spec",
    "context_params",
    "default_values_for_non_llm_params",
)

_SPEC_KEYS = frozenset({"name", "description", "parameters", "strict"})
_BOUNDS = ("timeout", "max_memory", "max_output")
_LOCAL_REF = re.compile(r"#.*", re.DOTALL)


def check(tool: ToolSpec) -> list[ToolDefinitionError]:
    """Every problem that would keep `tool` from working; empty if there is none.

    Source is parsed, by Python and by the sandbox, and never run; a dotted path is imported. The `field` of
    each error is the field of the Tool row.
    """
    definition, code_problems = _read(tool.code)
    spec_problems = [*_spec_problems(tool.spec)]
    value_problems = [*_value_problems(tool)]
    problems = [*code_problems, *spec_problems, *value_problems]
    if not spec_problems and not value_problems:
        names = [parameter.name for parameter in definition.parameters] if definition else []
        hidden = hidden_spellings(tool, names)
        problems += _hidden_problems(tool, hidden)
        if definition is not None:
            problems += _match_problems(tool, definition, hidden)
    return [problem.as_error() for problem in problems]


def _read(code: str) -> tuple[Definition | None, list[Problem]]:
    if is_dotted_path(code):
        try:
            return load(code), []
        except ToolDefinitionError as error:
            return None, [Problem(str(error), error.line)]
    definition, problems = read_source(code)
    if problems:
        return definition, list(problems)
    try:
        return definition, source_problems(code)
    except (MissingExtra, PoolUnavailable) as error:
        return definition, [Problem(str(error))]


def _spec_problems(spec: Any) -> Iterator[Problem]:
    """Is it a function object of OpenAI's format whose parameters are a valid JSON Schema?"""
    if not isinstance(spec, Mapping):
        yield Problem("The spec is not an object.", field=SPEC)
        return
    if not plain_json(spec):
        yield Problem("The spec is not JSON.", field=SPEC)
        return
    if "function" in spec:
        yield Problem('Give only what stands under "function": name, description and parameters.', field=SPEC)
        return
    for key in sorted(set(spec) - _SPEC_KEYS):
        yield Problem(f"{key!r} is not a key of a function object; it has {_listed(_SPEC_KEYS)}.", field=SPEC)
    name = spec.get("name")
    if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
        yield Problem(f'"name" must be 1 to 64 of a-z A-Z 0-9 _ -, and is {name!r:.100}.', field=SPEC)
    if not isinstance(spec.get("description", ""), str):
        yield Problem('"description" is not text.', field=SPEC)
    if not isinstance(spec.get("strict", False), bool):
        yield Problem('"strict" is neither true nor false.', field=SPEC)
    yield from _schema_problems(spec.get("parameters", {"type": "object"}))


def _schema_problems(schema: Any) -> Iterator[Problem]:
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        yield Problem('"parameters" must be a JSON Schema with "type": "object".', field=SPEC)
        return
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        where = error.json_path.removeprefix("$")[:100]
        yield Problem(f'"parameters{where}" is not a valid JSON Schema: {error.message:.300}.', field=SPEC)
        return
    except RecursionError:
        yield Problem('"parameters" is nested too deeply.', field=SPEC)
        return
    properties = schema.get("properties", {})
    for name in sorted(set(schema.get("required", [])) - set(properties)):
        yield Problem(f"{name!r} is required and not among the properties.", field=SPEC)
    for ref in _refs(schema):
        if not _LOCAL_REF.fullmatch(ref):
            yield Problem(f"$ref {ref!r:.100} points outside of the spec.", field=SPEC)


def _refs(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield from (part[key] for key in ("$ref", "$dynamicRef") if isinstance(part.get(key), str))
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _value_problems(tool: ToolSpec) -> Iterator[Problem]:
    names = [name for name in tool.context_params if isinstance(name, str) and name.isidentifier()]
    if len(names) < len(tool.context_params):
        wrong = next(name for name in tool.context_params if name not in names)
        yield Problem(f"{wrong!r:.100} is not a name.", field=CONTEXT)
    counts = Counter(plain_name(name) for name in names)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield Problem(f"{name!r} is listed twice.", field=CONTEXT)
    if not isinstance(tool.defaults, Mapping) or not plain_json(tool.defaults):
        yield Problem("The defaults are not a JSON object.", field=DEFAULTS)
    if not isinstance(tool.bounds, Mapping):
        yield Problem("The bounds are not an object.", field="bounds")
        return
    for name, value in tool.bounds.items():
        if name not in _BOUNDS:
            yield Problem(f"{name!r} is not a bound; there are {_listed(_BOUNDS)}.", field="bounds")
        elif not _is_positive(value, whole=name != "timeout"):
            yield Problem(f"{name} must be a positive number, and is {value!r:.100}.", field=name)


def _hidden_problems(tool: ToolSpec, hidden: frozenset[str]) -> Iterator[Problem]:
    for name in tool.spec.get("parameters", {}).get("properties", {}):
        if spelling(name) in hidden:
            yield Problem(f"The spec lists {name!r}, which is a context param: the model must not see it.", field=SPEC)


def _match_problems(tool: ToolSpec, definition: Definition, hidden: frozenset[str]) -> Iterator[Problem]:
    """Do spec, context params and defaults fit the function?"""
    parameters = {parameter.name: parameter for parameter in definition.parameters}
    plain = {plain_name(name) for name in parameters}
    properties = tool.spec.get("parameters", {}).get("properties", {})
    if tool.spec["name"] != definition.name:
        yield Problem(f"The spec's name {tool.spec['name']!r} is not the function's, {definition.name!r}.", field=SPEC)
    for name in properties:
        if name not in parameters:
            yield Problem(f"The spec has {name!r}, which the function does not take.", field=SPEC)
    for field, names in ((CONTEXT, tool.context_params), (DEFAULTS, tool.defaults)):
        for name in names:
            if plain_name(name) not in plain:
                yield Problem(f"The function does not take {plain_name(name)!r}.", field=field)
    required = set(tool.spec.get("parameters", {}).get("required", []))
    for name, parameter in parameters.items():
        if parameter.default is NO_DEFAULT and spelling(name) not in hidden and name not in required:
            state = "is optional in the spec" if name in properties else "is neither in the spec nor a context param"
            yield Problem(
                f"The function needs {name!r}, which {state}.",
                parameter.line,
                CODE if definition.line else SPEC,
            )


def _is_positive(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 < value < float("inf")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
