"""The async doors: same logic, same rows."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from llm_wrapper import errors, events
from llm_wrapper.models import LLMCall, Message, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import delayed, rate_limit, scripted_model, tool_call

pytestmark = pytest.mark.django_db(transaction=True)


def run(coroutine):
    """Run it on a loop of its own, and close the database connection of the loop's thread as a server would."""

    async def main():
        try:
            return await coroutine
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(main())


def test_the_async_door_answers_like_the_sync_one(make_prompt, make_tool):
    """An async send runs async tools and leaves the same rows as a sync one."""
    make_prompt(tools=[make_tool("tests.host_tools.slow_echo"), make_tool("tests.host_tools.order_state")])

    async def send():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        return await wrapper.asend_user_message_and_get_response("hi", {"user_id": 5})

    steps = (tool_call("slow_echo", text="abc"), tool_call("order_state", order=2), "Done.")
    with scripted_model(*steps):
        reply = run(send())
    assert reply == "Done."
    assert [run["status"] for run in reply.tool_calls] == ["done", "done"]
    assert "ABC" in reply.tool_calls[0]["content"]
    assert Turn.objects.get().status == "done"


def test_the_sync_door_in_a_loop_names_the_async_one(make_prompt):
    """Used inside a running loop, the sync door says which one to use; nothing is stored."""
    make_prompt()

    async def construct():
        LLMCommunicationWrapper(prompt_name="support")

    async def send():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        LLMCommunicationWrapper.stream_user_message(wrapper, "hi").send(None)

    with pytest.raises(errors.SyncInAsyncContext, match="acreate"):
        run(construct())
    with pytest.raises(errors.SyncInAsyncContext, match="astream_user_message"):
        run(send())
    assert not Turn.objects.exists()


def test_async_streaming_fails_over(make_prompt):
    """The async stream moves to another config and passes on the text."""
    make_prompt(configs=("demo", "demo-b"))

    async def stream():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        return [event async for event in wrapper.astream_user_message("hi", None, True)]

    with scripted_model(rate_limit(5), "one two"):
        seen = run(stream())
    assert "".join(event.text for event in seen if isinstance(event, events.TextDelta)) == "one two"
    assert seen[-1].reply == "one two"


def test_leaving_the_async_stream_ends_the_turn(make_prompt):
    """A consumer that leaves the stream leaves a cancelled turn with the text so far."""
    make_prompt()

    async def leave():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        stream = wrapper.astream_user_message("hi")
        async for event in stream:
            if isinstance(event, events.TextDelta):
                break
        await stream.aclose()

    with scripted_model("one two three"):
        run(leave())
    assert Turn.objects.get().status == "cancelled"
    assert Message.objects.get(type="assistant").text == "one "


def test_a_cancelled_task_ends_the_turn(make_prompt):
    """Cancelling the task that waits for an answer closes call and turn in the database."""
    make_prompt()

    async def cancel():
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        task = asyncio.create_task(wrapper.asend_user_message_and_get_response("hi"))
        for _ in range(200):
            await asyncio.sleep(0.02)
            if await LLMCall.objects.filter(status="running").aexists():
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with scripted_model(delayed(30, "late")):
        run(cancel())
    assert Turn.objects.get().status == "cancelled"
    assert LLMCall.objects.get().status == "cancelled"


def test_a_task_may_be_cancelled_at_any_time(make_prompt):
    """Whenever the task is cancelled, no turn and no call is left running, and the message is kept if it was opened."""
    make_prompt()

    async def cancel_after(seconds):
        wrapper = await LLMCommunicationWrapper.acreate(prompt_name="support")
        task = asyncio.create_task(wrapper.asend_user_message_and_get_response("hi"))
        await asyncio.sleep(seconds)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    with scripted_model(*[delayed(0.01, "late")] * 40):
        for number in range(30):
            run(cancel_after(number * 0.002))
    assert not Turn.objects.filter(status="running").exists()
    assert not LLMCall.objects.filter(status="running").exists()
    assert Message.objects.filter(type="user").count() == Turn.objects.count() > 0
    assert {"cancelled", "done"} & set(Turn.objects.values_list("status", flat=True))
