"""What is wrong with a prompt or a tool, as errors of the fields that hold it.

The admin's forms use this before they save, and so may any other place where people edit these rows. Nothing
here runs a tool's code or calls a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.exceptions import ValidationError

from . import prompts, tools
from .errors import LLMWrapperError, ToolDefinitionError
from .models import Tool
from .types import PromptSpec, ToolSpec

Errors = dict[str, list[ValidationError]]


def prompt_spec(data: Mapping[str, Any]) -> PromptSpec:
    """A prompt as a value, from the cleaned data of a form (missing fields are empty). Tools are left out."""
    return PromptSpec(
        name=data.get("name") or "",
        system=data.get("system_prompt_template") or "",
        user=data.get("user_prompt_template") or "",
        initial_messages=tuple(data.get("initial_messages_templates") or ()),
        required_kwargs=tuple(data.get("required_kwargs") or ()),
        logged_context_vars=tuple(data.get("logged_context_vars") or ()),
        model_params=data.get("model_params") or {},
        history_window=data.get("history_window"),
        history_tokens=data.get("history_tokens"),
        summarise_left_out=bool(data.get("summarise_left_out")),
        summary_instructions=data.get("summary_instructions") or "",
        replay_rendered=bool(data.get("replay_rendered")),
    )


def tool_spec(data: Mapping[str, Any]) -> ToolSpec:
    """A tool as a value, from the cleaned data of a form."""
    bounds = {key: data.get(key) for key in ("timeout", "max_memory", "max_output")}
    return ToolSpec(
        name=data.get("name") or "",
        code=data.get("tool_code") or "",
        spec=data.get("tool_json_spec") or {},
        context_params=tuple(data.get("context_params") or ()),
        defaults=data.get("default_values_for_non_llm_params") or {},
        idempotent=bool(data.get("idempotent")),
        bounds={key: value for key, value in bounds.items() if value is not None},
    )


def fill_spec(instance: Tool, raw: bool = False, **kwargs: Any) -> None:
    """Before a tool without a spec is saved: make spec and context params from its code (signal `pre_save`).

    Raises ToolDefinitionError where the code gives none. A fixture is loaded as it is.
    """
    if raw or instance.tool_json_spec:
        return
    described = tools.describe(instance.tool_code, context_params=tuple(instance.context_params))
    instance.tool_json_spec = described.spec
    instance.context_params = list(described.context_params)


def prompt_errors(prompt: PromptSpec | Mapping[str, Any]) -> Errors:
    """Everything that is wrong with a prompt's templates, by model field."""
    return by_field(prompts.check(prompt if isinstance(prompt, PromptSpec) else prompt_spec(prompt)))


# Names by which tools and templates learn who the user is. Callers of the API must not choose that.
IDENTITY = re.compile(
    r"(current_?|request_?|auth_?)?(user|account|customer|client|member|owner|tenant|session|org|organi[sz]ation)"
    r"(_?(id|pk|uuid|name|email|key))?|uid|e?mail|username|login|is_(staff|superuser|admin)|roles?|permissions?|groups?",
    re.IGNORECASE,
)


def api_errors(names: Iterable[str]) -> Errors:
    """What is wrong with the names in a prompt's `api_context_vars`: none may say who the user is."""
    found = [
        f"{name!r} says who the user is, and whoever calls the API could claim to be another. The server sets it: "
        "name a function of yours in LLM_WRAPPER_API_CONTEXT."
        for name in names
        if IDENTITY.fullmatch(name)
    ]
    return {"api_context_vars": [at_line(text) for text in found]} if found else {}


def tool_errors(tool: ToolSpec | Mapping[str, Any]) -> Errors:
    """Everything that is wrong with a tool's code, spec and parameters, by model field."""
    return by_field(tools.check(tool if isinstance(tool, ToolSpec) else tool_spec(tool)))


def by_field(errors: Iterable[LLMWrapperError]) -> Errors:
    """Errors as validation errors of the model fields they name; '' where they name none."""
    found: Errors = {}
    for error in errors:
        found.setdefault(getattr(error, "field", ""), []).extend(_field_errors(error))
    return found


def _field_errors(error: LLMWrapperError) -> Iterator[ValidationError]:
    text, field, line = str(error), getattr(error, "field", ""), getattr(error, "line", None)
    if isinstance(error, ToolDefinitionError):
        # One error may tell several: "There is no function. Line 3: ..."
        first, *rest = re.split(r"(?:^|(?<=\s))Line (\d+): ", text)
        if first.strip():
            yield at_line(first.strip(), None if rest else line, error.code)
        for number, part in zip(rest[::2], rest[1::2], strict=True):
            yield at_line(part.strip(), int(number), error.code)
        return
    # A prompt's error begins with the place, which the form shows by itself.
    place = re.match(rf"{re.escape(field)}(?:\[(\d+)\])?(?:, line \d+)?: ", text) if field else None
    if place is None or place[1] is None:
        yield at_line(text[place.end() :] if place else text, line, error.code)
        return
    # The line is one of the entry's text and not of the field.
    entry = f"entry {int(place[1]) + 1}" + (f", line {line}" if line else "")
    yield at_line(f"{entry}: {text[place.end() :]}", None, error.code)


def at_line(message: str, line: int | None = None, code: str = "invalid") -> ValidationError:
    """A validation error that says on which line it is, in its text and in `params["line"]`."""
    text = f"line {line}: {message}" if line else message
    # Django fills `params` into the message, so its own percent signs are doubled.
    return ValidationError(text.replace("%", "%%"), code=code, params={"line": line})
