"""Answers given before to the very same request, in Django's cache. One that does not answer never breaks a turn."""

from __future__ import annotations

import hashlib
import json
import time
from decimal import Decimal
from typing import Any

from llm_wrapper.configs.cooldown import with_cache
from llm_wrapper.models import LLMCall
from llm_wrapper.types import Completion, ModelRequest, ResponseCache, Usage

from .effects import CallOutcome

# What a call that was not made took, and whose price that is.
NOTHING = Usage(input_tokens=0, output_tokens=0)
SOURCE = "response cache"


def find(cache: ResponseCache, request: ModelRequest, call: LLMCall) -> CallOutcome | None:
    """The outcome of a call whose answer is in the cache: no tokens, no cost, and marked as such on its row."""
    started = time.monotonic()
    text = with_cache(lambda answers: answers.get(_key(cache, request)), None)
    if not isinstance(text, str) or not text:
        return None
    LLMCall.objects.filter(pk=call.pk).update(cache_hit=True)
    completion = Completion(
        text=text,
        tool_calls=(),
        finish_reason="stop",
        usage=NOTHING,
        cost=Decimal(0),
        price_source=SOURCE,
        model=request.config.model,
        response_id="",
    )
    return CallOutcome(completion, None, "", time.monotonic() - started, None)


def keep(cache: ResponseCache, request: ModelRequest, completion: Completion) -> None:
    """Remember a turn's last answer, once it is known to fit what was asked for. One that came from the cache keeps the
    lifetime that it has."""
    if completion.text and completion.price_source != SOURCE:
        with_cache(lambda answers: answers.set(_key(cache, request), completion.text, cache.lifetime), None)


def _key(cache: ResponseCache, request: ModelRequest) -> str:
    """All that an answer depends on, as a digest; also the config, since two may reach different servers."""
    wanted = request.response_format
    parts: dict[str, Any] = {
        "scope": cache.scope,
        "config": request.config.name,
        "model": request.config.model,
        "params": {**request.config.params, **request.params},
        "messages": request.messages,
        "tools": request.tools,
        "format": wanted.model_json_schema() if wanted is not None else None,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"llm_wrapper:answer:{digest}"
