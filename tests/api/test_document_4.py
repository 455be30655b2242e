"""Document 4: its three endpoints as they stand, and the defects of the project behind it that are not here."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from django.db import OperationalError

from llm_wrapper import errors
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import failure, rate_limit, scripted_model, text
from llm_wrapper.types import Usage

KEYS = {"role", "content", "tokens", "cost", "created_at"}


def answer(words: str, *, tokens: int | None, cost: str | None):
    return text(words, usage=Usage(10, tokens), cost=None if cost is None else Decimal(cost))


@pytest.mark.parametrize("path", ["/sessions/", "/sessions"])
def test_a_session_is_created(owner, path):
    """POST /sessions/ answers 200 with an empty session, with and without the slash."""
    response = owner.post(path)
    made = response.json()
    assert response.status_code == 200
    assert {name: made[name] for name in ("total_tokens", "total_cost", "messages")} == {
        "total_tokens": 0,
        "total_cost": 0.0,
        "messages": [],
    }
    assert ChatHistory.objects.get(public_id=made["session_id"]).user == owner.user


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_message_is_answered_with_the_session(owner, slash):
    """POST …/messages answers 200 with the session; GET …/{id} gives the same. A user's message has tokens 0 and cost
    0.0, an answer its own, and the totals are their sums."""
    session = owner.start()
    with scripted_model(answer("One.", tokens=16, cost="0.5"), answer("Two.", tokens=24, cost="0.25")):
        owner.post(f"{session}/messages{slash}", {"message": "first"})
        response = owner.post(f"{session}/messages{slash}", {"message": "second"})
    sent = response.json()
    assert response.status_code == 200
    assert (sent["total_tokens"], sent["total_cost"]) == (40, 0.75)
    shown = [{key: message[key] for key in KEYS - {"created_at"}} for message in sent["messages"]]
    assert shown == [
        {"role": "user", "content": "first", "tokens": 0, "cost": 0.0},
        {"role": "assistant", "content": "One.", "tokens": 16, "cost": 0.5},
        {"role": "user", "content": "second", "tokens": 0, "cost": 0.0},
        {"role": "assistant", "content": "Two.", "tokens": 24, "cost": 0.25},
    ]
    assert all(message["created_at"].endswith("Z") for message in sent["messages"])
    del sent["reply"]
    assert owner.get(f"{session}{slash}").json() == sent


def test_a_session_that_is_not_there_is_404(owner):
    """The document's words for an unknown session."""
    for response in (owner.get(f"/sessions/{uuid.uuid4()}"), owner.send(f"/sessions/{uuid.uuid4()}", "hi")):
        assert response.status_code == 404
        assert response.json()["detail"] == "Chat session not found"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"message": 1}',
        b'{"message": ""}',
        b'{"message": NaN}',
        b"[" * 9999,
    ],
)
def test_a_bad_body_is_422(owner, body):
    """Whatever is no message is refused with 422 and a detail, and nothing is stored."""
    session = owner.start()
    response = owner.post(f"{session}/messages", body)
    assert response.status_code == 422
    assert response.json()["detail"]
    assert not Message.objects.exists()


def test_a_the_model_sees_the_whole_conversation(owner):
    """Defect a: only the last message was sent, or the new one twice. Here each call has the history, once."""
    session = owner.start()
    with scripted_model("One.", "Two.") as model:
        owner.send(session, "first")
        owner.send(session, "second")
    said = [message["content"] for message in model.requests[1].messages]
    assert said == ["first", "One.", "second"]


def test_b_a_failure_is_on_record_and_a_repeat_is_one_message(owner, make_prompt):
    """Defect b: a failure left an orphan without a reason, and a retry doubled it. Here the error stands at the
    message, the next call does not send it again, and a key makes a repeat harmless."""
    session = owner.start(config="demo")
    with scripted_model(failure(errors.AuthenticationFailed("bad key sk-1")), "Fine.") as model:
        assert owner.send(session, "first").status_code == 502
        again = [owner.send(session, "second", Idempotency_Key="k1").json() for _ in range(2)]
    assert [message["error_code"] for message in again[0]["messages"]] == ["authentication_failed", None, None]
    assert [message["content"] for message in model.requests[1].messages] == ["second"]
    assert again[0] == again[1]
    assert Message.objects.filter(type="user", text="second").count() == 1


def test_c_models_are_configs_and_not_constants(owner, settings, tmp_path):
    """Defect c: the model's name and address were fixed in code and read at import. Here they are YAML files, read
    when they change; without any, a session starts and a send says what is missing."""
    settings.LLM_CONFIGS_PATH = tmp_path
    session = owner.start()
    response = owner.send(session, "hi")
    assert (response.status_code, response.json()["code"]) == (503, "no_config")
    (tmp_path / "late.yml").write_text("name: late\nllm_config_class: OllamaConfig\nmodel_name: gemma3:1b\n")
    with scripted_model("Hello.") as model:
        assert owner.send(session, "hi").status_code == 200
    assert model.requests[0].config.model == "ollama_chat/gemma3:1b"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.RateLimited("sk-secret", retry_after=7), 503, "all_configs_unavailable"),
        (errors.ProviderTimeout("sk-secret"), 503, "all_configs_unavailable"),
        (errors.AuthenticationFailed("sk-secret"), 502, "authentication_failed"),
        (errors.ProviderError("sk-secret"), 502, "provider_error"),
        (errors.ContentRefused("sk-secret"), 422, "content_refused"),
        (errors.ContextWindowExceeded("sk-secret"), 413, "context_window_exceeded"),
    ],
)
def test_d_a_failing_model_is_no_opaque_500(owner, settings, error, status, code):
    """Defect d: every failure was a 500 without a reason. Here the status, a stable code and `retryable` say what it
    was, Retry-After when to come back, and nothing of the provider's words is passed on."""
    settings.LLM_WRAPPER_API_CONFIGS = ["demo"]
    session = owner.start()
    with scripted_model(failure(error)):
        response = owner.send(session, "hi")
    told = response.json()
    assert (response.status_code, told["code"]) == (status, code)
    assert told["detail"].startswith("Failed to generate model response: ")
    assert "sk-secret" not in response.content.decode()
    assert told["retryable"] is (status == 503)
    assert ("Retry-After" in response.headers) is told["retryable"]


def test_c3_where_the_only_model_is_limited_the_wait_is_told(owner, settings):
    """A limit of the only config is 503 with the seconds to wait, at the first send and at once for the next ones."""
    settings.LLM_WRAPPER_API_CONFIGS = ["demo"]
    session = owner.start()
    with scripted_model(rate_limit(17)) as model:
        waits = [int(owner.send(session, "hi").headers["Retry-After"]) for _ in range(3)]
    assert len(model.requests) == 1
    assert all(15 <= wait <= 17 for wait in waits)


@pytest.mark.parametrize(("tokens", "cost"), [(None, "0.5"), (7, None), (None, None)])
def test_d_usage_that_is_not_reported_is_unknown(owner, tokens, cost):
    """Defect d: an answer without a token count was a 500. Here it is an answer, and the count is null, not 0."""
    session = owner.start()
    with scripted_model(answer("Fine.", tokens=tokens, cost=cost)):
        sent = owner.send(session, "hi").json()
    assert (sent["reply"]["tokens"], sent["reply"]["cost"]) == (tokens, None if cost is None else 0.5)
    assert sent["unpriced_calls"] == (cost is None)


def test_e_totals_are_exact_and_count_what_was_sent_too(owner):
    """Defect e: totals were read, added to and written back as floats, cost was the token count, and what was sent cost
    nothing. Here they are sums of the rows, exact as text, and usage has the tokens both ways."""
    session = owner.start()
    with scripted_model(*(answer("ok", tokens=3, cost="0.1") for _ in range(3))):
        for number in range(3):
            sent = owner.send(session, f"message {number}").json()
    assert (sent["total_tokens"], sent["total_cost_exact"]) == (9, "0.3")
    used = owner.get(f"{session}/usage").json()
    assert (used["input_tokens"], used["output_tokens"], used["cost_exact"], used["calls"]) == (30, 9, "0.3", 3)
    assert [message["content"] for message in sent["messages"][::2]] == ["message 0", "message 1", "message 2"]


def test_f_a_session_is_its_owners(owner, stranger):
    """Defect f: sessions had running numbers, and anybody could read them. Here ids cannot be guessed, and another
    user's session is not there."""
    session = owner.start()
    assert uuid.UUID(session.rpartition("/")[2]).version == 4
    assert stranger.get(session).status_code == 404
    assert stranger.send(session, "hi").status_code == 404
    assert not Turn.objects.exists()


def test_f_messages_have_bounds(owner, settings):
    """Defect f: an empty message was taken, and one of any length. Here both are 422, and a huge body is 413."""
    settings.LLM_WRAPPER_MAX_MESSAGE_CHARS = 10
    session = owner.start()
    for message in ("", "   \n", "x" * 11):
        assert owner.send(session, message).status_code == 422
    settings.LLM_WRAPPER_API_MAX_BODY = 1000
    assert owner.send(session, "x" * 1000).status_code == 413
    assert not Message.objects.exists()


def test_f_a_long_session_comes_in_pages(owner):
    """Defect f: each answer brought the whole history. Here it brings the newest, and a cursor to the others."""
    session = owner.start()
    chat = ChatHistory.objects.get()
    Message.objects.bulk_create(
        Message(chat=chat, position=number, type="user" if number % 2 else "assistant", text=str(number))
        for number in range(1, 121)
    )
    shown = owner.get(session).json()
    texts = [message["content"] for message in shown["messages"]]
    older = shown["older"]
    while older:
        page = owner.get(f"{session}/messages?limit=30&cursor={older}").json()
        texts, older = [message["content"] for message in page["items"]] + texts, page["next"]
    assert len(shown["messages"]) == 50
    assert texts == [str(number) for number in range(1, 121)]


def test_a_database_that_is_away_is_503_in_the_documents_words(owner, monkeypatch):
    """Reading and sending say that it was the database, with a status that asks to try again."""
    session = owner.start()

    def away(*args, **kwargs):
        raise OperationalError("server closed the connection")

    monkeypatch.setattr("llm_wrapper.api.shown.messages", away)
    response = owner.get(session)
    assert response.status_code == 503
    assert response.json()["detail"].startswith("Database error while fetching chat session")
    monkeypatch.setattr("llm_wrapper.api.sending.load_prompt", away)
    monkeypatch.setattr("llm_wrapper.api.sending.usable_configs", away)
    response = owner.send(session, "hi")
    assert response.status_code == 503
    assert response.json()["detail"].startswith("Database error while saving message")
    assert LLMCall.objects.count() == 0
