"""What a config may hold: the keys common to all, and the reasons why a value is refused.

jsonschema finds what is wrong; the words are made here, because jsonschema's own messages quote the value,
and the value may be a key.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .parse import KeyPath, Plain

Violation = tuple[KeyPath, str]

PRINTABLE = r"^[\x20-\x7e]*(?![\s\S])"
SECRET = {
    "type": "string",
    "minLength": 1,
    "pattern": PRINTABLE,
    "description": "printable ASCII characters on one line",
    "writeOnly": True,
}
TEXT = {"type": "string", "minLength": 1, "maxLength": 500}
ENDPOINT = {
    "type": "string",
    "pattern": r"^https?://[^\s/?#@]+([/?#]\S*)?(?![\s\S])",
    "description": "an address like https://host/path, without user name and password",
}
HEADERS = {"type": "object", "additionalProperties": SECRET, "writeOnly": True}
MONEY = {
    "type": "string",
    "pattern": r"^[0-9]{1,9}(\.[0-9]{1,12})?(?![\s\S])",
    "description": "an amount like 0.15",
}

COMMON: dict[str, Any] = {
    "name": {
        "type": "string",
        "pattern": r"^\w[\w .:@+-]{0,99}(?![\s\S])",
        "description": "1 to 100 letters, digits, spaces or . : @ + - _",
    },
    "llm_config_class": TEXT,
    "weight": {"type": "number", "minimum": 0, "maximum": 1_000_000, "default": 1},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
    "max_tokens": {"type": "integer", "minimum": 1},
    "context_window": {"type": "integer", "minimum": 256},
    "temperature": {"type": "number", "minimum": 0},
    "tools_enabled": {"type": "boolean", "default": True},
    "stream": {"type": "boolean", "default": True},
    "params": {"type": "object"},
    "price": {
        "type": "object",
        "properties": dict.fromkeys(("input", "output", "cached_input", "cache_write", "reasoning"), MONEY),
        "required": ["input", "output"],
        "additionalProperties": False,
    },
    "price_model": TEXT,
}

# Parameters that another key of the file, the turn or the transport sets.
# fmt: off
_RESERVED_PARAMS = frozenset({
    "name", "model", "messages", "tools", "stream", "stream_options", "timeout", "request_timeout",
    "max_tokens", "temperature", "response_format", "api_base", "base_url", "api_version", "organization",
    "custom_llm_provider", "num_retries", "max_retries", "retry_policy", "fallbacks", "mock_response",
    "mock_tool_calls", "demo_script", "extra_headers", "default_headers", "headers", "cache", "caching",
})
# fmt: on
_LOOKS_SECRET = re.compile(
    r"api_?key|access_?key|secret|passw|_token$|^token$|credential|authori[sz]ation|bearer", re.IGNORECASE
)

_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})(\.[0-9]{0,30})?([eE][-+]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TYPES = {
    "string": "text",
    "number": "a number, written without quotes",
    "integer": "a whole number, written without quotes",
    "boolean": "true or false",
    "object": "a block of `key: value` lines",
    "array": "a list of `- ` lines",
}


def looks_secret(key: str) -> bool:
    """Whether a key's name says that its value must not be shown."""
    return bool(_LOOKS_SECRET.search(key))


def coerce(value: Any, schema: Mapping[str, Any]) -> Any:
    """Read unquoted scalars as the type the schema asks for; text stays exactly as written.

    A key without a value counts as not given. Where the schema names no type, `true`, `12` and `0.5` are what
    they look like, and everything else (dates, `yes`, `012`) is text.
    """
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        others = others if isinstance(others, Mapping) else {}
        return {key: coerce(item, properties.get(key, others)) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [coerce(item, schema.get("items", {})) for item in value]
    if isinstance(value, Plain):
        types = schema.get("type", ("boolean", "integer", "number"))
        return _scalar(str(value), (types,) if isinstance(types, str) else types)
    return value


def _scalar(text: str, types: Iterable[str]) -> Any:
    types = set(types)
    if "boolean" in types and text in _BOOLEANS:
        return _BOOLEANS[text]
    if types & {"integer", "number"} and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def violations(validator: Any, values: Mapping[str, Any]) -> list[Violation]:
    """Every (path, reason) for which `values` breaks the validator's schema, each once, without any value."""
    found: dict[Violation, None] = {}
    for error in validator.iter_errors(values):
        for item in _explain(error):
            found[item] = None
    return list(found)


def _explain(error: Any) -> Iterator[Violation]:
    path: KeyPath = tuple(error.absolute_path)
    rule, wanted, schema = error.validator, error.validator_value, error.schema
    if rule == "required":
        for key in wanted:
            if key not in error.instance:
                yield (*path, key), "is required"
    elif rule == "additionalProperties" and wanted is False:
        known = schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                yield unknown_key(path, key, known)
    elif rule == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        yield path, "must be " + " or ".join(_TYPES.get(name, name) for name in names)
    elif rule == "enum":
        yield path, "must be one of: " + ", ".join(map(str, wanted))
    elif rule == "minLength":
        yield path, "is empty" if wanted == 1 else f"must have at least {wanted} characters"
    elif schema.get("minProperties") == schema.get("maxProperties") == 1 and rule.endswith("Properties"):
        yield path, "must hold exactly one of: " + ", ".join(schema.get("properties", {}))
    elif rule in _PHRASES:
        yield path, _PHRASES[rule].format(wanted)
    elif description := schema.get("description"):
        yield path, f"must be {description}"
    else:
        yield path, f"breaks the rule {rule!r}"


_PHRASES = {
    "minimum": "must be {} or more",
    "maximum": "must be {} or less",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} entries",
    "maxItems": "must have at most {} entries",
    "minProperties": "must have at least {} keys",
    "maxProperties": "must have at most {} keys",
}


def unknown_key(path: KeyPath, key: str, known: Iterable[str]) -> Violation:
    """The problem of a key that the config class does not have, with the nearest that it has."""
    names = sorted(known)
    near = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
    advice = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
    return (*path, key), f"is not a known key; {advice}"


def check_reserved(key: str, names: Iterable[str]) -> Iterator[Violation]:
    """Problems of names in the mapping `key` that would overwrite what is set elsewhere."""
    for name in names:
        if name in _RESERVED_PARAMS:
            yield (key, name), "cannot be set here: another key of the file, or the turn, sets it"


def check_params(params: Mapping[str, Any]) -> Iterator[Violation]:
    """Problems of `params`: what is set elsewhere, and what must not be shown, since params are shown."""
    yield from check_reserved("params", params)
    yield from _secret_keys(params, ("params",))


def _secret_keys(value: Any, path: KeyPath) -> Iterator[Violation]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if isinstance(key, str) and looks_secret(key):
            yield (*path, key), "looks like a secret, and params are shown; use api_key or extra_headers"
        yield from _secret_keys(item, (*path, key))
