"""A stage against the database: tried again where the database asks for it, a clear error where it is away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.db import OperationalError, connections, transaction
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from llm_wrapper.errors import DatabaseUnavailable
from llm_wrapper.models import ChatHistory

from .writers import in_line

P = ParamSpec("P")
R = TypeVar("R")

# PostgreSQL took this transaction back in favour of another: serialization_failure, deadlock_detected.
TRY_AGAIN = ("40001", "40P01")
ATTEMPTS = 3


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Run the function in one transaction, up to three times where PostgreSQL took it back.

    A first argument with `checkpoint` and `restore` (the state of a turn) is as before for each try.
    Raises DatabaseUnavailable where the database is locked for too long or cannot be reached.
    """

    return _guarded(function, transaction.atomic)


def statement(function: Callable[P, R]) -> Callable[P, R]:
    """The same for a function that needs no transaction, since it makes one change."""
    return _guarded(function, nullcontext)


def _guarded(function: Callable[P, R], block: Callable[[], AbstractContextManager[Any]]) -> Callable[P, R]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        connection = connections[ChatHistory.objects.db]
        nested = connection.in_atomic_block
        state: Any = args[0] if args and hasattr(args[0], "checkpoint") else None
        before = state.checkpoint() if state is not None else None
        policy = Retrying(
            # Inside another transaction only that one can be tried again.
            retry=retry_if_exception(lambda error: not nested and _taken_back(error)),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random(0, 0.1),
            reraise=True,
        )
        try:
            with in_line(connection):
                for attempt in policy:
                    with attempt, block():
                        try:
                            return function(*args, **kwargs)
                        except OperationalError:
                            if state is not None:
                                state.restore(before)
                            raise
        except OperationalError as error:
            if isinstance(error, DatabaseUnavailable):
                raise
            if not nested:
                connection.close_if_unusable_or_obsolete()
            raise DatabaseUnavailable(
                f"The database did not take a step of the chat: {str(error).strip()}. What was committed before is "
                "kept; try again in a moment."
            ) from error
        raise AssertionError("unreachable: the policy returns or raises")

    return run


def _taken_back(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and getattr(error.__cause__, "sqlstate", None) in TRY_AGAIN
