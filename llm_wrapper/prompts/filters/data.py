"""Filters on lists and dicts. They give lists, where Jinja's give generators."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby as grouped
from typing import Any

from .. import growth
from ..budget import Group, is_undefined, usable
from .registry import getter, sort_keys, template_filter, text_of


@template_filter("length", "count", deep=False)
def length(context: Any, value: Any) -> int:
    return len(value)


@template_filter("default", "d", deep=False, undefined=True)
def default(context: Any, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if is_undefined(value) or (boolean and not value) else value


@template_filter("first", deep=False)
def first(context: Any, value: Any) -> Any:
    return next(iter(value), context.environment.undefined("there is no first item"))


@template_filter("last", deep=False)
def last(context: Any, value: Any) -> Any:
    return next(iter(reversed(value)), context.environment.undefined("there is no last item"))


@template_filter("list", deep=False)
def list_(context: Any, value: Any) -> list[Any]:
    return list(context.budget.take(value))


@template_filter("reverse", deep=False)
def reverse(context: Any, value: Any) -> Any:
    return context.budget.text(value[::-1]) if type(value) is str else context.budget.take(value)[::-1]


@template_filter("items", deep=False)
def items(context: Any, value: Any) -> list[Any]:
    if type(value) is not dict:
        raise TypeError("items takes a dict")
    context.budget.step(len(value))
    return list(value.items())


@template_filter("join")
def join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    get, parts, size = getter(context, attribute), [], 0
    for item in context.budget.take(value):
        parts.append(text_of(context, get(item)))
        size += len(parts[-1])
        context.budget.fits(size)
    return growth.joined(context.budget, parts, text_of(context, d))


@template_filter("sort")
def sort(
    context: Any, value: Any, reverse: bool = False, case_sensitive: bool = False, attribute: Any = None
) -> list[Any]:
    return _sorted(context, context.budget.take(value), sort_keys(context, attribute, case_sensitive), reverse)


def _sorted(context: Any, values: list[Any], key: Callable[[Any], Any], reverse: bool = False) -> list[Any]:
    keys = [key(value) for value in values]
    context.budget.measure(keys, times=len(keys).bit_length())
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)
    return [values[index] for index in order]


@template_filter("dictsort")
def dictsort(
    context: Any, value: Any, case_sensitive: bool = False, by: str = "key", reverse: bool = False
) -> list[Any]:
    if by not in ("key", "value"):
        raise TypeError("by is 'key' or 'value'")
    key = getter(context, int(by == "value"), fold=not case_sensitive)
    return _sorted(context, items(context, value), key, reverse)


@template_filter("unique")
def unique(context: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> list[Any]:
    get = getter(context, attribute, fold=not case_sensitive)
    found: dict[Any, Any] = {}
    for item in context.budget.take(value):
        found.setdefault(get(item), item)
    return list(found.values())


@template_filter("min")
def min_(context: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(context, min, value, case_sensitive, attribute)


@template_filter("max")
def max_(context: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
    return _extreme(context, max, value, case_sensitive, attribute)


def _extreme(context: Any, choose: Any, value: Any, case_sensitive: bool, attribute: Any) -> Any:
    values = context.budget.take(value)
    if not values:
        return context.environment.undefined("there is no smallest or largest of nothing")
    return choose(values, key=getter(context, attribute, fold=not case_sensitive))


@template_filter("groupby")
def groupby(context: Any, value: Any, attribute: Any, default: Any = None, case_sensitive: bool = False) -> list[Group]:
    key = getter(context, attribute, default, fold=not case_sensitive)
    shown = getter(context, attribute, default)
    groups = (list(same) for _, same in grouped(_sorted(context, context.budget.take(value), key), key))
    return [Group(shown(same[0]), same) for same in groups]


@template_filter("batch", deep=False)
def batch(context: Any, value: Any, linecount: int, fill_with: Any = None) -> list[Any]:
    values = context.budget.take(value)
    if linecount < 1:
        raise TypeError("batch takes a size of at least 1")
    rows = [values[at : at + linecount] for at in range(0, len(values), linecount)]
    if rows and fill_with is not None:
        missing = linecount - len(rows[-1])
        context.budget.step(missing)
        rows[-1] += [fill_with] * missing
    return rows


@template_filter("slice", deep=False)
def slice_(context: Any, value: Any, slices: int, fill_with: Any = None) -> list[Any]:
    values = context.budget.take(value)
    context.budget.step(max(slices, 0))
    size, longer = divmod(len(values), slices)
    columns, at = [], 0
    for number in range(slices):
        end = at + size + (number < longer)
        columns.append(values[at:end] + ([fill_with] if fill_with is not None and number >= longer else []))
        at = end
    return columns


# -- each of a list --------------------------------------------------------------------------------------


@template_filter("map", deep=False)
def map_(context: Any, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
    if not args and "attribute" in kwargs:
        get = getter(context, kwargs.pop("attribute"), kwargs.pop("default", None))
        if kwargs:
            raise TypeError("map(attribute=...) takes only default= besides")
        return [get(item) for item in context.budget.take(value)]
    if not args:
        raise TypeError("map takes the name of a filter, or attribute=")
    name, *rest = args
    if name not in context.environment.filters:
        raise TypeError("map takes the name of a filter, or attribute=")
    call = context.environment.call_filter
    return [call(name, item, rest, kwargs, context=context) for item in context.budget.take(value)]


def _select(*, wanted: bool, by_attribute: bool) -> Callable[..., list[Any]]:
    def select(context: Any, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if by_attribute and not args:
            raise TypeError("selectattr and rejectattr take the name of an attribute")
        get = getter(context, args[0] if by_attribute else None)
        test, rest = args[by_attribute : by_attribute + 1], list(args[by_attribute + 1 :])
        if test and test[0] not in context.environment.tests:
            raise TypeError("the values are chosen by the name of a test")

        def holds(item: Any) -> bool:
            if not test:
                return bool(usable(get(item)))
            return bool(context.environment.call_test(test[0], get(item), rest, kwargs, context=context))

        return [item for item in context.budget.take(value) if holds(item) is wanted]

    return select


template_filter("select", deep=False)(_select(wanted=True, by_attribute=False))
template_filter("reject", deep=False)(_select(wanted=False, by_attribute=False))
template_filter("selectattr", deep=False)(_select(wanted=True, by_attribute=True))
template_filter("rejectattr", deep=False)(_select(wanted=False, by_attribute=True))
