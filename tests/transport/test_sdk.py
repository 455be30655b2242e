"""What is sent through the OpenAI SDK is the same with and without its walk through the messages."""

import inspect
import json

import pytest
from openai.resources.chat.completions import Completions
from openai.types.chat import completion_create_params
from pydantic import BaseModel
from typing_extensions import get_type_hints

from llm_wrapper.transport import sdk

from .conftest import DOORS
from .provider import sends

MODELS = ["openai/gpt-4o-mini", "openai/gpt-5-mini", "openai/o3-mini", "azure/gpt-4o"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Ünïcode 🎉",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": ["integer", "null"], "enum": [1, None]}},
                "additionalProperties": False,
            },
        },
    }
]
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
MESSAGES = [
    {"role": "system", "content": "Be kind.", "cache_control": {"type": "ephemeral"}},
    {"role": "user", "content": "Hi \x00 🎉 \u2028", "name": "ada"},
    {"role": "user", "content": [{"type": "text", "text": "Hi", "more": None}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS, "reasoning_content": "Hm."},
    {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "1"},
    {"role": "assistant", "content": "", "unknown": {"of": ["nobody", 1.5, True]}},
    {"role": "user", "content": "Bye"},
]


class Answer(BaseModel):
    words: list[str]


@pytest.fixture
def bodies(provider, ask, monkeypatch):
    """The bodies of the same call, first as it is, then with the SDK's walk through everything."""

    def call(door, model, **more):
        provider.answers = [sends({"error": {"message": "Enough."}}, 400)]
        for _ in range(2):
            messages, tools = (json.loads(json.dumps(more.pop(name, None))) for name in ("messages", "tools"))
            more |= {"messages": messages, "tools": tools or []}
            with pytest.raises(Exception, match="Enough"):
                ask(door, model, **more)
            monkeypatch.setattr(sdk, "shortened", lambda data: data)
        return [request["body"] for request in provider.requests]

    return call


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", MODELS)
def test_the_provider_gets_the_same(bodies, door, model):
    """Messages of every kind, tools and a response format reach each provider as the SDK itself would send them."""
    short, walked = bodies(door, model, messages=MESSAGES, tools=TOOLS, response_format=Answer)
    assert json.dumps(short["messages"]) == json.dumps(walked["messages"])
    assert json.dumps(short["tools"]) == json.dumps(walked["tools"])
    assert short == walked
    assert [message["role"] for message in short["messages"]][-2:] == ["assistant", "user"]


@pytest.mark.parametrize("door", DOORS)
def test_extra_body_of_a_config_has_the_last_word(bodies, door):
    """What a YAML file puts into extra_body is merged last, as it was."""
    params = {"extra_body": {"top_k": 5, "tools": "mine"}, "temperature": 0.5}
    short, walked = bodies(door, "openai/gpt-4o-mini", messages=MESSAGES, tools=TOOLS, params=params)
    assert short == walked
    assert (short["top_k"], short["tools"]) == (5, "mine")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "azure/gpt-4o"])
def test_the_sdk_does_not_walk_through_the_messages(provider, ask, monkeypatch, door, model):
    """The cost of a long history: fails when litellm renames the methods at which the messages go past the SDK."""
    walked = []
    monkeypatch.setattr(sdk, "shortened", lambda data, shorten=sdk.shortened: walked.append(data) or shorten(data))
    ask(door, model, messages=[*MESSAGES] * 3)
    (data,) = walked
    assert len(data["messages"]) == 3 * len(MESSAGES)
    assert sdk.shortened(data)["messages"] == ()
    assert len(provider.requests[0]["body"]["messages"]) == 3 * len(MESSAGES)


def test_the_request_of_the_caller_is_not_changed():
    """litellm uses the request again: for its log, and when it tries once more."""
    data = {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "extra_body": {"a": 1}}
    before = json.dumps(data)
    assert sdk.shortened(data)["extra_body"] == {"messages": data["messages"], "a": 1}
    assert json.dumps(data) == before
    assert sdk.shortened({"model": "x", "input": "Hi"}) == {"model": "x", "input": "Hi"}


def test_the_walk_would_change_nothing():
    """A new SDK whose types rename or encode a field of a message or tool fails here: then it must walk again."""
    seen, marks = set(), []

    def visit(kind):
        if kind in seen:
            return
        seen.add(kind)
        marks.extend(mark for mark in getattr(kind, "__metadata__", ()) if "PropertyInfo" in type(mark).__name__)
        fields = hints_of(kind) if inspect.isclass(kind) and inspect.get_annotations(kind) else {}
        for part in (*getattr(kind, "__args__", ()), *fields.values()):
            visit(part)

    hints = hints_of(completion_create_params.CompletionCreateParamsBase)
    for name in sdk._LONG:
        visit(hints[name])
        assert name in inspect.signature(Completions.create).parameters
    assert len(seen) > 30
    assert marks == []


def hints_of(kind):
    return get_type_hints(kind, include_extras=True)


@pytest.mark.parametrize("wanted", [False, True])
def test_monitoring_of_services_runs_only_where_somebody_set_it_up(monkeypatch, wanted):
    """litellm starts an event loop per call for it, which costs more than a statement of SQL; whoever has set
    `litellm.service_callback` still gets it."""
    import litellm
    from litellm._service_logger import ServiceLogging
    from litellm.types.services import ServiceTypes

    from llm_wrapper.transport.library import litellm as load

    load()
    monkeypatch.setattr(litellm, "service_callback", ["mine"] if wanted else [])
    told = []

    async def hook(self, **event):
        told.append(event["call_type"])

    monkeypatch.setattr(ServiceLogging, "async_service_success_hook", hook)
    ServiceLogging().service_success_hook(service=ServiceTypes.LITELLM, duration=0.1, call_type="completion")
    assert told == (["completion"] if wanted else [])
