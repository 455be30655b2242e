"""Weeks of LLM calls with costs, as a site with some users leaves them. The same ones each time, up to today."""

from __future__ import annotations

import random
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from llm_wrapper.models import LLMCall, PromptVersion

# Config, model, prices per million tokens in, cached and out (None: unknown), and how often it is called.
MODELS = (
    ("claude", "claude-sonnet-4-5-20250929", ("3", "0.3", "15"), 26),
    ("azure-gpt", "gpt-4.1-2025-04-14", ("2", "0.5", "8"), 30),
    ("gemini", "gemini-2.5-pro", ("1.25", "0.125", "10"), 14),
    ("azure-mini", "gpt-4.1-mini-2025-04-14", ("0.4", "0.1", "1.6"), 24),
    ("local-llama", "llama-3.1-8b-instruct", None, 2),
)
PROMPTS = (("support", 50), ("order lookup", 22), ("contract review", 14), ("translate", 9), ("weekly digest", 5))
USERS = ("ada", "grace", "linus", "margaret", "dennis", "barbara", "ken", "frances", "alan", "edsger", None)
TOKENS = {"support": 9000, "order lookup": 5200, "contract review": 38000, "translate": 2400, "weekly digest": 21000}


def spend(days: int = 45, calls_a_day: int = 60, seed: int = 7) -> None:
    """Fill the last `days` days with calls: fewer at weekends, growing, with a model that came later."""
    draw = random.Random(seed)
    users = {name: get_user_model().objects.get_or_create(username=name)[0] if name else None for name in USERS}
    versions = {name: PromptVersion.objects.create(name=name, number=1, digest=name, content={}) for name, _ in PROMPTS}
    today = timezone.localdate()
    calls: list[LLMCall] = []
    times: list[datetime] = []
    for number in range(days):
        day = today - timedelta(days=days - 1 - number)
        busy = (0.3 if day.weekday() >= 5 else 1.0) * (0.65 + 0.6 * number / days) * draw.uniform(0.8, 1.2)
        # gemini came after a third of the time
        weights = [0 if name == "gemini" and number < days / 3 else weight for name, _, _, weight in MODELS]
        for _ in range(round(calls_a_day * busy)):
            call = _call(draw, draw.choices(MODELS, weights)[0], users, versions)
            seconds = draw.uniform(0, 24 * 3600 - 1)
            moment = timezone.make_aware(datetime.combine(day, time.min)) + timedelta(seconds=seconds)
            if moment <= timezone.now():
                calls.append(call)
                times.append(moment)
    LLMCall.objects.bulk_create(calls, batch_size=500)
    for call, moment in zip(calls, times, strict=True):
        call.started_at = moment  # the column sets itself when a row is made
    LLMCall.objects.bulk_update(calls, ["started_at"], batch_size=200)


def _call(draw: random.Random, model: Any, users: dict[Any, Any], versions: dict[str, PromptVersion]) -> LLMCall:
    config, name, prices, _ = model
    prompt = draw.choices([name for name, _ in PROMPTS], [weight for _, weight in PROMPTS])[0]
    sent = round(TOKENS[prompt] * draw.lognormvariate(0, 0.4))
    cached = round(sent * draw.choice((0, 0.5, 0.8)))
    received = round(320 * draw.lognormvariate(0, 0.5))
    failed = draw.random() < 0.02
    reasoning = round(received * 0.6) if name.startswith("gemini") and not failed else 0
    cost = None
    if prices and not failed:
        of_in, of_cached, of_out = map(Decimal, prices)
        cost = (of_in * (sent - cached) + of_cached * cached + of_out * received) / 1_000_000
    return LLMCall(
        attempt=1,
        user=users[draw.choices(USERS, range(len(USERS) + 2, 2, -1))[0]],
        prompt_version=versions[prompt],
        config_name=config,
        model=name,
        status="failed" if failed else "done",
        first_position=1,
        last_position=2,
        input_tokens=None if failed else sent,
        cached_tokens=None if failed else cached,
        output_tokens=None if failed else received,
        reasoning_tokens=None if failed else reasoning,
        cost=cost,
        error_code="rate_limited" if failed else "",
    )
