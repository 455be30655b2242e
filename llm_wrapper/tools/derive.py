"""From a function's signature and docstring to the spec that a model reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import docstring_parser

from .context import is_dunder, plain_name, spelling
from .definition import NO_DEFAULT, Definition, Parameter, Problem, joined_error, load
from .registry import FUNCTION_NAME
from .result import plain_json
from .schema import UnknownType, annotation_schema, schema_problems


@dataclass(frozen=True)
class Described:
    """What a tool's code says of itself.

    `spec` is an OpenAI function object with the parameters that the model may set; `context_params` are the
    plain names of the others; `defaults` are the defaults that those have in the signature.
    """

    spec: dict[str, Any]
    context_params: list[str] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)


def describe(code: str, context_params: Collection[str] = ()) -> Described:
    """Derive spec, context params and their defaults from a tool's code: source, or a dotted path.

    Source is parsed and never run; a dotted path is imported. A parameter written `__name__` is a context
    param, as are those listed in `context_params`. Every other one needs a type and a description in the
    docstring (Google, NumPy or reST style). Raises one ToolDefinitionError that tells all problems.
    """
    definition = load(code)
    listed = {plain_name(name) for name in context_params}
    hidden = {p.name: plain_name(p.name) for p in definition.parameters if is_dunder(p.name)}
    hidden |= {p.name: p.name for p in definition.parameters if p.name in listed}
    visible = [p for p in definition.parameters if p.name not in hidden]

    docstring = docstring_parser.parse(definition.doc)
    told = {param.arg_name: param.description or "" for param in docstring.params}
    problems = [*_name_problems(definition, listed, hidden)]
    properties: dict[str, Any] = {}
    for parameter in visible:
        problems += _property(parameter, told.get(parameter.name, ""), properties)
    defaults: dict[str, Any] = {}
    for parameter in definition.parameters:
        if parameter.name in hidden and parameter.default is not NO_DEFAULT:
            if plain_json(parameter.default):
                defaults[hidden[parameter.name]] = parameter.default
            else:
                problems.append(Problem(f"The default of {parameter.name!r} is not JSON.", parameter.line))
    if problems:
        raise joined_error(problems)

    description = "\n\n".join(filter(None, (docstring.short_description, docstring.long_description)))
    spec = {
        "name": definition.name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": [p.name for p in visible if p.default is NO_DEFAULT],
            "additionalProperties": False,
        },
    }
    return Described(spec, list(dict.fromkeys(hidden.values())), defaults)


def _name_problems(definition: Definition, listed: set[str], hidden: dict[str, str]) -> Iterator[Problem]:
    if not FUNCTION_NAME.fullmatch(definition.name):
        yield Problem(
            f"{definition.name!r} is not a name that models accept; use 1 to 64 of a-z A-Z 0-9 _ -.",
            definition.line,
        )
    for name in sorted(listed - set(hidden.values())):
        yield Problem(f"The context param {name!r} is not a parameter of {definition.function_name!r}.")
    spellings = {spelling(name): name for name in hidden}
    for parameter in definition.parameters:
        if parameter.name not in hidden and (taken := spellings.get(spelling(parameter.name))):
            yield Problem(
                f"{parameter.name!r} and the context param {taken!r} are too alike; rename one of them.",
                parameter.line,
            )


def _property(parameter: Parameter, description: str, properties: dict[str, Any]) -> Iterator[Problem]:
    """Add the property of one parameter; yields what keeps it from being complete."""
    name, line = parameter.name, parameter.line
    if not description.strip():
        yield Problem(f"The docstring does not describe {name!r}; the model needs that to fill it.", line)
    if parameter.annotation is NO_DEFAULT:
        yield Problem(f"{name!r} has no type; write {name}: str, or whatever it is.", line)
        return
    try:
        schema = annotation_schema(parameter.annotation)
    except UnknownType as error:
        yield Problem(f"{name!r}: {error}.", line)
        return
    properties[name] = {**schema, "description": description.strip()}
    if parameter.default is not NO_DEFAULT:
        if not plain_json(parameter.default) or schema_problems(schema, parameter.default):
            yield Problem(f"The default {parameter.default!r:.100} of {name!r} does not fit its type.", line)
        properties[name]["default"] = parameter.default
