"""What can be said of a prompt without rendering it: is it valid, which variables does it need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MissingContextVariables, TemplateInvalid
from ..types import PromptSpec
from .compiled import Compiled, compiled
from .params import params_problems
from .syntax import Unusable

SYSTEM = "system_prompt_template"
USER = "user_prompt_template"
INITIAL = "initial_messages_templates"
REQUIRED = "required_kwargs"
LOGGED = "logged_context_vars"

MESSAGE_NAMES = frozenset({"user_msg", "message"})
ROLES = ("assistant", "user")


@dataclass(frozen=True)
class Part:
    """One template of a prompt; `place` is its field as people read it."""

    field: str
    place: str
    text: str

    def compiled(self) -> Compiled:
        """The compiled template, or TemplateInvalid for the first problem."""
        try:
            return compiled(self.text)
        except Unusable as error:
            problem = self.problem(*error.problems[0])
        raise problem

    def problem(self, line: int | None, sentence: str) -> TemplateInvalid:
        where = self.place if line is None else f"{self.place}, line {line}"
        return TemplateInvalid(f"{where}: {sentence}", field=self.field, line=line)


def check(spec: PromptSpec) -> list[TemplateInvalid]:
    """Everything that is wrong with a prompt, at once. Renders nothing."""
    return [
        *_template_problems(spec),
        *_name_problems(spec.required_kwargs, REQUIRED),
        *_name_problems(spec.logged_context_vars, LOGGED),
        *params_problems(spec),
    ]


def referenced(spec: PromptSpec) -> frozenset[str]:
    """The context variables that any template of the prompt looks up. Raises TemplateInvalid."""
    return frozenset().union(*(part.compiled().names for part in parts(spec))) - MESSAGE_NAMES


def required(spec: PromptSpec) -> frozenset[str]:
    """The context variables without which the prompt cannot be rendered. Raises TemplateInvalid.

    These are `required_kwargs` and whatever a template looks up without a guard in that same template: a
    test `is defined` or `is undefined`, a `default` filter, or a `{% set %}` of that name.
    """
    needed = set(names_in(spec.required_kwargs, REQUIRED))
    for part in parts(spec):
        template = part.compiled()
        needed |= template.names - template.guarded - template.assigned
    return frozenset(needed) - MESSAGE_NAMES


def require(spec: PromptSpec, context: Mapping[str, Any], where: str = "") -> None:
    """Raises MissingContextVariables with all names that are missing; a required_kwarg must not be None."""
    missing = required(spec) - context.keys()
    missing |= {name for name in spec.required_kwargs if name not in MESSAGE_NAMES and context.get(name) is None}
    if missing:
        raise MissingContextVariables(missing, where)


def parts(spec: PromptSpec) -> Iterator[Part]:
    """The templates of a prompt, or TemplateInvalid where a field does not hold what it should."""
    yield text_part(spec.system, SYSTEM)
    yield from initial_parts(spec)
    yield text_part(spec.user, USER)


def text_part(text: Any, field: str) -> Part:
    if not isinstance(text, str):
        raise TemplateInvalid(f"{field}: Must be text, not {type(text).__name__}.", field=field)
    return Part(field, field, text)


def initial_parts(spec: PromptSpec) -> list[Part]:
    """The contents of the initial messages, or TemplateInvalid for the first that is none."""
    for problem in _shape_problems(spec.initial_messages):
        raise problem
    return [_initial_part(index, message) for index, message in enumerate(spec.initial_messages)]


def _initial_part(index: int, message: Mapping[str, str]) -> Part:
    return Part(INITIAL, f"{INITIAL}[{index}]", message["content"])


def names_in(names: Any, field: str) -> tuple[str, ...]:
    """A list of variable names, or TemplateInvalid."""
    for problem in _name_problems(names, field):
        raise problem
    return tuple(names)


def _template_problems(spec: PromptSpec) -> Iterator[TemplateInvalid]:
    yield from _text_problems(spec.system, SYSTEM)
    messages = spec.initial_messages
    yield from _shape_problems(messages)
    for index, message in enumerate(messages if isinstance(messages, (list, tuple)) else ()):
        if not list(_message_problems(index, message)):
            yield from _part_problems(_initial_part(index, message))
    yield from _text_problems(spec.user, USER)


def _text_problems(text: Any, field: str) -> Iterator[TemplateInvalid]:
    try:
        part = text_part(text, field)
    except TemplateInvalid as error:
        yield error
    else:
        yield from _part_problems(part)


def _part_problems(part: Part) -> Iterator[TemplateInvalid]:
    try:
        template = compiled(part.text)
    except Unusable as error:
        yield from (part.problem(line, sentence) for line, sentence in error.problems)
        return
    early = template.names & MESSAGE_NAMES - template.guarded - template.assigned
    if early and part.field != USER:
        yield part.problem(None, f"'{min(early)}' is the user's message, which only {USER} knows. Use another name.")


def _shape_problems(messages: Any) -> Iterator[TemplateInvalid]:
    if not isinstance(messages, (list, tuple)):
        sentence = 'Must be a list of {"role": "assistant" or "user", "content": text}.'
        yield TemplateInvalid(f"{INITIAL}: {sentence}", field=INITIAL)
        return
    for index, message in enumerate(messages):
        yield from _message_problems(index, message)


def _message_problems(index: int, message: Any) -> Iterator[TemplateInvalid]:
    def problem(sentence: str) -> TemplateInvalid:
        return TemplateInvalid(f"{INITIAL}[{index}]: {sentence}", field=INITIAL)

    if not isinstance(message, Mapping):
        yield problem(f'Must be {{"role": ..., "content": ...}}, not {type(message).__name__}.')
        return
    if extra := sorted(str(key) for key in message if key not in ("role", "content")):
        yield problem(f"Takes only role and content, not {', '.join(extra)}.")
    if message.get("role") not in ROLES:
        yield problem("The role must be assistant or user; the system text has its own field.")
    if not isinstance(message.get("content"), str):
        yield problem("The content must be text.")


def _name_problems(names: Any, field: str) -> Iterator[TemplateInvalid]:
    if not isinstance(names, (list, tuple)):
        yield TemplateInvalid(f'{field}: Must be a list of names, such as ["question"].', field=field)
        return
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            shown = repr(name)[:60]
            yield TemplateInvalid(f"{field}: {shown} is not a name. Use letters, digits and underscores.", field=field)
