"""What a turn asks its driver to do. The turn itself does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.events import Event
from llm_wrapper.types import Completion, ModelRequest


@dataclass(frozen=True)
class Do:
    """Call a function that reads or writes rows, cache or files; its result is sent back."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def do(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Do:
    return Do(function, args, kwargs)


@dataclass(frozen=True)
class CallModel:
    """Make the call. While text streams in, the driver passes it to `on_text` and the event on to the caller,
    and now and then what has come so far to `keep`. Sends back a `CallOutcome`."""

    request: ModelRequest
    on_text: Callable[[str], Event]
    keep: Callable[[str], Any]


@dataclass(frozen=True)
class CallOutcome:
    """What a call gave: a completion, or an error with what had arrived by then. Times in seconds."""

    completion: Completion | None
    error: LLMWrapperError | None
    partial_text: str
    latency: float
    time_to_first_token: float | None


@dataclass(frozen=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class RunTool:
    """Run a prepared tool call; sends back its `ToolResult` and the seconds it took."""

    prepared: Any


Effect = Do | CallModel | RunTool | Sleep
Machine = Generator[Effect | Event, Any, None]
