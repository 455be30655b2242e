"""Operations on text that can grow it or cost more than its length, for filters and methods alike."""

from __future__ import annotations

from typing import Any

from .budget import Budget


def replaced(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    times = text.count(old)
    if count >= 0:
        times = min(times, count)
    budget.fits(len(text) + times * max(len(new) - len(old), 0))
    return text.replace(old, new, count)


def joined(budget: Budget, texts: list[str], separator: str) -> str:
    budget.fits(sum(map(len, texts)) + len(separator) * max(len(texts) - 1, 0))
    return separator.join(texts)


def stripped(budget: Budget, text: str, name: str, chars: str | None = None) -> str:
    product(budget, text, chars or "")
    return str(getattr(text, name)(chars))


def product(budget: Budget, text: str, other: str) -> None:
    """Counts work that can take len(text) * len(other), such as searching from the right."""
    budget.step(len(text) * len(other) // 10_000)


def pieces(budget: Budget, text: str, name: str, separator: str | None, limit: int) -> list[str]:
    """`split` and `rsplit`, never into more pieces than steps are left."""
    if name == "rsplit":
        product(budget, text, separator or "")
    most = budget.steps + 1
    parts: list[str] = getattr(text, name)(separator, most if limit < 0 else min(limit, most))
    budget.grow(len(text))
    return parts


def words_of(value: Any, what: str) -> str:
    """The value, which must be text: numbers are not silently turned into it."""
    if type(value) is not str:
        raise TypeError(f"{what} takes text, not a {type(value).__name__}")
    return value
