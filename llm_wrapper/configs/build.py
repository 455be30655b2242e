"""From the bytes of one file to a config, or to every reason why there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches

from .classes import LLMConfig, find_class
from .parse import BadYAML, Document, dotted, parse
from .schema import COMMON, Violation, coerce, unknown_key, violations

_CLASS = ("llm_config_class",)


@dataclass(frozen=True)
class Problem:
    """Why a file, or one key of it, cannot be used, without any value of it. `file` is '' for the folder."""

    file: str
    key: str
    reason: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.key) if part)
        return f"{where} {self.reason}" if where else self.reason


def build(file: str, raw: bytes) -> LLMConfig | list[Problem]:
    """The config that a file describes, or all its problems at once."""
    stem = os.path.splitext(file)[0]
    try:
        result = _build(stem, parse(raw))
    except BadYAML as error:
        return [Problem(file, "", str(error))]
    except Exception as error:  # noqa: BLE001 - comes from the project's own class; its text could hold a key
        return [Problem(file, "llm_config_class", f"names a class that raised {type(error).__name__}")]
    if isinstance(result, LLMConfig):
        return result
    return [Problem(file, dotted(path), reason) for path, reason in result]


def _build(stem: str, document: Document) -> LLMConfig | list[Violation]:
    from jsonschema import Draft202012Validator  # a quarter of a second that most commands do not need

    found = list(document.problems)
    class_name = document.values.get("llm_config_class")
    if class_name is None:
        near = get_close_matches("llm_config_class", document.values, n=1)
        return [*found, unknown_key((), near[0], COMMON) if near else (_CLASS, "is required")]
    try:
        cls = find_class(class_name)
    except LookupError as error:
        return [*found, (_CLASS, str(error.args[0]))]
    schema = cls.schema()
    values = coerce(document.values, schema)
    values.setdefault("name", stem)
    unset = {path for path, _ in found}
    found += [item for item in violations(Draft202012Validator(schema), values) if item[0] not in unset]
    broken = {path[0] for path, _ in found}
    if "name" not in broken and values["name"] != stem:
        found.append((("name",), "must be the name of the file without its ending; rename one of them"))
    found += cls.check({key: value for key, value in values.items() if key not in broken})
    if found:
        return found
    config = cls(values, document.from_environment)
    config.choice()  # what a class of the project's own gets wrong shows now, and not in a turn
    return config
