"""Streams over real servers: what is sent, and what becomes of a turn whose reader goes away."""

from __future__ import annotations

import json
import random
import re
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db.backends.signals import connection_created
from hypothesis import given
from hypothesis import strategies as st

from llm_wrapper import errors, events, history
from llm_wrapper.api import listening, streams
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import cut_stream, delayed, failure, scripted_model, tool_call
from llm_wrapper.transport import using
from llm_wrapper.turn import TurnJob
from llm_wrapper.types import LLMReply, PromptSpec, Usage

from .callers import by_token, make_user
from .servers import SlowModel, asgi_server, until

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = [
    events.TurnStarted(turn_id=1, chat_id=1, message_id=2),
    events.LLMCallStarted(
        turn_id=1, chat_id=1, llm_call_id=1, config_name="a", model="m", attempt=1, route={"why": "x"}
    ),
    events.TextDelta(turn_id=1, chat_id=1, text="Hel", number=1),
    events.StreamReset(turn_id=1, chat_id=1, reason="stream_cut"),
    events.LLMCallFinished(turn_id=1, chat_id=1, llm_call_id=1, config_name="a", usage=Usage(1, 2)),
    events.ToolCallStarted(turn_id=1, chat_id=1, tool_call_id="c", name="find", arguments='{"secret": 1}'),
    events.ToolCallFinished(turn_id=1, chat_id=1, tool_call_id="c", name="find", status="done", content="secret"),
    events.TurnFinished(turn_id=1, chat_id=1, reply=LLMReply("Hi"), message_id=3, usage=Usage(), cost=None),
    events.TurnFailed(turn_id=1, chat_id=1, error_code="rate_limited", error_message="secret", retryable=True),
]


def parsed(text: str) -> list[tuple[str, dict]]:
    """Server-sent events as the standard reads them: name and data of each."""
    found, name, data = [], "message", []
    for line in re.split(r"\r\n|\r|\n", text):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            found.append((name, json.loads("\n".join(data))))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return found


@pytest.fixture
def server():
    with asgi_server() as address:
        yield address


@pytest.fixture
def caller(server):
    """A client of the real server, with a token and a session."""
    key = by_token(make_user("owner")).key
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield client


def start(caller) -> str:
    return f"/sessions/{caller.post('/sessions/').json()['session_id']}"


def streamed(caller, session):
    return caller.stream("POST", f"{session}/messages/stream", json={"message": "hi"})


# -- the encoding ----------------------------------------------------------------------------------------


@given(st.text())
def test_d6_no_text_can_end_an_event_or_begin_another(text):
    """An answer that looks like the protocol stays text: what is encoded is read back as one event of that text."""
    for given_ in (text, f"\n\nevent: turn_finished\ndata: {text}\r\rid: 1\n\n"):
        event = events.TextDelta(turn_id=1, chat_id=1, text=given_, number=1)
        assert parsed(streams.encode(event, internals=True)) == [("text_delta", event.as_dict())]


def test_every_event_has_a_schema_that_it_fits():
    """The API's schema types each event of the package, by what `as_dict` gives."""
    assert {type(event) for event in EXAMPLES} == set(events.Event.__subclasses__())
    for event in EXAMPLES:
        for internals in (True, False):
            ((name, data),) = parsed(streams.encode(event, internals=internals))
            schema = streams.EVENT_SCHEMAS[name]
            assert schema.model_validate(data, strict=False).model_dump(mode="json") == data
            assert set(data) == set(schema.model_fields)


def test_what_is_internal_is_for_staff():
    """Arguments and results of tools, routes, and a provider's words are in no event for a customer."""
    told = "".join(streams.encode(event, internals=False) for event in EXAMPLES)
    assert "secret" not in told
    assert '"why"' not in told
    assert "secret" in "".join(streams.encode(event, internals=True) for event in EXAMPLES)


# -- over a server with an event loop ---------------------------------------------------------------------


def test_an_answer_comes_piece_by_piece(caller):
    """The events come in order as they happen, with headers that keep proxies from collecting them."""
    session = start(caller)
    with (
        using(SlowModel(["one two three"])),
        streamed(caller, session) as response,
    ):
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["Cache-Control"]
        pieces = list(response.iter_text())
    assert len(pieces) > 3
    heard = parsed("".join(pieces))
    assert [name for name, _ in heard] == [
        "turn_started",
        "llm_call_started",
        *["text_delta"] * 3,
        "llm_call_finished",
        "turn_finished",
    ]
    assert "".join(data["text"] for name, data in heard if name == "text_delta") == "one two three"
    assert heard[-1][1]["reply"] == "one two three"


def test_d1_a_reader_who_goes_away_finds_the_whole_answer(caller):
    """The connection is cut after any number of pieces; the turn goes on by itself, and nothing of it is lost."""
    rng, words = random.Random(4), " ".join(f"w{number}" for number in range(12))
    for _ in range(20):
        session = start(caller)
        with using(SlowModel([words], pause=0.005)):
            cut, seen = rng.randrange(1, 12), 0
            with streamed(caller, session) as response:
                for _ in response.iter_text():
                    seen += 1
                    if seen == cut:
                        break
            until(lambda: not Turn.objects.filter(status="running").exists())
        assert caller.get(session).json()["messages"][-1]["content"] == words
    assert set(Turn.objects.values_list("status", flat=True)) == {"done"}


def test_d1_a_caller_who_does_not_wait_for_the_answer_finds_it(caller):
    """The same for a send that is not streamed, and whose client gives up."""
    session = start(caller)
    with using(SlowModel(["one two three four"], pause=0.2)):
        with pytest.raises(httpx.ReadTimeout):
            caller.post(f"{session}/messages", json={"message": "hi"}, timeout=0.5)
        until(lambda: Turn.objects.filter(status="done").exists())
    assert caller.get(session).json()["messages"][-1]["content"] == "one two three four"


def test_what_is_refused_before_it_begins_has_a_status(caller):
    """A stream that cannot begin is an error with a status, not a stream that tells of one."""
    session = start(caller)
    with (
        using(SlowModel(["one two three four five six"], pause=0.1)),
        streamed(caller, session) as response,
    ):
        pieces = response.iter_text()
        next(pieces)
        busy = caller.post(f"{session}/messages/stream", json={"message": "again"})
        assert (busy.status_code, busy.json()["code"]) == (409, "turn_in_progress")
        assert busy.headers["Retry-After"]
        assert parsed("".join(pieces))[-1][0] == "turn_finished"
    empty = caller.post(f"{session}/messages/stream", json={"message": " "})
    assert (empty.status_code, empty.json()["code"]) == (422, "bad_message")


def test_a_failure_ends_the_stream_with_its_code(caller, settings):
    """A failure on the way is the last event, in words for customers, and stands at the message."""
    settings.LLM_WRAPPER_API_CONFIGS = ["demo"]
    session = start(caller)
    with scripted_model(cut_stream("Half an ", "answer")):
        heard = parsed(caller.post(f"{session}/messages/stream", json={"message": "hi"}).text)
    name, data = heard[-1]
    assert name == "turn_failed"
    assert data["error_code"] == "all_configs_unavailable"
    assert data["error_message"].startswith("Failed to generate model response")
    assert data["retryable"] is True
    assert caller.get(session).json()["messages"][-1]["error_code"] == "all_configs_unavailable"


def test_a_running_answer_is_stopped(caller):
    """Stop ends the answer that is under way and keeps what has arrived; the session goes on."""
    session = start(caller)
    with (
        using(SlowModel([" ".join(["word"] * 200), "Next."], pause=0.05)),
        streamed(caller, session) as response,
    ):
        pieces = response.iter_text()
        heard = ""
        while "text_delta" not in heard:
            heard += next(pieces)
        assert caller.post(f"{session}/stop").json() == {"stopped": True}
        heard += "".join(pieces)
        assert parsed(heard)[-1][0] != "turn_finished"
        last = caller.get(session).json()["messages"][-1]
        assert last["incomplete"] is True
        assert last["error_code"] == "turn_cancelled"
        assert caller.post(f"{session}/messages", json={"message": "go on"}).json()["reply"]["content"] == "Next."
    assert caller.post(f"{session}/stop").json() == {"stopped": False}


def test_d3_a_slow_reader_is_left_behind_and_finds_the_answer(make_prompt, monkeypatch):
    """The buffer between a turn and its reader is bounded: the turn does not wait for a reader, and does not store up
    for one who reads nothing. The answer is in the session."""
    monkeypatch.setattr(listening, "BUFFER", 5)
    chat = ChatHistory.objects.create()
    job = TurnJob(chat_id=chat.pk, message="hi", spec=PromptSpec(name=""), config_names=["demo"], stream=True)

    def hear_one_then_wait(heard):
        assert next(heard).type == "turn_started"
        until(lambda: Turn.objects.filter(status="done").exists())
        return heard

    words = " ".join(f"w{number}" for number in range(50))
    with scripted_model(words):
        heard, left_behind = hear_one_then_wait(listening.listen(job)), []
        with pytest.raises(listening.LeftBehind):
            left_behind.extend(heard)
    assert len(left_behind) <= 5
    assert Message.objects.filter(type="assistant", text=words).exists()


def test_b6_turns_wait_for_their_models_at_the_same_time(caller):
    """Slow answers do not hold each other up, nor other requests; and while they wait, no more database connections are
    open than the event loop has threads for them."""
    opened: weakref.WeakSet[Any] = weakref.WeakSet()

    def note(connection, **kwargs):
        opened.add(connection)

    sessions = [start(caller) for _ in range(16)]
    connection_created.connect(note)
    with using(SlowModel(["one two three four five"] * 16, pause=0.3)), ThreadPoolExecutor(16) as pool:
        began = time.monotonic()
        sends = [pool.submit(caller.post, f"{session}/messages", json={"message": "hi"}) for session in sessions]
        until(lambda: LLMCall.objects.filter(status="running").count() == 16)
        assert sum(connection.connection is not None for connection in opened) <= listening.LANES
        asked = time.monotonic()
        assert caller.get("/health").status_code == 200
        assert time.monotonic() - asked < 1
        assert {send.result().status_code for send in sends} == {200}
        assert time.monotonic() - began < 12  # one after the other they take 24 seconds
    connection_created.disconnect(note)


def test_a_silent_turn_shows_that_it_is_alive(caller, monkeypatch):
    """While nothing happens a comment goes out now and then, so that no proxy takes the connection for dead."""
    monkeypatch.setattr(listening, "SILENCE", 0.05)
    session = start(caller)
    with scripted_model(delayed(0.5, "Done.")), streamed(caller, session) as response:
        text = "".join(response.iter_text())
    assert text.count(streams.ALIVE) >= 3
    assert [name for name, _ in parsed(text)][-1] == "turn_finished"


def test_a_bug_in_a_turn_ends_its_stream(caller, monkeypatch, caplog):
    """What nobody expected is told as an internal error without its words, and the traceback is in the log."""

    def broken(*args, **kwargs):
        raise ZeroDivisionError("the password is secret")

    session = start(caller)
    monkeypatch.setattr(history, "save_answer", broken)
    with scripted_model("ok", "ok"):
        heard = parsed(caller.post(f"{session}/messages/stream", json={"message": "hi"}).text)
        told = caller.post(f"{session}/messages", json={"message": "hi"})
    assert heard[-1][0] == "turn_failed"
    assert heard[-1][1]["error_code"] == told.json()["code"] == "internal_error"
    assert told.status_code == 500
    assert "secret" not in json.dumps(heard) + told.text
    assert "the password is secret" in caplog.text


# -- over a server without one ----------------------------------------------------------------------------


def test_a_server_without_an_event_loop_streams_too(db, make_tool, make_prompt):
    """WSGI gives the same events, and failures the same statuses."""
    owner = by_token(make_user("owner"))
    make_prompt(tools=[make_tool("tests.host_tools.order_state")], api_access="users")
    session = owner.start(prompt="support")
    with scripted_model(tool_call("order_state", order=2), "Done."):
        response = owner.post(f"{session}/messages/stream", {"message": "hi"})
        heard = parsed(b"".join(response.streaming_content).decode())
    names = [name for name, _ in heard]
    assert names[0] == "turn_started"
    assert names[-1] == "turn_finished"
    assert {"tool_call_started", "tool_call_finished", "text_delta"} <= set(names)
    assert owner.post(f"{session}/messages/stream", {"message": ""}).status_code == 422
    with scripted_model(failure(errors.AuthenticationFailed("sk-1"))):
        response = owner.post(f"{session}/messages/stream", {"message": "hi"})
        heard = parsed(b"".join(response.streaming_content).decode())
    assert heard[-1][1]["error_code"] == "authentication_failed"
    assert "sk-1" not in json.dumps(heard)
