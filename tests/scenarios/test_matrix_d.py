"""Streams and cancelling: rows of group D that hold without a socket, and that no other file covers."""

import asyncio
import json
import threading
import time

import pytest
from asgiref.sync import async_to_sync

from llm_wrapper.events import TextDelta
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptVersion, ToolCall, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model, tool_calls
from llm_wrapper.tools import llm_tool
from tests.scenarios.test_recovery import assert_tool_calls_are_paired

TABLES = (ChatHistory, LLMCall, Message, PromptVersion, ToolCall, Turn)
WORDS = "one two three four five six"


def rows():
    """Everything that is stored, to see whether something is written later."""
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in TABLES}


def assert_ended(sent):
    """The one turn was ended as cancelled, and its chat is whole and holds at least the text that was sent."""
    turn = Turn.objects.get()
    assert (turn.status, turn.error_code, turn.lease_expires_at) == ("cancelled", "turn_cancelled", None)
    assert not LLMCall.objects.filter(status="running").exists()
    assert not ToolCall.objects.filter(status__in=["pending", "running"]).exists()
    kept = "".join(Message.objects.filter(type="assistant").values_list("text", flat=True))
    assert kept.startswith(sent)
    assert list(audit.differences(ChatHistory.objects.get())) == []


async def listen(wrapper, stop):
    """Listen to `stop` events, then leave; gives the text that came."""
    stream = wrapper.astream_user_message("hi")
    sent = ""
    async for event in stream:
        stop -= 1
        sent += event.text if isinstance(event, TextDelta) else ""
        if not stop:
            break
    await stream.aclose()
    return sent


@pytest.mark.django_db
@pytest.mark.parametrize("door", ["sync", "async"])
@pytest.mark.parametrize("stop", range(1, 9))
def test_d1_a_stream_may_be_left_at_any_event(make_prompt, door, stop):
    """D1: wherever a caller stops listening, all text that it got is kept, nothing stays open, and the chat goes on."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(WORDS):
        if door == "async":
            sent = async_to_sync(listen)(wrapper, stop)
        else:
            stream = wrapper.stream_user_message("hi")
            events = [next(stream) for _ in range(stop)]
            stream.close()
            sent = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert_ended(sent)
    if stop > 2:
        assert sent == " ".join(WORDS.split()[: stop - 2]) + " " * (stop < 8)
    with scripted_model("Fine."):
        assert wrapper.send_user_message_and_get_response("go on") == "Fine."


@pytest.mark.django_db
@pytest.mark.parametrize("stop", range(1, 9))
def test_d1_a_stream_may_be_left_between_tools(make_prompt, make_tool, stop):
    """D1: a caller that leaves before, at or after a tool leaves a chat in which every tool call has its result."""
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    asked = tool_calls(("order_state", {"order": 1}), ("order_state", {"order": 2}))
    with scripted_model(asked, WORDS) as model:
        stream = wrapper.stream_user_message("hi", {"user_id": 7})
        for _ in range(stop):
            next(stream)
        stream.close()
    assert_ended("")
    made = len(model.requests)
    with scripted_model("Fine.") as model:
        assert wrapper.send_user_message_and_get_response("go on", {"user_id": 7}) == "Fine."
    assert made == (stop > 2)  # leaving starts no further call
    assert_tool_calls_are_paired(model.requests[0].messages)


# -- D7 ------------------------------------------------------------------------------------------------------

STARTED, RELEASE, RAN = threading.Event(), threading.Event(), []


@pytest.fixture(autouse=True)
def _fresh():
    STARTED.clear()
    RELEASE.clear()
    RAN.clear()


@llm_tool
async def waits(order: int) -> str:
    """Wait to be cancelled.

    Args:
        order: Number of the order.
    """
    STARTED.set()
    await asyncio.sleep(30)
    RAN.append(order)
    return "done"


@llm_tool
def waits_in_a_thread(order: int) -> str:
    """Wait in a thread, which cannot be stopped.

    Args:
        order: Number of the order.
    """
    STARTED.set()
    RELEASE.wait(10)
    RAN.append(order)
    return "done"


@llm_tool
def is_interrupted(order: int) -> str:
    """Be interrupted from the keyboard.

    Args:
        order: Number of the order.
    """
    raise KeyboardInterrupt


def cancel_during(tool, wrapper):
    """Send through the async door and cancel the task once the tool runs."""

    async def scenario():
        task = asyncio.create_task(wrapper.asend_user_message_and_get_response("hi"))
        await asyncio.to_thread(STARTED.wait, 10)
        task.cancel()
        # A thread is not stopped by that; let it end.
        asyncio.get_running_loop().call_later(0.2, RELEASE.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    async_to_sync(scenario)()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["waits", "waits_in_a_thread", "is_interrupted"])
def test_d7_a_turn_that_is_cancelled_while_a_tool_runs(make_prompt, make_tool, name):
    """D7: the turn is `cancelled`, the tool that was running is on record as unknown and the one after it as not
    run, the model is asked nothing more, and nothing is written later."""
    make_prompt(tools=[make_tool(f"{__name__}.{name}")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    asked = tool_calls((name, {"order": 1}), (name, {"order": 2}))
    with scripted_model(asked, "Fine.") as model:
        if name == "is_interrupted":
            with pytest.raises(KeyboardInterrupt):
                wrapper.send_user_message_and_get_response("hi")
        else:
            cancel_during(name, wrapper)
        assert_ended("")
        assert list(ToolCall.objects.order_by("pk").values_list("status", flat=True)) == ["unknown", "refused"]
        told = Message.objects.filter(type="tool").order_by("position").values_list("text", flat=True)
        assert [json.loads(text)["status"] for text in told] == ["Unknown", "Failed"]
        before = rows()
        RELEASE.set()
        time.sleep(0.3)
        assert rows() == before
        assert ([1] if name == "waits_in_a_thread" else []) == RAN
        assert len(model.requests) == 1
        assert wrapper.send_user_message_and_get_response("go on") == "Fine."
