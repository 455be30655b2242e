"""Context params: the parameters of a tool that the model neither sees nor sets."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from llm_wrapper.types import ToolSpec


def is_dunder(name: str) -> bool:
    """True for `__name__`, the spelling that makes any parameter a context param."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def plain_name(name: str) -> str:
    """The context variable that fills a context param: `__user_id__` and `user_id` both give `user_id`."""
    return name[2:-2] if is_dunder(name) else name


def spelling(name: str) -> str:
    """A form that all spellings of a name share, for telling whether the model means a context param."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip("_")


def by_plain_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` keyed by plain names; a plain spelling wins over the dunder one."""
    dunder = {plain_name(name): value for name, value in values.items() if is_dunder(name)}
    return dunder | {name: value for name, value in values.items() if not is_dunder(name)}


def hidden_spellings(tool: ToolSpec, parameters: Iterable[str] = ()) -> frozenset[str]:
    """The spellings of every name that is not the model's to set.

    That is the tool's context params, the names it has defaults for, and whatever is written `__name__` in
    its spec or among its function's `parameters`.
    """
    properties = tool.spec.get("parameters", {}).get("properties", {})
    dunder = (name for name in (*parameters, *properties) if is_dunder(name))
    return frozenset(spelling(name) for name in (*tool.context_params, *tool.defaults, *dunder))


def visible_parameters(tool: ToolSpec) -> dict[str, Any]:
    """The JSON Schema of the parameters that the model may set."""
    schema: dict[str, Any] = dict(tool.spec.get("parameters") or {"additionalProperties": False})
    schema.setdefault("type", "object")
    hidden = hidden_spellings(tool)
    schema["properties"] = {
        name: value for name, value in schema.get("properties", {}).items() if spelling(name) not in hidden
    }
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if spelling(name) not in hidden]
    return schema


def visible_spec(tool: ToolSpec) -> dict[str, Any]:
    """The entry of `tools` in a request to a model, context params cut."""
    return {"type": "function", "function": {**tool.spec, "parameters": visible_parameters(tool)}}
