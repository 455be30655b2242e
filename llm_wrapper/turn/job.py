"""What a turn is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_wrapper import errors
from llm_wrapper.conf import conf
from llm_wrapper.types import PromptSpec, ResponseCache


@dataclass(frozen=True)
class TurnJob:
    """One turn, described by values.

    `context` holds all context variables of the turn; of them only those that templates reference or the
    prompt logs are ever stored. `initial_steps` are written before the message, for a chat that has none yet.
    `sticky` is the config that the chat stays with, `draw` the route of the draw that chose it.
    `wait` is how many seconds a message waits for a turn that runs on its chat.
    `any_model` says that `config_names` may be litellm model ids, too: never with names that come from outside.
    `replaces` is the primary key of the chat's newest turn, if this one gives its answer anew.
    `llm_user` is the user that answers are stored under. `response_cache` answers a repeated request from the cache.
    `fail_over` says whether a limited or dead config is replaced by another of `config_names`.
    """

    chat_id: int
    message: str
    spec: PromptSpec
    config_names: Sequence[str]
    context: Mapping[str, Any] = field(default_factory=dict)
    version: Any = None
    user: Any = None
    initial: bool = False
    fail_over: bool = False
    stream: bool = False
    sticky: str = ""
    draw: Mapping[str, Any] = field(default_factory=dict)
    response_format: Any = None
    idempotency_key: str | None = None
    wait: float = 0.0
    any_model: bool = False
    replaces: int | None = None
    llm_user: Any = None
    response_cache: ResponseCache | None = None


def checked_message(message: Any) -> str:
    """The user's message, or BadMessage."""
    if not isinstance(message, str):
        raise errors.BadMessage(f"A message must be text (str), not {type(message).__name__}.")
    if not message.strip():
        raise errors.BadMessage("The message is empty. Send some text.")
    if len(message) > conf.max_message_chars:
        raise errors.BadMessage(
            f"The message has {len(message)} characters; {conf.max_message_chars} are allowed "
            "(LLM_WRAPPER_MAX_MESSAGE_CHARS). Send it in parts, or raise the limit."
        )
    return message
