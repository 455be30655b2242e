"""Filters that give text or take it apart."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any
from urllib.parse import quote

from jinja2.filters import do_filesizeformat, do_title

from ...errors import TemplateTooExpensive
from .. import growth
from ..operators import printf
from .registry import template_filter, text_of

MAX_WRAPPED = 20_000
MAX_INDENT = 1000
WORD = re.compile(r"\w+")
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}


for _name in ("upper", "lower", "capitalize"):
    template_filter(_name)(lambda context, value, _method=_name: getattr(text_of(context, value), _method)())


@template_filter("string", "safe")
def string(context: Any, value: Any) -> str:
    return text_of(context, value)


@template_filter("title")
def title(context: Any, value: Any) -> str:
    text = text_of(context, value)
    context.budget.split(text)
    return do_title(text)


@template_filter("escape", "e", "forceescape")
def escape(context: Any, value: Any) -> str:
    text = text_of(context, value)
    context.budget.fits(len(text) + sum(text.count(char) * (len(to) - 1) for char, to in ESCAPES.items()))
    for char, to in ESCAPES.items():
        text = text.replace(char, to)
    return text


@template_filter("trim")
def trim(context: Any, value: Any, chars: str | None = None) -> str:
    return growth.stripped(context.budget, text_of(context, value), "strip", chars)


@template_filter("replace")
def replace(context: Any, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, before, after = (text_of(context, part) for part in (value, old, new))
    return growth.replaced(context.budget, text, before, after, -1 if count is None else count)


@template_filter("indent")
def indent(context: Any, value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text, budget = growth.words_of(value, "indent"), context.budget
    budget.split(text)
    if type(width) is int and width > MAX_INDENT:
        raise TemplateTooExpensive(f"indent takes at most {MAX_INDENT} spaces")
    space = width if isinstance(width, str) else " " * width
    lines = (text + "\n").splitlines()
    budget.fits(len(text) + len(lines) * len(space))
    rest = [space + line if line or blank else line for line in lines[1:]]
    return "\n".join([space + lines[0] if first else lines[0], *rest])


@template_filter("truncate")
def truncate(
    context: Any, value: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5
) -> str:
    text = growth.words_of(value, "truncate")
    if length < len(end) or leeway < 0:
        raise TypeError(f"truncate takes a length of at least {len(end)} and a leeway of at least 0")
    if len(text) <= length + leeway:
        return text
    kept = text[: length - len(end)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


@template_filter("wordwrap")
def wordwrap(
    context: Any,
    value: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> str:
    text, budget = growth.words_of(value, "wordwrap"), context.budget
    if len(text) > MAX_WRAPPED:
        raise TemplateTooExpensive(f"wordwrap takes at most {MAX_WRAPPED} characters")
    budget.split(text)
    lines: list[str] = []
    for paragraph in text.splitlines():
        budget.check_time()
        lines += textwrap.wrap(
            paragraph,
            width=width,
            expand_tabs=False,
            replace_whitespace=False,
            break_long_words=break_long_words,
            break_on_hyphens=break_on_hyphens,
        ) or [""]
    return growth.joined(budget, lines, "\n" if wrapstring is None else growth.words_of(wrapstring, "wrapstring"))


@template_filter("wordcount")
def wordcount(context: Any, value: Any) -> int:
    text = text_of(context, value)
    context.budget.split(text)
    return sum(1 for _ in WORD.finditer(text))


@template_filter("format")
def format_(context: Any, value: str, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TypeError("format takes positional or named values, not both")
    return printf(context.budget, growth.words_of(value, "format"), kwargs or args)


@template_filter("urlencode")
def urlencode(context: Any, value: Any) -> str:
    def encoded(part: Any, safe: str) -> str:
        text = text_of(context, part)
        context.budget.fits(len(text) * 3)
        return quote(text, safe=safe)

    if type(value) is not dict:
        return encoded(value, "/")
    pairs = [f"{encoded(key, '')}={encoded(item, '')}" for key, item in value.items()]
    return growth.joined(context.budget, pairs, "&").replace("%20", "+")


@template_filter("tojson")
def tojson(context: Any, value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 16:
        raise TypeError("tojson takes an indent from 0 to 16")
    context.budget.fits(context.budget.measure(value, indent=indent or 0))
    return json.dumps(value, ensure_ascii=False, indent=indent)


@template_filter("filesizeformat")
def filesizeformat(context: Any, value: Any, binary: bool = False) -> str:
    return do_filesizeformat(value, binary)
