"""The ways to make a call that are compared, one module each. A worker process imports exactly one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

Call = Callable[[], str]
AsyncCall = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Case:
    """One thing to measure. `kind` is plain, tool or stream; `variant` is one of the contender's own;
    `history` is how many messages stand before the new one, `window` how many of them may be sent."""

    kind: str
    variant: str = ""
    history: int = 0
    window: int | None = None


class Contender(Protocol):
    """`distribution` names the package whose version the page shows. `prepare` does what a program does once
    (clients, rows); only what it gives back is measured, and gives the answer's text."""

    distribution: str
    variants: tuple[str, ...]

    def __init__(self, base_url: str) -> None: ...

    def prepare(self, case: Case) -> Call: ...


MODULES = {
    "httpx": "httpx_bare",
    "openai": "openai_sdk",
    "litellm": "litellm_bare",
    "langchain": "langchain_chat",
    "pydantic-ai": "pydantic_agent",
    "django-ai-assistant": "django_assistant",
    "llm_wrapper-sqlite": "ours",
    "llm_wrapper-postgresql": "ours",
}


def make(name: str, base_url: str) -> Any:
    """The contender of that name. Raises ImportError where its library is not installed."""
    module = import_module(f"{__name__}.{MODULES[name]}")
    return module.Contender(base_url)
