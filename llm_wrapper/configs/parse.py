"""From the text of a YAML file to plain data, with no surprises on the way.

YAML 1.1 turns `2024-01-01` into a date, `no` into False and `012345` into 5349. Here every scalar stays the
text that was written; the schema of the config class then says what it is (see `schema.coerce`).

No message made here repeats a value: it could be a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 10_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_SHOWN_KEY = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")
_QUOTED = re.compile(r"'[^']{2,}'")


KeyPath = tuple[str | int, ...]


class Plain(str):
    """A scalar without quotes, or filled from the environment: the schema may read it as a number or bool."""

    __slots__ = ()


class BadYAML(ValueError):
    """The text cannot be used at all. The message holds no value of the file."""


@dataclass
class Document:
    """The mapping that a file holds.

    `from_environment` holds the paths of values that use `${NAME}` without a default written in the file;
    `problems` are pairs of path and reason.
    """

    values: dict[str, Any]
    from_environment: set[KeyPath] = field(default_factory=set)
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)


def parse(raw: bytes, environ: Mapping[str, str] | None = None) -> Document:
    """Read one YAML mapping and fill in its `${NAME}` references.

    Raises BadYAML where the text is not one bounded YAML mapping. A reference to a missing variable is a
    problem of the document, so that all of them are reported at once.
    """
    if len(raw) > MAX_BYTES:
        raise BadYAML(f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadYAML(f"is not UTF-8 text (byte {error.start})") from None
    document = Document({})
    document.values = _fill(_read(text), (), document, os.environ if environ is None else environ)
    return document


def dotted(path: KeyPath) -> str:
    """A key path as messages show it: `price.input`, `script[0].fail`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{shown(key)}"
    return text.removeprefix(".")


def shown(key: str) -> str:
    """A key as messages may show it: a slip of the pen can put a secret where a key should be."""
    return key if _SHOWN_KEY.fullmatch(key) else "(a key that is not a word)"


# -- YAML ------------------------------------------------------------------------------------------------


class _Loader(yaml.BaseLoader):
    """Composes nodes only, refuses what a config never needs, and is bounded in depth and number of nodes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise BadYAML(f"uses an anchor or alias (& or *){_at(event.start_mark)}; write the value out, or quote it")
        if getattr(event, "tag", None) not in (None, "!"):
            raise BadYAML(f"uses a tag (!){_at(event.start_mark)}; write the plain value, or quote it")
        self._nodes += 1
        if self._depth >= MAX_DEPTH or self._nodes > MAX_NODES:
            raise BadYAML(f"is nested deeper than {MAX_DEPTH} levels or holds more than {MAX_NODES} values")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _read(text: str) -> dict[str, Any]:
    try:
        # The reader checks the characters as soon as it is made.
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        # str(error) would quote the line, and the line may hold the key.
        problem = _QUOTED.sub(_hide_quoted, error.problem or "syntax error")
        raise BadYAML(f"is not valid YAML: {problem}{_at(error.problem_mark)}") from None
    except yaml.reader.ReaderError as error:
        raise BadYAML(f"holds a control character at position {error.position}") from None
    if node is None:
        raise BadYAML("is empty")
    if not isinstance(node, yaml.MappingNode):
        raise BadYAML("must hold `key: value` lines, one for each key")
    value = _construct(node)
    assert isinstance(value, dict)  # noqa: S101 - a MappingNode gives a dict
    return value


def _construct(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        if node.style:
            return node.value
        return None if node.value in _NULLS else Plain(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item) for item in node.value]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadYAML(f"has a key that is not a word{_at(key_node.start_mark)}")
        key = str(key_node.value)
        if key in mapping:
            raise BadYAML(f"has the key {shown(key)} twice{_at(key_node.start_mark)}")
        mapping[key] = _construct(value_node)
    return mapping


def _at(mark: Any) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _hide_quoted(match: re.Match[str]) -> str:
    # PyYAML quotes token names ('<block end>'), which help, and pieces of the file, which may be secret.
    return match[0] if re.fullmatch(r"'<[a-z ]+>'", match[0]) else "'...'"


# -- environment -----------------------------------------------------------------------------------------


def _fill(value: Any, path: KeyPath, document: Document, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, (*path, key), document, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, (*path, index), document, environ) for index, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        return _fill_text(value, path, document, environ)
    return value


def _fill_text(value: str, path: KeyPath, document: Document, environ: Mapping[str, str]) -> str:
    names, defaults = [], []

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if name is None:
            reason = "has `${` without a variable's NAME and `}`; write $${ for a literal ${"
            document.problems.append((path, reason))
            return ""
        names.append(name)
        if default:
            defaults.append(default)
        found = environ.get(name)
        if found is None and default is None:
            document.problems.append((path, f"the environment variable {name} is not set"))
        # As in a shell, `:-` also stands in for a variable that is set and empty.
        return found or default or ""

    filled = _REFERENCE.sub(replace, value)
    if not names:
        return type(value)(filled)
    if not defaults:
        document.from_environment.add(path)
    # A secret that was mounted from a file often ends in a newline, which no HTTP header survives.
    return Plain(filled.strip())
