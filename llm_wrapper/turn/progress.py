"""What a running turn has gathered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from llm_wrapper.conf import conf
from llm_wrapper.errors import TurnTimeout
from llm_wrapper.types import (
    Completion,
    Usage,
)

from .job import TurnJob


@dataclass
class Progress:
    """What a running turn has gathered so far.

    `probing` is the config whose next call is a probe of it, '' where there is none to report on.
    """

    job: TurnJob
    journal: Any
    state: Any
    call: Any = None
    request: Any = None
    deltas: int = 0
    unsaved_text: str = ""
    tool_runs: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    cost: Any = 0
    repaired: bool = False
    summary_failed: bool = False
    finished: bool = False
    parsed: Any = None
    probing: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def ids(self) -> dict[str, Any]:
        return {"turn_id": self.state.turn_id, "chat_id": self.state.chat_id}

    def time_left(self) -> float:
        """Seconds that the turn may still take. Raises TurnTimeout where none are left."""
        left = self.started + conf.turn_timeout - time.monotonic()
        if left <= 0:
            raise self.time_is_up()
        return left

    def time_is_up(self) -> TurnTimeout:
        return TurnTimeout(
            f"The turn took longer than {conf.turn_timeout:g} s (LLM_WRAPPER_TURN_TIMEOUT) and was ended; what it has "
            "done is on record. Send again, or raise the limit."
        )

    def count(self, completion: Completion) -> None:
        """Add a call's usage and cost to the turn's; one unknown makes the sum unknown."""
        self.usage = Usage(
            **{
                name: _sum(getattr(self.usage, name), getattr(completion.usage, name))
                for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
            }
        )
        self.cost = None if self.cost is None or completion.cost is None else self.cost + completion.cost


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
