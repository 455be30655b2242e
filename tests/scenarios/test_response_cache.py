"""What a remembered answer is remembered under, and a cache that is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.core.cache import cache
from pydantic import BaseModel

from llm_wrapper.chat import Chat
from llm_wrapper.models import LLMCall
from llm_wrapper.testing import scripted_model
from llm_wrapper.turn import cached
from llm_wrapper.types import ConfigChoice, Credentials, ModelRequest, ResponseCache

SCOPE = ResponseCache("user 1", 60)
CHOICE = ConfigChoice(name="a", model="openai/x", params={"temperature": 0.5}, credentials=Credentials({}))
REQUEST = ModelRequest(config=CHOICE, messages=[{"role": "user", "content": "hi"}])


class One(BaseModel):
    number: int


class Other(BaseModel):
    number: str


def test_every_part_of_a_request_makes_another_key() -> None:
    """Requests that differ in anything an answer depends on never share one; how it is sent does not matter."""
    tool = {"name": "look", "description": "", "parameters": {"type": "object", "properties": {}}}
    requests = [
        REQUEST,
        replace(REQUEST, config=replace(CHOICE, name="b")),
        replace(REQUEST, config=replace(CHOICE, model="openai/y")),
        replace(REQUEST, config=replace(CHOICE, params={"temperature": 0.6})),
        replace(REQUEST, config=replace(CHOICE, params={})),
        replace(REQUEST, params={"max_tokens": 5}),
        replace(REQUEST, params={"max_tokens": "5"}),
        replace(REQUEST, messages=[]),
        replace(REQUEST, messages=[{"role": "user", "content": "hi "}]),
        replace(REQUEST, messages=[{"role": "system", "content": "hi"}]),
        replace(REQUEST, messages=[*REQUEST.messages, *REQUEST.messages]),
        replace(REQUEST, messages=[{"role": "user", "content": None}]),
        replace(REQUEST, tools=[tool]),
        replace(REQUEST, tools=[{**tool, "description": "Look."}]),
        replace(REQUEST, response_format=One),
        replace(REQUEST, response_format=Other),
    ]
    keys = [cached._key(SCOPE, request) for request in requests]
    keys += [cached._key(ResponseCache(scope, 60), REQUEST) for scope in ("", "user 2", "scope user 1")]
    assert len(set(keys)) == len(keys)
    same = [
        replace(REQUEST, stream=True, timeout=1.0),
        replace(REQUEST, messages=[{"content": "hi", "role": "user"}]),
        replace(REQUEST, config=replace(CHOICE, credentials=Credentials({"api_key": "another"}), timeout=3.0)),
    ]
    assert {cached._key(SCOPE, request) for request in same} == {keys[0]}
    assert all(len(key) < 200 and key.isascii() and " " not in key for key in keys)  # what every cache takes


@pytest.mark.django_db
@pytest.mark.parametrize("value", [{"text": "evil"}, b"evil", 7, None, "", ["evil"], object])
def test_what_is_no_answer_is_not_served(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is found in the cache counts as nothing found: the model is asked."""
    monkeypatch.setattr(cached, "_key", lambda *parts: "poisoned")
    cache.set("poisoned", value)
    with scripted_model("from the model"):
        message, _ = Chat.create().call_llm("openai/x", "hi", use_cache=True)
    assert message.text == "from the model"
    assert not LLMCall.objects.filter(cache_hit=True).exists()


@pytest.mark.django_db
def test_a_cache_that_is_away_never_breaks_a_turn(settings: Any) -> None:
    """Where its server does not answer, models are asked as if there were no cache."""
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    }
    with scripted_model("one", "two"):
        chat = Chat.create()
        assert chat.call_llm("openai/x", "hi", use_cache=True).reply == "one"
        assert chat.call_llm("openai/x", "hi", use_cache=True).reply == "two"
