"""Rules of a model's arguments and of context params."""

from __future__ import annotations

import json
import logging
import pickle
import random
import socket
import time
import unicodedata
from dataclasses import replace
from typing import Any

import pytest

from llm_wrapper.tools import PreparedCall, parse_arguments, prepare, run
from llm_wrapper.types import ToolResult, ToolSpec

from .shop import PATH, SECRET, tool

CODE = "def f(city, days=1, *, __user_id__, limit=5):\n    return [city, days, __user_id__, limit]"
PROPERTIES = {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}}


def stored(**fields: Any) -> ToolSpec:
    parameters = {"type": "object", "properties": PROPERTIES, "required": ["city"]}
    fields.setdefault("spec", {"name": "f", "parameters": parameters})
    return tool(CODE, **{"context_params": ("user_id", "limit"), **fields})


def refusal(arguments: str, context: dict[str, Any] | None = None, **fields: Any) -> ToolResult:
    result = prepare(stored(**fields), arguments, {"user_id": 7} if context is None else context)
    assert isinstance(result, ToolResult)
    assert json.loads(result.content)["status"] == "Failed"
    return result


def prepared(arguments: str, context: dict[str, Any] | None = None, **fields: Any) -> PreparedCall:
    call = prepare(stored(**fields), arguments, {"user_id": 7} if context is None else context)
    assert isinstance(call, PreparedCall), call
    return call


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"x"', "not a JSON object"),
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": {"b": 1, "b": 2}}', "given twice"),
        ('{"a": 1, "\\u0061": 2}', "given twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "Infinity is not JSON"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 5000 + "}", "too large"),
        ('{"a": "\\ud800"}', "not text"),
        ('{"\\u0000": 1}', "not text"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "too deeply"),
        ('{"a": ' + "[" * 90_000 + "]" * 90_000 + "}", "too deeply"),
        ('{"a": "' + "x" * 200_000 + '"}', "longer than 200000"),
        ("{} {}", "not valid JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_c9_malformed_arguments_are_refused_in_words(text: str, words: str) -> None:
    """Whatever two readers could take differently, or cannot be stored, is told to the model and not run."""
    with pytest.raises(ValueError, match=words):
        parse_arguments(text)
    result = refusal(text)
    assert (result.status, result.code) == ("refused", "bad_arguments")
    assert words in json.loads(result.content)["message"]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_arguments_are_an_empty_object(text: str) -> None:
    """Models send empty text for a tool without parameters."""
    assert parse_arguments(text) == {}


def test_arguments_and_context_params_stay_apart() -> None:
    """What is stored is the model's part; the injected part is in no repr and cannot be pickled."""
    call = prepared('{"city": "Bonn"}', {"user_id": SECRET, "other": 1})
    assert call.arguments == {"city": "Bonn"}
    assert call.keywords() == {"city": "Bonn", "__user_id__": SECRET}
    assert SECRET not in repr(call)
    with pytest.raises(TypeError):
        pickle.dumps(call)


def test_a_context_value_wins_over_a_default_and_a_default_over_the_signature() -> None:
    """The order is: context variables, the row's defaults, the function's own default."""
    assert prepared('{"city": "B"}').keywords() == {"city": "B", "__user_id__": 7}
    assert prepared('{"city": "B"}', defaults={"limit": 9}).keywords()["limit"] == 9
    assert prepared('{"city": "B"}', defaults={"__limit__": 9}).keywords()["limit"] == 9
    both = prepared('{"city": "B"}', {"__user_id__": 1, "limit": None}, defaults={"limit": 9})
    assert both.keywords() == {"city": "B", "__user_id__": 1, "limit": None}


def test_a_missing_context_param_is_named_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    """The model learns that the tool is not available; the project learns which variable is missing."""
    with caplog.at_level(logging.ERROR, "llm_wrapper.tools"):
        result = refusal('{"city": "Bonn"}', {"userid": SECRET})
    assert (result.status, result.code) == ("refused", "missing_context_param")
    assert "user_id" not in result.content
    assert "__user_id__" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{}", "'city' is a required property"),
        ('{"city": 1}', "city: 1 is not of type 'string'"),
        ('{"city": "B", "days": 1.0}', "days: 1.0 is not of type 'integer'"),
        ('{"city": "B", "days": true}', "days: True is not of type 'integer'"),
        ('{"city": "B", "country": "DE"}', "no parameter 'country' (the parameters are: city, days)"),
        ('{"city": 1, "days": "x"}', "; "),
    ],
)
def test_s1_f_arguments_are_checked_against_the_schema(arguments: str, words: str) -> None:
    """Every mistake is told at once, in words the model can act on."""
    result = refusal(arguments)
    assert (result.status, result.code) == ("refused", "bad_arguments")
    assert words in json.loads(result.content)["message"]


def test_a_refusal_stays_short() -> None:
    """A model's huge argument does not come back as a huge message."""
    assert len(refusal(json.dumps({"city": "x" * 100_000})).content) < 1000
    assert len(refusal(json.dumps({"x" * 1000 + str(n): 1 for n in range(150)})).content) < 2000


@pytest.mark.parametrize("city", [{"$ref": "http://127.0.0.1:PORT/x"}, {"$ref": "#/nope"}, {"type": "strnig"}])
def test_a_broken_schema_is_a_result_and_fetches_nothing(city: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A schema that is not valid, or points elsewhere, makes the tool unavailable and opens no connection."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        city = {key: value.replace("PORT", str(server.getsockname()[1])) for key, value in city.items()}
        spec = {"name": "f", "parameters": {"type": "object", "properties": {"city": city}}}
        started = time.monotonic()
        result = refusal('{"city": "x"}', spec=spec)
        assert time.monotonic() - started < 1
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (result.status, result.code) == ("failed", "tool_error")
    assert "is not usable: The schema" in caplog.text


def test_a_broken_tool_is_a_result_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Code that reached the table unchecked does not break the turn."""
    for code in ("def f(:", "os.system", "import os\nos.abort()", f"{PATH}not_registered"):
        result = prepare(tool(code), "{}", {})
        assert isinstance(result, ToolResult)
        assert (result.status, result.code) == ("failed", "tool_error")
    assert caplog.text.count("is not usable") == 4


SPELLINGS = [
    "user_id",
    "__user_id__",
    "USER_ID",
    "User_Id",
    "_user_id",
    "user_id_",
    "___user_id___",
    "\uff55\uff53\uff45\uff52_\uff49\uff44",
    "user\uff3fid",
    "u\u017fer_id",
    "LIMIT",
    "\uff3flimit",
]


def test_f6_a_context_param_wins_over_an_argument() -> None:
    """Even a call put together by hand gives the function the system's value."""
    call = prepared('{"city": "B"}')
    assert replace(call, arguments={"city": "B", "__user_id__": 666}).keywords()["__user_id__"] == 7


@pytest.mark.parametrize("name", SPELLINGS)
def test_f6_a_context_param_from_the_model_is_refused(name: str) -> None:
    """No spelling of a context param's name passes, whatever the schema allows."""
    open_spec = {"name": "f", "parameters": {"type": "object", "properties": {**PROPERTIES, name: {}}}}
    for fields in ({}, {"spec": open_spec}):
        result = refusal(json.dumps({"city": "B", name: 8}), **fields)
        assert (result.status, result.code) == ("refused", "context_param_refused")


def _hostile(rng: random.Random) -> str:
    """The JSON text of one argument set, made to slip a context param through."""

    def name() -> str:
        base = rng.choice(["user_id", "limit", "city", "days", "userid", "id", "self", "args", "kwargs", "code"])
        for _ in range(rng.randrange(3)):
            base = rng.choice(
                [
                    str.upper,
                    str.title,
                    lambda text: f"__{text}__",
                    lambda text: f"_{text}",
                    lambda text: text.replace("_", "\uff3f"),
                    lambda text: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in text),
                    lambda text: unicodedata.normalize("NFKD", text) + rng.choice(["", "\u200b", " ", "\u0301", "."]),
                    lambda text: f"context.{text}",
                ]
            )(base)
        return base

    def value(depth: int = 0) -> Any:
        kind = rng.randrange(8 if depth < 3 else 5)
        if kind < 5:
            return rng.choice([666, "666", None, True, "Bonn", "${user_id}", "{user_id}", -1, 1.5])
        if kind == 5:
            return [value(depth + 1)]
        return {name(): value(depth + 1) for _ in range(2)}

    pairs = [(name(), value()) for _ in range(rng.randrange(5))]
    if rng.random() < 0.7:
        pairs.append(("city", rng.choice(["Bonn", "user_id"])))
    if pairs and rng.random() < 0.2:
        pairs.append((pairs[0][0], value()))
    rng.shuffle(pairs)
    text = ", ".join(f"{json.dumps(key, ensure_ascii=rng.random() < 0.5)}: {json.dumps(val)}" for key, val in pairs)
    return "{" + text + "}"


@pytest.mark.parametrize(("seed", "sets"), [(20261, 2000), pytest.param(20262, 10_000, marks=pytest.mark.chaos)])
def test_f6_no_argument_set_changes_a_context_param(seed: int, sets: int) -> None:
    """Over 2,000 hostile argument sets, and 10,000 in `make chaos`, the function gets the server's value or is not
    called."""
    rng = random.Random(seed)
    parameters = {
        "type": "object",
        "additionalProperties": True,
        "properties": PROPERTIES,
        "required": ["city"],
    }
    spec = {"name": "f", "parameters": parameters}
    tools = [stored(), stored(spec=spec), stored(defaults={"limit": 9})]
    outcomes = {"called": 0, "context_param_refused": 0, "bad_arguments": 0}
    for number in range(sets):
        one = rng.choice(tools)
        call = prepare(one, _hostile(rng), {"user_id": number, "city": "context", "days": "context"})
        if isinstance(call, ToolResult):
            outcomes[call.code] += 1
            continue
        outcomes["called"] += 1
        keywords = call.keywords()
        assert keywords["__user_id__"] == number
        assert keywords.get("limit", 9) == 9
        assert set(keywords) <= {"city", "days", "__user_id__", "limit"}
        assert "limit" not in call.arguments
        if outcomes["called"] % 10 == 0:
            message = json.loads(json.loads(run(call).content)["message"])
            assert message[2:] == [number, 9 if one.defaults else 5]
    assert min(outcomes.values()) > 200, outcomes
