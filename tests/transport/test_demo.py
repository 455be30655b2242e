import json

import pytest

from llm_wrapper import errors
from llm_wrapper.configs.classes import DEMO_FAILURES

from .conftest import DOORS, STREAMED

TOOL = {
    "name": "order_state",
    "parameters": {
        "type": "object",
        "properties": {
            "order": {"type": "integer"},
            "words": {"type": "string"},
            "kind": {"enum": ["new", "old"]},
            "urgent": {"type": "boolean"},
            "tags": {"type": "array"},
        },
        "required": ["order", "kind", "urgent", "tags"],
    },
}
TOOLS = [{"type": "function", "function": TOOL}]


def user(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("door", DOORS)
def test_it_says_what_it_is(ask, door):
    """A demo answer names itself a demo, repeats the message, and has counts."""
    texts, completion = ask(door, "demo/says", messages=user("Where is my parcel?"))
    assert completion.text == "[demo, not a language model] You wrote: Where is my parcel?"
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (4, 11)
    assert completion.finish_reason == "stop"
    if door in STREAMED:
        assert len(texts) > 3
        assert "".join(texts) == completion.text


@pytest.mark.parametrize("door", DOORS)
def test_it_uses_its_tools_once_each(ask, door):
    """It asks for a tool with arguments that fit the spec, and answers when it has the result."""
    messages = user("Where is order 42?")
    completion = ask(door, "demo/tools", messages=messages, tools=TOOLS)[1]
    (call,) = completion.tool_calls
    assert json.loads(call.arguments) == {"order": 42, "kind": "new", "urgent": True, "tags": []}
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call.as_message_part()]},
        {"role": "tool", "tool_call_id": call.id, "name": "order_state", "content": "shipped"},
    ]
    completion = ask(door, "demo/tools", messages=messages, tools=TOOLS)[1]
    assert completion.text == "[demo, not a language model] The tool order_state answered: shipped"
    assert not completion.tool_calls


@pytest.mark.parametrize("door", DOORS)
def test_a_scripted_rate_limit_says_how_long(ask, door):
    """`rate_limit: 20` is a RateLimited with a wait of 20 seconds, like from a real provider."""
    with pytest.raises(errors.RateLimited) as caught:
        ask(door, f"demo/limited-{door}", params={"demo_script": [{"rate_limit": 20}]})
    assert caught.value.retry_after == 20
    assert "The demo's script says" in str(caught.value)


@pytest.mark.parametrize("code", DEMO_FAILURES)
def test_a_scripted_failure_is_the_error_of_that_code(ask, code):
    """Each failure that a demo config may name arrives as the error with that code."""
    with pytest.raises(errors.ProviderError) as caught:
        ask("complete", "demo/fails", params={"demo_script": [{"fail": code}]})
    assert caught.value.code == code


def test_a_script_goes_step_by_step_and_its_last_step_repeats(ask):
    """One step a call, then the last one for ever."""
    params = {"demo_script": [{"rate_limit": 1}, {"text": "one"}, {"text": "two"}]}
    with pytest.raises(errors.RateLimited):
        ask("complete", "demo/steps", params=params)
    assert [ask("complete", "demo/steps", params=params)[1].text for _ in range(3)] == ["one", "two", "two"]
