"""Which attributes of which types a template may use, and how the methods among them are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

from . import growth
from .budget import SEQUENCES, Budget, Group

Method = Callable[..., Any]


def _python(name: str) -> Method:
    """A method that takes time in proportion to its text and makes none that is much longer."""

    def method(budget: Budget, owner: Any, *args: Any) -> Any:
        return getattr(owner, name)(*args)

    return method


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    return growth.replaced(budget, text, old, new, count)


def _join(budget: Budget, text: str, values: Any) -> str:
    parts = [growth.words_of(value, "join") for value in budget.take(values)]
    return growth.joined(budget, parts, text)


def _split(name: str) -> Method:
    def method(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        return growth.pieces(budget, text, name, sep, maxsplit)

    return method


def _strip(name: str) -> Method:
    def method(budget: Budget, text: str, chars: str | None = None) -> str:
        return growth.stripped(budget, text, name, chars)

    return method


def _from_right(name: str) -> Method:
    def method(budget: Budget, text: str, sub: str, *places: int) -> Any:
        growth.product(budget, text, sub)
        return getattr(text, name)(sub, *places)

    return method


def _splitlines(budget: Budget, text: str, keepends: bool = False) -> list[str]:
    budget.split(text)
    budget.grow(len(text))
    return text.splitlines(keepends)


def _index(budget: Budget, owner: Any, value: Any, *places: int) -> int:
    budget.measure(owner)
    return int(owner.index(value, *places))


def _count(budget: Budget, owner: Any, value: Any) -> int:
    budget.measure(owner)
    return int(owner.count(value))


def _view(name: str) -> Method:
    """`keys`, `values` and `items` as lists: a view prints and compares in ways that are hard to bound."""

    def method(budget: Budget, owner: dict[Any, Any]) -> list[Any]:
        budget.step(len(owner))
        return list(getattr(owner, name)())

    return method


def _get(budget: Budget, owner: dict[Any, Any], key: Any, default: Any = None) -> Any:
    if type(key) in SEQUENCES:
        raise TypeError("a key of a dict is text or a number")
    return owner.get(key, default)


LINEAR = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier "
    "islower isnumeric isprintable isspace istitle isupper lower partition removeprefix removesuffix "
    "startswith swapcase title upper"
)
STR: dict[str, Method] = {
    **{name: _python(name) for name in LINEAR.split()},
    **{name: _from_right(name) for name in ("rfind", "rindex", "rpartition")},
    **{name: _strip(name) for name in ("strip", "lstrip", "rstrip")},
    **{name: _split(name) for name in ("split", "rsplit")},
    "join": _join,
    "replace": _replace,
    "splitlines": _splitlines,
}
DICT: dict[str, Method] = {"get": _get, **{name: _view(name) for name in ("keys", "values", "items")}}
LIST: dict[str, Method] = {"index": _index, "count": _count}
METHODS: dict[type, dict[str, Method]] = {str: STR, dict: DICT, list: LIST, tuple: LIST}

LOOP_METHODS = frozenset({"cycle", "changed"})
LOOP_VALUES = "depth depth0 first index index0 last length nextitem previtem revindex revindex0"
ATTRIBUTES: dict[type, frozenset[str]] = {
    **{kind: frozenset(methods) for kind, methods in METHODS.items()},
    Group: frozenset({"grouper", "list"}),
    LoopContext: LOOP_METHODS | frozenset(LOOP_VALUES.split()),
}
INSTEAD = {
    "format": "use the filter: '%s costs %.2f'|format(a, b)",
    "format_map": "use the filter: '%(a)s'|format(a=a)",
    "append": "build lists with +, or collect text with {% set %}",
    "update": "build dicts with dict(old, key=value)",
}


def is_allowed(owner: Any, name: str) -> bool:
    """Decided by the exact type and the name, without touching the object."""
    if type(owner) is Namespace:
        return not name.startswith("_")
    return name in ATTRIBUTES.get(type(owner), ())


def refusal(owner: Any, name: str) -> str:
    hint = INSTEAD.get(name)
    return f"'{name}' of type {type(owner).__name__} is not available in templates" + (f"; {hint}" if hint else "")


def call_method(budget: Budget, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a bound method of a built-in type."""
    owner = method.__self__
    call = METHODS.get(type(owner), {}).get(method.__name__)
    if call is None:
        raise SecurityError(refusal(owner, method.__name__))
    for value in (*args, *kwargs.values()):
        budget.measure(value)
    if type(owner) is str:
        budget.measure(owner)
    budget.check_time()
    result = call(budget, owner, *args, **kwargs)
    return result if result is owner or type(owner) is dict else budget.made(result)


def call_loop(budget: Budget, method: Any, args: tuple[Any, ...]) -> Any:
    """Calls `loop.cycle` or `loop.changed`."""
    for value in args:
        budget.measure(value)
    return method(*args)
