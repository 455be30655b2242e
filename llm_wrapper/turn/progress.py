"""What a running turn has gathered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_wrapper.types import (
    Completion,
    Usage,
)

from .job import TurnJob


@dataclass
class Progress:
    """What a running turn has gathered so far."""

    job: TurnJob
    journal: Any
    state: Any
    call: Any = None
    deltas: int = 0
    unsaved_text: str = ""
    tool_runs: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    cost: Any = 0
    repaired: bool = False
    finished: bool = False
    parsed: Any = None

    @property
    def ids(self) -> dict[str, Any]:
        return {"turn_id": self.state.turn_id, "chat_id": self.state.chat_id}

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
