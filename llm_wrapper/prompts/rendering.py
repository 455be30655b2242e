"""Renders prompts. Only plain data goes in, and every error says field and line but never a value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jinja2.exceptions import SecurityError, TemplateRuntimeError

from ..errors import MissingContextVariables, PromptError, TemplateFailed, TemplateTooExpensive
from ..types import PromptSpec
from .budget import Budget
from .compiled import Compiled
from .environment import UnknownName
from .specs import (
    LOGGED,
    MESSAGE_NAMES,
    SYSTEM,
    USER,
    Part,
    initial_parts,
    names_in,
    referenced,
    require,
    text_part,
)
from .values import plain

# Errors whose text comes from Python or this package and names types, not values.
TELLING = (TypeError, ZeroDivisionError, SecurityError, TemplateRuntimeError)


def render_system(spec: PromptSpec, context: Mapping[str, Any]) -> str:
    """The system text; '' where the prompt has none."""
    return _render(text_part(spec.system, SYSTEM), context)


def render_initial(spec: PromptSpec, context: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages that open the chat, as `{"role", "content"}`."""
    return [
        {"role": message["role"], "content": _render(part, context)}
        for message, part in zip(spec.initial_messages, initial_parts(spec), strict=True)
    ]


def render_user(spec: PromptSpec, message: str, context: Mapping[str, Any]) -> str:
    """The user's message as the model gets it: as it is, where the prompt has no user template.

    The template sees the message as `user_msg` and `message`: a value, whatever it says.
    """
    part = text_part(spec.user, USER)
    return _render(part, context, message) if part.text else message


def preview(spec: PromptSpec, message: str, context: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of a first turn, made as a turn makes them. No system text, no system message."""
    require(spec, context)
    system = render_system(spec, context)
    return [
        *([{"role": "system", "content": system}] if system else []),
        *render_initial(spec, context),
        {"role": "user", "content": render_user(spec, message, context)},
    ]


def remembered(spec: PromptSpec, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat may keep of its context: what templates look up and what is to be logged, as JSON data.

    A variable that only a tool uses, such as a token, is not in it.
    """
    return _picked(context, referenced(spec) | set(names_in(spec.logged_context_vars, LOGGED)))


def logged(spec: PromptSpec, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a user step records of the context: `logged_context_vars`, as JSON data."""
    return _picked(context, names_in(spec.logged_context_vars, LOGGED))


def _picked(context: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return plain({name: context[name] for name in sorted(names) if name in context})


def _render(part: Part, context: Mapping[str, Any], message: str | None = None) -> str:
    template = part.compiled()
    values = _picked(context, template.names - MESSAGE_NAMES)
    if message is not None:
        values |= dict.fromkeys(MESSAGE_NAMES, str.__str__(message))
    try:
        return template.render(values, Budget.from_settings())
    except Exception as error:  # noqa: BLE001 - whatever a template does, its author gets a PromptError
        failure = _explained(error, part, template)
    # Raised out here so that the first error, whose frames hold the context, is not attached to this one.
    raise failure


def _explained(error: Exception, part: Part, template: Compiled) -> PromptError:
    line = template.line(error.__traceback__)
    where = part.place if line is None else f"{part.place}, line {line}"
    if isinstance(error, UnknownName):
        name = str(error.message)
        if name in MESSAGE_NAMES:
            return TemplateFailed(f"{where}: only {USER} knows '{name}'.", field=part.field, line=line)
        if name not in template.assigned:
            return MissingContextVariables([name], where)
        return TemplateFailed(f"{where}: '{name}' is used but not set here.", field=part.field, line=line)
    if isinstance(error, TemplateTooExpensive):
        return TemplateTooExpensive(f"{where}: Stopped, since {error}.", field=part.field, line=line)
    if isinstance(error, (RecursionError, MemoryError)):
        return TemplateTooExpensive(
            f"{where}: Stopped, since it goes too deep or takes too much memory.", field=part.field, line=line
        )
    kind = type(error).__name__
    told = isinstance(error, TELLING)
    reason = str(error).rstrip(".") if told else f"{kind} (its text may hold data and is left out)"
    return TemplateFailed(f"{where}: {reason}.", field=part.field, line=line)
