"""Which configs rest after a failure, shared by all workers through Django's cache.

A config cools while its key is in the cache: the key's time to live is the truth, and the deadline inside it
only tells people how long it lasts. A cache that does not answer never breaks a turn: nothing counts as
cooling then.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.cache import BaseCache, caches
from django.db import Error as DatabaseCacheError

from ..conf import conf

logger = logging.getLogger("llm_wrapper.configs")

T = TypeVar("T")


@dataclass(frozen=True)
class Cooling:
    """A config that rests: for how long still, and after what."""

    seconds_left: float
    reason: str


def cool(name: str, *, retry_after: float | None = None, reason: str) -> float:
    """Let a config rest in all workers, and return for how many seconds.

    `retry_after` is what the provider asked for, held between 1 and LLM_WRAPPER_MAX_COOLDOWN; without a
    usable one the rest is LLM_WRAPPER_COOLDOWN, doubled with each failure in a row. A rest that is under way
    is only ever made longer. Two workers that do so in the same instant may leave the shorter of their two
    deadlines.
    """
    asked = _usable(retry_after)
    _may_have_failed.add(name)
    return _with_cache(lambda cache: _cool(cache, name, asked, reason), _rest(0) if asked is None else asked)


def cooling(names: Iterable[str]) -> dict[str, Cooling]:
    """Those of the configs that rest now, found with one question to the cache."""
    keys = {_key("cool", name): name for name in names}
    if not keys:
        return {}
    nothing: dict[str, Any] = {}
    found = _with_cache(lambda cache: cache.get_many(keys), nothing)
    result = {keys[key]: _parse(value) for key, value in found.items()}
    _may_have_failed.update(result)
    return result


def clear(name: str) -> None:
    """Note a success: the next failure starts from the shortest rest again.

    A rest under way is left to run out. Costs nothing where this process saw no failure of the config; the
    count that another process keeps expires by itself.
    """
    if name in _may_have_failed:
        _may_have_failed.discard(name)
        _with_cache(lambda cache: cache.delete(_key("failures", name)), False)


def warm_up(name: str) -> None:
    """End a rest that is under way, in all workers, and forget the failures before it."""
    _may_have_failed.discard(name)
    keys = [_key("cool", name), _key("failures", name)]
    _with_cache(lambda cache: cache.delete_many(keys), None)


# Names whose count of failures may be in the cache, as far as this process knows.
_may_have_failed: set[str] = set()


def _cool(cache: BaseCache, name: str, asked: float | None, reason: str) -> float:
    key, count_key = _key("cool", name), _key("failures", name)
    failures = cache.get(count_key)
    failures = failures if isinstance(failures, int) else 0
    seconds = _rest(failures) if asked is None else asked
    if cache.add(key, _value(seconds, reason), seconds):
        # Only the worker that opens the rest counts, so that ten calls that fail together are one failure.
        # The count outlives the rest by the longest one: a failure after that is no longer "in a row".
        cache.set(count_key, failures + 1, seconds + conf.max_cooldown)
        return seconds
    if asked is None:
        seconds = _rest(max(failures - 1, 0))
    left = _parse(cache.get(key)).seconds_left
    if seconds > left:
        cache.set(key, _value(seconds, reason), seconds)
        return seconds
    return left


def _rest(failures: int) -> float:
    # The exponent is bounded because 2.0 ** 1100 is an OverflowError.
    return float(min(conf.cooldown * 2.0 ** min(failures, 60), conf.max_cooldown))


def _usable(retry_after: float | None) -> float | None:
    if isinstance(retry_after, bool) or not isinstance(retry_after, (int, float)):
        return None
    if math.isnan(retry_after) or retry_after < 0:
        return None
    return float(max(1.0, min(retry_after, conf.max_cooldown)))


def _value(seconds: float, reason: str) -> dict[str, Any]:
    return {"until": time.time() + seconds, "reason": reason}


def _parse(value: Any) -> Cooling:
    until = value.get("until") if isinstance(value, dict) else None
    left = until - time.time() if isinstance(until, (int, float)) else 0.0
    # Clocks of machines differ; a key that is still there has not run out.
    left = max(0.0, min(left, conf.max_cooldown))
    return Cooling(left, str(value.get("reason", "")) if isinstance(value, dict) else "")


def _key(kind: str, name: str) -> str:
    # memcached takes neither spaces nor long keys, and a name may have both.
    return f"llm_wrapper:{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


# -- a cache that does not answer ------------------------------------------------------------------------

_outage_logged = False


def _with_cache(use: Callable[[BaseCache], T], otherwise: T) -> T:
    """What `use` makes of the cache, or `otherwise` if the cache does not answer; logged once per outage."""
    global _outage_logged
    try:
        result = use(caches[conf.cache_alias])
    except _outages() as error:
        if not _outage_logged:
            logger.warning(
                "The cache %r does not answer (%s): no LLM config counts as cooling until it does.",
                conf.cache_alias,
                type(error).__name__,
            )
        _outage_logged = True
        return otherwise
    _outage_logged = False
    return result


def _outages() -> tuple[type[BaseException], ...]:
    """The errors by which Django's cache backends say that their server or disk is away.

    OSError: sockets and the file-based cache. django.db.Error: the database cache. The clients of Redis and
    memcached raise errors of their own, which exist only where the client was imported; hence sys.modules.
    Anything else is a defect and passes through.
    """
    clients = (
        ("redis.exceptions", "RedisError"),
        ("pymemcache.exceptions", "MemcacheError"),
        ("pylibmc", "Error"),
    )
    loaded = [(sys.modules[module], name) for module, name in clients if module in sys.modules]
    return (OSError, DatabaseCacheError, *(getattr(module, name) for module, name in loaded))
