"""The response cache of `Chat`: whom it serves, for how long, and what a hit costs."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from pydantic import BaseModel, field_validator

from llm_wrapper import errors
from llm_wrapper.chat import Chat
from llm_wrapper.models import ChatHistory
from llm_wrapper.testing import failure, scripted_model, text
from llm_wrapper.types import Usage

pytestmark = pytest.mark.django_db
MODEL = "ollama_chat/qwen3:4b"


def priced(words):
    return text(words, usage=Usage(input_tokens=10, output_tokens=3), cost=Decimal("0.5"))


def ask(user=None, message="a", **options):
    return Chat.create().call_llm(MODEL, message, user, **{"use_cache": True, **options})


@pytest.fixture
def people():
    return [get_user_model().objects.create_user(name) for name in ("ada", "bob")]


def test_a_repeated_request_costs_nothing():
    """The same request of the same user gets the same answer without a call; it is marked, and counts 0 tokens and
    no cost, which is known."""
    with scripted_model(priced("one")) as model:
        first, second = ask(), ask()
    assert len(model.requests) == 1
    assert (first[0].text, second[0].text) == ("one", "one")
    assert [first.llm_call.cache_hit, second.llm_call.cache_hit] == [False, True]
    assert (second.llm_call.input_tokens, second.llm_call.output_tokens, second.llm_call.cost) == (0, 0, 0)
    assert second.llm_call.price_source == "response cache"
    assert second.llm_call.status == "done"
    assert (second.usage.input_tokens, second.cost) == (0, 0)
    hit = ChatHistory.objects.get(pk=second.reply.chat_id)
    assert (hit.input_tokens_count, hit.cost, hit.unpriced_calls) == (0, 0, 0)


def test_the_cache_is_off_unless_asked_for():
    """Without `use_cache` nothing is taken from it, and nothing is put into it."""
    with scripted_model("one", "two", "three") as model:
        ask(use_cache=False)
        ask()
        ask(use_cache=False)
    assert len(model.requests) == 3


def test_a_stream_is_served_from_it_too():
    """A hit is one piece of a stream, of what a send or a stream before gave."""
    with scripted_model(priced("one two")) as model:
        assert list(Chat.create().stream_call_llm(MODEL, "a", use_cache=True)) == ["one ", "two"]
        chat = Chat.create()
        assert list(chat.stream_call_llm(MODEL, "a", use_cache=True)) == ["one two"]
        assert ask().llm_call.cache_hit
    assert len(model.requests) == 1
    assert chat.llm_call.cache_hit
    assert (chat.last_llm_message.text, chat.llm_call.output_tokens) == ("one two", 0)


def test_another_user_does_not_get_the_answer(people):
    """What one user was told does not reach another, nor one who gave no name."""
    ada, bob = people
    with scripted_model("for ada", "for bob", "for nobody") as model:
        assert [ask(user)[0].text for user in (ada, bob, None, ada)] == ["for ada", "for bob", "for nobody", "for ada"]
    assert len(model.requests) == 3


def test_users_share_answers_where_the_caller_says_so(people):
    """A scope that the caller names is served to all of it, and a user is not mistaken for a scope of that name."""
    ada, bob = people
    with scripted_model("shared", "own", "other") as model:
        assert ask(ada, cache_scope="team 1")[0].text == "shared"
        assert ask(bob, cache_scope="team 1")[0].text == "shared"
        assert ask(ada)[0].text == "own"
        assert ask(bob, cache_scope=f"user {ada.pk}")[0].text == "other"
    assert len(model.requests) == 3


def test_an_answer_has_a_lifetime(later):
    """It is served for an hour, or as long as the caller says, and not any longer."""
    with scripted_model("one", "two", "three", "four"):
        assert [ask()[0].text, ask(message="b", cache_lifetime=5)[0].text] == ["one", "two"]
        later(4)
        assert ask(message="b").llm_call.cache_hit
        later(2)
        assert ask(message="b", cache_lifetime=5)[0].text == "three"
        later(3590)
        assert ask().llm_call.cache_hit
        later(10)
        assert ask()[0].text == "four"


@pytest.mark.parametrize(
    "other",
    [
        {"message": "b"},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"system": "Be brief."},
        {"model": "ollama_chat/other"},
    ],
)
def test_all_that_an_answer_depends_on_counts(other):
    """Another message, history, parameter or model is another request."""
    with scripted_model("one", "two") as model:
        ask()
        chat = Chat.create()
        if "system" in other:
            chat.create_system_message(other["system"])
        options = {key: value for key, value in other.items() if key in ("temperature", "max_tokens")}
        chat.call_llm(other.get("model", MODEL), other.get("message", "a"), use_cache=True, **options)
    assert len(model.requests) == 2


def test_a_failure_is_not_remembered():
    """Only answers are kept."""
    with scripted_model(failure(errors.ContentRefused("no")), "two"):
        with pytest.raises(errors.ContentRefused):
            ask()
        assert ask()[0].text == "two"


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def is_allowed(cls, value):
        assert value in ALLOWED
        return value


ALLOWED: list[int] = []


def test_a_structured_answer_is_checked_again(monkeypatch):
    """An answer from the cache is parsed and validated as a new one is: where it does not fit any more, the model is
    asked to repair it."""
    monkeypatch.setitem(globals(), "ALLOWED", [2])
    with scripted_model('{"number": 2}', '{"number": 3}') as model:
        assert ask(output_model=Even).parsed == Even(number=2)
        served = ask(output_model=Even)
        assert (served.parsed, served.llm_call.cache_hit) == (Even(number=2), True)
        monkeypatch.setitem(globals(), "ALLOWED", [3])
        assert ask(output_model=Even).parsed == Even(number=3)
    assert len(model.requests) == 2
