"""The step from YAML text to plain data."""

import pytest

from llm_wrapper.configs import parse as parsing
from llm_wrapper.configs.parse import BadYAML, Plain, dotted, parse

from .conftest import CANARY


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("012345", "012345"),
        ("0x1F", "0x1F"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1.10", "1.10"),
        ("=", "="),
        ("'quoted'", "quoted"),
        ('"line\\nbreak"', "line\nbreak"),
        ("|\n  block", "block"),
    ],
)
def test_i2_scalars_stay_as_written(written, read):
    """No scalar is turned into a date, a bool or an octal number behind the user's back."""
    assert parse(f"key: {written}".encode()).values == {"key": read}


@pytest.mark.parametrize("written", ["", "~", "null", "NULL"])
def test_an_empty_value_is_none(written):
    """A key without a value counts as not given."""
    assert parse(f"key: {written}".encode()).values == {"key": None}


def test_only_unquoted_text_is_plain():
    """Quotes say that a value is text, also where it looks like a number."""
    values = parse(b"a: 1\nb: '1'").values
    assert isinstance(values["a"], Plain)
    assert not isinstance(values["b"], Plain)


BAD = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a bare word": CANARY.encode(),
    "a list": b"- a\n- b\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "tabs": b"a:\n\tb: 1\n",
    "open quote": f'api_key: "{CANARY}\n'.encode(),
    "open bracket": f"api_key: [{CANARY}\n".encode(),
    "no colon": f"name: x\napi_key {CANARY}\nb: 1\n".encode(),
    "duplicate key": f"api_key: a\napi_key: {CANARY}\n".encode(),
    "duplicate nested key": b"price:\n  input: 1\n  input: 2\n",
    "alias": f"a: &x 1\nb: *x\nc: {CANARY}\n".encode(),
    "undefined alias": f"api_key: *{CANARY}\n".encode(),
    "alias bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "merge key": b"base: &b {a: 1}\nc:\n  <<: *b\n",
    "python object": b"a: !!python/object/apply:os.system [id]\n",
    "python name": b"!!python/name:os.system a\n",
    "tag": f"api_key: !secret {CANARY}\n".encode(),
    "tag handle": f"api_key: !{CANARY}!x 1\n".encode(),
    "int tag": b"a: !!int '1'\n",
    "binary tag": b"a: !!binary aGk=\n",
    "not UTF-8": b"a: \xff\xfe\n",
    "UTF-16": "a: 1".encode("utf-16"),
    "control character": b"a: \x07\n",
    "NUL": b"a: \x00\n",
    "complex key": b"? [a, b]\n: 1\n",
    "mapping as key": b"{a: 1}: 2\n",
    "deep flow": b"a: " + b"[" * 5000 + b"]" * 5000,
    "deep blocks": b"".join(b" " * i + b"a:\n" for i in range(60)),
    "many values": b"a: [" + b"1, " * 20_000 + b"]",
    "too large": b"a: " + b"x" * (300 * 1024),
    "bad escape": f'api_key: "{CANARY}\\q"\n'.encode(),
    "percent": f"%{CANARY}\na: 1\n".encode(),
    "reserved character": f"api_key: @{CANARY}\n".encode(),
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_i2_bad_yaml_is_refused_without_its_content(raw):
    """Whatever is wrong with a file, it is refused with a reason that repeats no value of it."""
    with pytest.raises(BadYAML) as caught:
        parse(raw)
    assert str(caught.value)
    assert "CANARY" not in str(caught.value)
    # `from None`: a traceback must not show the error of PyYAML, which quotes the line.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_bad_yaml_says_where():
    """A syntax error names its line and column, since the file is edited by hand."""
    with pytest.raises(BadYAML, match="line 2, column"):
        parse(b"a: 1\nb: @x\n")


def test_a_file_with_a_byte_order_mark_loads():
    """Windows editors put a mark before the text."""
    assert parse(b"\xef\xbb\xbfa: b").values == {"a": "b"}


# -- environment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${KEY}", "secret"),
        ('"${KEY}"', "secret"),
        ("Bearer ${KEY}", "Bearer secret"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${EMPTY:-default}", "default"),
        ("${KEY:-default}", "secret"),
        ("${KEY}${KEY}", "secretsecret"),
        ("$${KEY}", "${KEY}"),
        ("$KEY", "$KEY"),
        ("cost $5", "cost $5"),
        ("${NEWLINE}", "secret"),
        ("${TRICK}", "a: {b: ${KEY}}"),
    ],
)
def test_references_read_the_environment(written, read):
    """References are filled once and as text: a value of the environment adds no YAML and no references."""
    environ = {"KEY": "secret", "EMPTY": "", "NEWLINE": "secret\n", "TRICK": "a: {b: ${KEY}}"}
    document = parse(f"key: {written}".encode(), environ)
    assert document.values == {"key": read}
    assert document.problems == []


def test_references_work_at_any_depth():
    """Lists and nested blocks may hold references too."""
    document = parse(b"a:\n  - b: ${X}\n", {"X": "1"})
    assert document.values == {"a": [{"b": "1"}]}
    assert document.from_environment == {("a", 0, "b")}


def test_all_missing_variables_are_named_at_once():
    """A missing variable is reported with its key and name, and so is every other one."""
    document = parse(b"api_key: ${ONE}\nextra_headers:\n  X-A: ${TWO}\n", {})
    assert [(dotted(path), reason) for path, reason in document.problems] == [
        ("api_key", "the environment variable ONE is not set"),
        ("extra_headers.X-A", "the environment variable TWO is not set"),
    ]


@pytest.mark.parametrize("written", ["${", "${a b}", "${1A}", "${A", "${A-b}"])
def test_a_broken_reference_is_a_problem(written):
    """A reference with a slip in it is not sent to a provider as it stands."""
    document = parse(f"api_key: '{written}'".encode(), {"A": "x"})
    assert "NAME" in document.problems[0][1]


def test_a_default_in_the_file_is_not_from_the_environment():
    """A key written as the default of a reference stands in the file, whatever the environment holds."""
    document = parse(b"a: ${K}\nb: ${K:-clear}\nc: ${K:-}\nd: x\n", {"K": "v"})
    assert document.from_environment == {("a",), ("c",)}


def test_the_environment_is_the_process_one(monkeypatch):
    """Without an argument, os.environ is read."""
    monkeypatch.setenv("LLM_TEST_KEY", "value")
    assert parsing.parse(b"a: ${LLM_TEST_KEY}").values == {"a": "value"}
