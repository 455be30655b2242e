"""How a filter of templates is registered, and what several filters share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from jinja2.utils import pass_context

from ..budget import DATA, Budget, is_undefined, refuse, usable

FILTERS: dict[str, Callable[..., Any]] = {}


def template_filter(*names: str, deep: bool = True, undefined: bool = False) -> Callable[[Any], Any]:
    """Registers a filter whose arguments are data, counted before and its result after.

    `deep=False` is for filters that do not look into the values; `undefined` lets the first value be so.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context
        @wraps(function)
        def call(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            budget: Budget = context.budget
            budget.step()
            budget.check_time()
            for index, part in enumerate((value, *args, *kwargs.values())):
                if undefined and not index and is_undefined(part):
                    continue
                if type(part) not in DATA:
                    refuse(part, f"given to the filter '{names[0]}'")
                if deep:
                    budget.measure(part)
            result = function(context, value, *args, **kwargs)
            return usable(result) if result is value or not deep else budget.made(result)

        for name in names:
            FILTERS[name] = call
        return function

    return register


def getter(context: Any, attribute: Any, default: Any = None, *, fold: bool = False) -> Callable[[Any], Any]:
    """A function that follows "a.b.0" into a value; `fold` makes text compare without case."""
    if attribute is None:
        parts: list[Any] = []
    elif type(attribute) is str:
        parts = [int(part) if part.isdecimal() and len(part) < 10 else part for part in attribute.split(".")]
    elif type(attribute) is int:
        parts = [attribute]
    else:
        raise TypeError("attribute= takes a name or an index")

    def get(item: Any) -> Any:
        context.budget.step()
        for part in parts:
            item = context.environment.lookup(item, part)
            if is_undefined(item) and default is not None:
                item = default
        return item.casefold() if fold and type(item) is str else item

    return get


def sort_keys(context: Any, attribute: Any, case_sensitive: bool) -> Callable[[Any], Any]:
    """A sort key; "a,b" sorts by a, then b."""
    names = attribute.split(",") if type(attribute) is str else [attribute]
    getters = [getter(context, name, fold=not case_sensitive) for name in names]
    if len(getters) == 1:
        return getters[0]
    return lambda item: [get(item) for get in getters]


def text_of(context: Any, value: Any) -> str:
    return str(context.budget.as_text(value))
