"""Annotations to JSON Schema, and compiled validators. Annotations in source are read, never evaluated."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Optional, Union, get_args, get_origin

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

SUPPORTED = "str, int, float, bool, list[T], dict[str, T], Literal[...], Optional[T] and T | None"

_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_NAMES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "List": list,
    "dict": dict,
    "Dict": dict,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
    "None": None,
}
_MAX_MESSAGES = 10
_MAX_MESSAGE_CHARS = 300


class BrokenSchema(ValueError):
    """A tool's JSON Schema is not valid, or refers to something outside of itself."""


class UnknownType(ValueError):
    """An annotation that has no JSON Schema here; the message says which."""


def annotation_schema(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of an annotation: a type, a string, or a node of parsed source."""
    if isinstance(annotation, ast.expr):
        annotation = _from_ast(annotation)
    return _schema(annotation)


def _from_ast(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="typing" | "t"), attr=name):
            if name in _NAMES:
                return _NAMES[name]
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as text):
            return _from_text(text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_from_ast(left), _from_ast(right)]  # noqa: UP007 - built, not written
        case ast.Subscript(value=base, slice=index):
            return _subscript(node, _from_ast(base), index.elts if isinstance(index, ast.Tuple) else [index])
    raise UnknownType(f"the type {ast.unparse(node)} is not supported; use {SUPPORTED}")


def _from_text(text: str) -> Any:
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise UnknownType(f"the type {text!r} is not supported; use {SUPPORTED}") from None


def _subscript(node: ast.expr, base: Any, arguments: list[ast.expr]) -> Any:
    try:
        if base is Literal:
            return Literal[tuple(ast.literal_eval(argument) for argument in arguments)]
        values = tuple(_from_ast(argument) for argument in arguments)
        return base[values if len(values) > 1 else values[0]]
    except UnknownType:
        raise
    except (TypeError, ValueError, IndexError):
        raise UnknownType(f"the type {ast.unparse(node)} is not supported; use {SUPPORTED}") from None


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, str):
        return _schema(_from_text(hint))
    if hint is None or hint is type(None):
        return {"type": "null"}
    if origin is None and isinstance(hint, type) and hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if origin is list and len(arguments) == 1:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict and len(arguments) == 2 and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument) for argument in arguments]}
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise UnknownType(f"the type {name} is not supported; use {SUPPORTED}")


def _literal(values: tuple[Any, ...]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    if not kinds <= {str, int, bool, type(None)}:
        raise UnknownType("a Literal may hold text, whole numbers, True, False and None only")
    schema: dict[str, Any] = {"enum": list(values)}
    if len(kinds) == 1 and (kind := kinds.pop()) in _SCALARS:
        schema = {"type": _SCALARS[kind], **schema}
    return schema


def _is_integer(checker: Any, instance: Any) -> bool:
    return isinstance(instance, int) and not isinstance(instance, bool)


# JSON Schema counts 1.0 as an integer; a function annotated `int` does not want a float.
_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


@lru_cache(maxsize=512)
def _compiled(schema: str) -> Any:
    value = json.loads(schema)
    try:
        _Validator.check_schema(value)
    except (SchemaError, RecursionError) as error:
        raise BrokenSchema(f"The schema is not valid: {str(error)[:_MAX_MESSAGE_CHARS]}") from None
    # An empty registry: the default one would fetch a remote $ref over the network.
    return _Validator(value, registry=Registry())


def schema_problems(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What is wrong with `value`, in words that a model can act on; empty if nothing is.

    At most ten messages, each of bounded length. The validator is compiled once per schema. Raises
    BrokenSchema.
    """
    validator = _compiled(json.dumps(schema, sort_keys=True))
    messages: list[str] = []
    try:
        for error in validator.iter_errors(value):
            if len(messages) == _MAX_MESSAGES:
                messages.append("and more")
                break
            messages.append(_message(error))
    except RecursionError:
        messages.append("nested too deeply")
    except Unresolvable as error:
        raise BrokenSchema(f"The schema refers to {error.ref!r:.100}, which is not in it.") from None
    return messages


def _message(error: ValidationError) -> str:
    text = error.message
    if len(text) > _MAX_MESSAGE_CHARS:
        text = text[: _MAX_MESSAGE_CHARS // 2] + " ... " + text[-_MAX_MESSAGE_CHARS // 2 :]
    return f"{error.json_path.removeprefix('$').removeprefix('.')[:100]}: {text}".removeprefix(": ")
