"""Filters, tests and methods do what Jinja's and Python's do."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from llm_wrapper.errors import PromptError, TemplateTooExpensive
from llm_wrapper.prompts import render_system
from llm_wrapper.types import PromptSpec

VALUES: dict[str, Any] = {
    "text": "the quick-brown fox\njumps  over\n\nthe lazy dog",
    "xs": [3, 1, 2, 1],
    "words": ["b", "A", "a", "C"],
    "users": [
        {"name": "Bob", "city": "ny", "age": 5, "home": {"zip": "1"}},
        {"name": "ann", "city": "LA", "age": 7, "home": {"zip": "2"}},
        {"name": "Cid", "city": "NY", "age": 5, "home": {"zip": "3"}},
    ],
    "d": {"b": 2, "A": 3, "c": 1},
}


def render(template: str, **more: Any) -> str:
    return render_system(PromptSpec("p", system=template), VALUES | more)


@pytest.mark.parametrize(
    "expression",
    [
        "text|upper",
        "text|lower",
        "text|title",
        "text|capitalize",
        "5|string",
        "'  a '|trim",
        "'xax'|trim('x')",
        "text|replace('the', 'a')",
        "text|replace('o', '0', 1)",
        "5|replace(5, 6)",
        "'ab'|replace('', '-')",
        "text|indent",
        "text|indent(2, true)",
        "text|indent('> ', true, true)",
        "''|indent",
        "text|truncate(12)",
        "text|truncate(12, true)",
        "text|truncate(12, false, '!', 0)",
        "text|truncate",
        "text|wordwrap(10)",
        "text|wordwrap(3)",
        "text|wordwrap(10, false, '/')",
        "text|wordcount",
        "'%s %d'|format('a', 5)",
        "'%(x)s'|format(x=1)",
        "'a b/c&é'|urlencode",
        "{'a b': 'c&d', 'e': 1}|urlencode",
        "1000000|filesizeformat",
        "1024|filesizeformat(true)",
        "-3|abs",
        "'42.5'|int",
        "'x'|int(7)",
        "'ff'|int(0, 16)",
        "true|int",
        "'2.5'|float",
        "'x'|float(1.5)",
        "42.55|round",
        "42.55|round(1, 'floor')",
        "42.51|round(1, 'ceil')",
        "7|round",
        "xs|sum",
        "users|sum(attribute='age')",
        "users|sum('age', 10)",
        "xs|length",
        "d|count",
        "none|default('x')",
        "''|d('x', true)",
        "xs|first",
        "xs|last",
        "'abc'|first",
        "'abc'|list",
        "d|list",
        "'abc'|reverse",
        "xs|reverse|list",
        "d|items|list",
        "xs|join(', ')",
        "users|join('/', attribute='name')",
        "d|join",
        "xs|sort",
        "xs|sort(reverse=true)",
        "words|sort",
        "words|sort(case_sensitive=true)",
        "users|sort(attribute='age,name')|map(attribute='name')|list",
        "users|sort(attribute='home.zip', reverse=true)|first",
        "d|dictsort",
        "d|dictsort(true)",
        "d|dictsort(false, 'value')",
        "d|dictsort(reverse=true)",
        "words|unique|list",
        "words|unique(true)|list",
        "users|unique(attribute='age')|list",
        "xs|min",
        "xs|max",
        "words|max",
        "users|max(attribute='age')",
        "users|map(attribute='home.zip')|list",
        "users|map(attribute='x', default='-')|list",
        "words|map('upper')|join",
        "words|map('replace', 'a', 'z')|list",
        "xs|select('odd')|list",
        "xs|select|list",
        "xs|reject('gt', 1)|list",
        "users|selectattr('age', 'eq', 5)|map(attribute='name')|list",
        "users|rejectattr('age', 'eq', 5)|list|length",
        "users|selectattr('name')|list|length",
        "xs|batch(3)|list",
        "xs|batch(3, 0)|list",
        "xs|slice(3)|list",
        "xs|slice(3, 0)|list",
        "'é'|upper|lower",
        "1 is odd",
        "2 is even",
        "6 is divisibleby 3",
        "xs is defined",
        "nope is undefined",
        "none is none",
        "true is boolean",
        "true is true",
        "false is false",
        "1 is integer",
        "1.5 is float",
        "1 is number",
        "'a' is string",
        "d is mapping",
        "xs is iterable",
        "xs is sequence",
        "'a' is lower",
        "'A' is upper",
        "1 is sameas 1",
        "1 is in xs",
        "1 is eq 1",
        "1 is ne 2",
        "1 is lt 2",
        "1 is le 1",
        "2 is gt 1",
        "2 is ge 2",
        "text.upper()",
        "text.split()",
        "text.split('o', 1)",
        "'a,b'.rsplit(',', maxsplit=1)",
        "text.splitlines()",
        "' a '.strip()",
        "'xa'.lstrip('x')",
        "'a-b'.partition('-')",
        "'a-b-c'.rpartition('-')",
        "text.replace('o', '')",
        "text.count('o')",
        "text.find('fox')",
        "text.rfind('o')",
        "text.startswith('the')",
        "text.endswith(('g', 'x'))",
        "'-'.join(words)",
        "'abc'.isalpha()",
        "'aXb'.swapcase()",
        "'prefix'.removeprefix('pre')",
        "d.get('b')",
        "d.get('z', 0)",
        "d.keys()|list",
        "d.values()|list",
        "d.items()|list",
        "xs.index(2)",
        "xs.count(1)",
    ],
)
def test_same_as_jinja(expression: str) -> None:
    """Each filter, test and method gives what Jinja gives, for the uses that its own documentation shows."""
    template = "{{ " + expression + " }}"
    assert render(template) == jinja2.Environment(autoescape=False).from_string(template).render(VALUES)  # noqa: S701


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("{'a': \"it's\", 'é': [1, none, true]}|tojson", '{"a": "it\'s", "é": [1, null, true]}'),
        ("[1]|tojson(2)", "[\n  1\n]"),
        ("'<b a=\"1\">&\\''|e", "&lt;b a=&#34;1&#34;&gt;&amp;&#39;"),
        ("('<b>'|e) ~ '<i>'", "&lt;b&gt;<i>"),
        ("'<b>'|safe", "<b>"),
        ("[1, 2]|map('string')", "['1', '2']"),
    ],
)
def test_where_prompts_differ_from_pages(expression: str, text: str) -> None:
    """JSON is plain JSON, escaped text is plain text, and what Jinja gives as a generator is a list."""
    assert render("{{ " + expression + " }}") == text


def test_groups_have_names() -> None:
    """`groupby` gives pairs that also have `grouper` and `list`."""
    names = "{{ g.list|map(attribute='name')|join('+') }}"
    template = "{% for g in users|groupby('city') %}{{ g.grouper }}:" + names + " {% endfor %}"
    assert render(template) == "LA:ann ny:Bob+Cid "
    assert render("{% for c, us in users|groupby('city') %}{{ c }}{{ us|length }}{% endfor %}") == "LA1ny2"


@pytest.mark.parametrize(
    "expression",
    [
        "xs|batch(0)",
        "xs|slice(0)",
        "5|indent",
        "[1]|truncate",
        "'abc'|truncate(1)",
        "xs|items",
        "xs|map",
        "xs|selectattr",
        "'a'|format(1, b=2)",
        "{}|dictsort(by='x')",
        "1|round(400)",
        "1|round(0, 'up')",
        "[1]|tojson(99)",
        "[1, 'a']|sort",
        "[[1]]|unique",
        "5|length",
        "5|join",
        "5|list",
        "'a'|abs",
        "xs|map(attribute='a', default=1, more=2)",
        "'a' is odd",
        "1 is divisibleby 0",
        "'-'.join([1])",
        "'a'.split('')",
        "d.get([1])",
        "d.get((1, 2))",
        "dict(d, d)",
        "'a'.upper(1)",
        "xs.index(99)",
    ],
)
def test_wrong_arguments_fail_clearly(expression: str) -> None:
    """Wrong arguments end in an error of the package."""
    with pytest.raises(PromptError):
        render("{{ " + expression + " }}")


@pytest.mark.parametrize(
    "expression",
    [
        "(text * 1000)|replace('', text)",
        "(text * 10000)|replace('o', text)",
        "([text] * 50000)|join",
        "words|join(text * 20000)",
        "(text * 5000)|indent(900)",
        "('<' * 900000)|e",
        "(text * 1000)|wordwrap(1)",
        "xs|batch(10**8, 0)",
        "xs|slice(10**8)",
        "([users] * 50000)|tojson(16)",
        "(text * 20000)|urlencode",
    ],
)
def test_e2_filters_refuse_growth(expression: str) -> None:
    """A filter whose result would be too large does not start."""
    with pytest.raises(TemplateTooExpensive):
        render("{{ " + expression + " }}")


def test_a_long_document_can_be_passed_through() -> None:
    """Filters that only choose or pass on do not use up the characters that a long document needs."""
    doc = "word " * 120_000
    assert render("{{ (docs|first)|default('none') }}", docs=[doc]) == doc
    assert render("{{ doc[:10] }}{{ doc|truncate(9) }}{{ doc|length }}", doc=doc) == "word word word...600000"
