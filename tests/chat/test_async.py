"""The async doors of `Chat`."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from llm_wrapper import errors
from llm_wrapper.chat import Chat
from llm_wrapper.models import LLMCall, Message, Turn
from llm_wrapper.testing import failure, scripted_model

MODEL = "ollama_chat/qwen3:4b"
# They read no row, or read rows through a queryset, which has async doors itself.
WITHOUT_TWIN = {"get_messages"}
DOORS = [
    name
    for name, member in vars(Chat).items()
    if not name.startswith("_")
    and name not in WITHOUT_TWIN
    and (inspect.isfunction(member) or isinstance(member, classmethod))
    and not (name.startswith("a") and name[1:] in vars(Chat))
]


def on_a_loop(test):
    """Run the test on a loop, and close the database connection of the loop's thread as a server would."""

    @pytest.mark.django_db(transaction=True)
    @functools.wraps(test)
    def run(*args, **kwargs):
        async def main():
            try:
                await test(*args, **kwargs)
            finally:
                await sync_to_async(connections.close_all)()

        asyncio.run(main())

    return run


@pytest.mark.parametrize("name", DOORS)
def test_every_door_has_an_async_twin(name):
    """With an 'a' in front, the same parameters, and the same kind: what yields yields."""
    sync, twin = getattr(Chat, name), getattr(Chat, "a" + name)
    assert inspect.signature(sync).parameters == inspect.signature(twin).parameters
    assert inspect.isasyncgenfunction(twin) == inspect.isgeneratorfunction(sync)
    assert inspect.isasyncgenfunction(twin) or inspect.iscoroutinefunction(twin)


@on_a_loop
async def test_a_conversation_in_an_event_loop():
    """Everything that the sync doors do is done on a loop."""
    chat = await Chat.acreate(title="Trains")
    await chat.acreate_system_message("Be brief.")
    await chat.acreate_user_message("I live in Ulm.")
    with scripted_model("one", "two", "three four", "five", "six seven") as model:
        ai_msg, user_msg = await chat.asend_user_msg_to_llm(MODEL, "a", temperature=0.5)
        answer = await (await Chat.aopen(chat.chat_db_model.public_id)).acall_llm(MODEL, "b")
        pieces = [piece async for piece in chat.astream_call_llm(MODEL, "c")]
        again = await chat.aregenerate(MODEL)
        events = [event async for event in chat.aregenerate_events(MODEL)]
    assert (ai_msg.text, user_msg.text, model.requests[0].params) == ("one", "a", {"temperature": 0.5})
    assert (answer[0].text, answer.llm_call.status) == ("two", "done")
    assert pieces == ["three ", "four"]
    assert again[0].text == "five"
    assert events[-1].reply == "six seven"
    sent = ["Be brief.", "I live in Ulm.", "a", "one", "b", "two", "c"]
    assert [entry["content"] for entry in model.requests[-1].messages] == sent
    assert [entry["content"] for entry in await chat.aget_msg_history()] == [*sent, "six seven"]
    texts = [message.text async for message in chat.get_messages()]
    assert texts == [*sent, "three four", "c", "five", "c", "six seven"]
    assert (chat.last_llm_message.text, chat.last_user_message.text) == ("five", "c")
    assert await chat.astop() is None


@on_a_loop
async def test_a_stream_that_is_left_in_an_event_loop():
    """Closing the async generator ends the turn and keeps what had come, as closing the sync one does."""
    chat = await Chat.acreate()
    with scripted_model("one two three"):
        stream = chat.astream_call_llm(MODEL, "a")
        assert await anext(stream) == "one "
        await stream.aclose()
    assert (await Turn.objects.aget()).status == "cancelled"
    assert (await LLMCall.objects.aget()).partial_text == "one "
    assert (await Message.objects.aget(type="assistant")).text == "one "


@on_a_loop
async def test_a_failure_in_an_event_loop():
    """It is raised there, with the message kept."""
    chat = await Chat.acreate()
    with scripted_model(failure(errors.ContentRefused("no"))), pytest.raises(errors.ContentRefused):
        await chat.acall_llm(MODEL, "a")
    assert (await Message.objects.aget()).text == "a"


@pytest.mark.parametrize("name", DOORS)
@on_a_loop
async def test_the_sync_door_is_shut_in_an_event_loop(name):
    """It would hold up everybody whom the loop serves: the error says that the twin has an 'a' in front."""
    chat = await Chat.acreate()
    method = getattr(chat, name)
    required = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    with scripted_model(), pytest.raises(errors.SyncInAsyncContext, match="same name with an 'a' in front"):
        _begun(method(*["a"] * len(required)))
    assert not await Message.objects.aexists()


def _begun(given):
    return next(given) if inspect.isgenerator(given) else given
