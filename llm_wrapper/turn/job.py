"""What a turn is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_wrapper.types import PromptSpec


@dataclass(frozen=True)
class TurnJob:
    """One turn, described by values.

    `context` holds all context variables of the turn; of them only those that templates reference or the
    prompt logs are ever stored. `initial_steps` are written before the message, for a chat that has none yet.
    `sticky` is the config that the chat stays with, `draw` the route of the draw that chose it.
    `wait` is how many seconds a message waits for a turn that runs on its chat.
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
