"""Which configs rest after a failure, shared by all workers through Django's cache.

No call goes to a config while its first key, the rest, is in the cache: the key's time to live is the truth, and the
deadline inside it only tells people how long it lasts. Its second key counts its failures in a row and outlives the
rest. A config with a count and no rest has still to prove itself: one worker puts a probe where the rest was, which
keeps all others away, and makes its next call. If that ends well the count goes, and the config is open to all; if
not, it rests again. A cache that does not answer never breaks a turn: nothing counts as cooling then.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from django.core.cache import BaseCache, caches
from django.db import Error as DatabaseCacheError

from ..conf import conf

logger = logging.getLogger("llm_wrapper.configs")

T = TypeVar("T")

# In how many seconds to ask again for a config that is being probed: most calls have failed or answered by then.
PROBE_ENDS_SOON = 1.0
# A worker that changes a rest holds a lock for a few milliseconds, and one that died for no longer than this.
LOCK_SECONDS, LOCK_TRIES, LOCK_PAUSE = 2, 20, 0.01


@dataclass(frozen=True)
class Cooling:
    """A config that no call goes to: for how long still, and after what.

    `probed`: its rest is over, and one worker tries it right now.
    """

    seconds_left: float
    reason: str
    probed: bool = False


@dataclass(frozen=True)
class Standing:
    """How configs stand: those that no call goes to, and those of which the next call is a probe, with what they
    failed of."""

    cooling: dict[str, Cooling] = field(default_factory=dict)
    unproven: dict[str, str] = field(default_factory=dict)


def cool(name: str, *, retry_after: float | None = None, reason: str) -> float:
    """Let a config rest in all workers, and return for how many seconds.

    `retry_after` is what the provider asked for, held between 1 and LLM_WRAPPER_MAX_COOLDOWN and rounded up; without
    a usable one the rest is LLM_WRAPPER_COOLDOWN, doubled with each failure in a row. A rest that is under way is
    only ever made longer, and what fails during it is not one more failure in a row. Ends a probe.
    """
    asked = _usable(retry_after)
    return with_cache(lambda cache: _cool(cache, name, asked, reason), _rest(0) if asked is None else asked)


def cooling(names: Iterable[str]) -> dict[str, Cooling]:
    """Those of the configs that rest or are being probed now, found with one question to the cache."""
    return standing(names).cooling


def standing(names: Iterable[str]) -> Standing:
    """How the configs stand now, found with one question to the cache."""
    keys = {name: (_key("cool", name), _key("failures", name)) for name in names}
    if not keys:
        return Standing()
    nothing: dict[str, Any] = {}
    wanted = [key for pair in keys.values() for key in pair]
    found = with_cache(lambda cache: cache.get_many(wanted), nothing)
    result = Standing()
    for name, (rest, failures) in keys.items():
        if rest in found:
            result.cooling[name] = _parse(found[rest])
        elif failures in found:
            result.unproven[name] = _count(found[failures])[1]
    return result


def take_probe(name: str, *, seconds: float, reason: str = "") -> Literal["taken", "busy", "open"]:
    """Ask to be the one who tries a config whose rest is over; `seconds` is how long that may take at most.

    "taken": make the call, then say how it ended with `clear`, `cool` or `release`. "busy": another was faster.
    "open": there is nothing to prove any more.
    """
    return with_cache(lambda cache: _take_probe(cache, name, math.ceil(seconds), reason), "open")


def clear(name: str) -> None:
    """Say that the probe ended well: the config is open to all, and its next failure gives the shortest rest.

    A rest that began meanwhile is left to run out.
    """
    with_cache(lambda cache: _end_probe(cache, name, well=True), None)


def release(name: str) -> None:
    """Say that the probe ended without telling anything of the config; the next call is a probe again."""
    with_cache(lambda cache: _end_probe(cache, name, well=False), None)


def warm_up(name: str) -> None:
    """End a rest that is under way, in all workers, and forget the failures before it."""
    # The count first: without a rest it would make the next call a probe.
    keys = [_key("failures", name), _key("cool", name)]
    with_cache(lambda cache: cache.delete_many(keys), None)


def _cool(cache: BaseCache, name: str, asked: float | None, reason: str) -> float:
    key, count_key = _key("cool", name), _key("failures", name)
    with _alone(cache, name):
        found = cache.get_many([key, count_key])
        rest = _parse(found[key]) if key in found else None
        failures, _ = _count(found.get(count_key))
        under_way = rest is not None and not rest.probed
        if under_way:
            # Ten calls that fail together are one failure.
            failures = max(failures - 1, 0)
        seconds = _rest(failures) if asked is None else asked
        if rest is not None and under_way and rest.seconds_left >= seconds:
            return rest.seconds_left
        # The count outlives the rest by the longest one: a failure after that is no longer "in a row". It is written
        # first, so that no one finds the end of a probe without either.
        cache.set(count_key, {"count": failures + 1, "reason": reason}, seconds + conf.max_cooldown)
        cache.set(key, _value(seconds, reason), seconds)
        return seconds


def _take_probe(cache: BaseCache, name: str, seconds: int, reason: str) -> Literal["taken", "busy", "open"]:
    key = _key("cool", name)
    if not cache.add(key, {**_value(seconds, reason), "probe": True}, seconds):
        return "busy"
    if cache.get(_key("failures", name)) is None:
        # Another probe ended well between the look at the cache and now.
        cache.delete(key)
        return "open"
    return "taken"


def _end_probe(cache: BaseCache, name: str, *, well: bool) -> None:
    key = _key("cool", name)
    with _alone(cache, name):
        if well:
            cache.delete(_key("failures", name))
        if _parse(cache.get(key)).probed:
            cache.delete(key)


@contextmanager
def _alone(cache: BaseCache, name: str) -> Iterator[None]:
    """Hold off other workers that would change the config's rest, so that none overwrites a longer one. It is held
    for milliseconds; who waits in vain goes on, since a rest that is too short is better than none."""
    key, held = _key("lock", name), False
    for _ in range(LOCK_TRIES):
        held = cache.add(key, 1, LOCK_SECONDS)
        if held:
            break
        time.sleep(LOCK_PAUSE)
    try:
        yield
    finally:
        if held:
            cache.delete(key)


def _rest(failures: int) -> float:
    # The exponent is bounded because 2.0 ** 1100 is an OverflowError.
    return _bounded(conf.cooldown * 2.0 ** min(failures, 60))


def _usable(retry_after: float | None) -> float | None:
    if isinstance(retry_after, bool) or not isinstance(retry_after, (int, float)):
        return None
    if math.isnan(retry_after) or retry_after < 0:
        return None
    return _bounded(retry_after)


def _bounded(seconds: float) -> float:
    # Whole seconds, because most caches cut off the rest of a time to live.
    return float(max(1, math.ceil(min(seconds, conf.max_cooldown))))


def _value(seconds: float, reason: str) -> dict[str, Any]:
    return {"until": time.time() + seconds, "reason": reason}


def _parse(value: Any) -> Cooling:
    values = value if isinstance(value, dict) else {}
    until, probed = values.get("until"), values.get("probe") is True
    left = until - time.time() if isinstance(until, (int, float)) else 0.0
    # Clocks of machines differ; a key that is still there has not run out.
    left = max(0.0, min(left, PROBE_ENDS_SOON if probed else conf.max_cooldown))
    return Cooling(left, str(values.get("reason", "")), probed)


def _count(value: Any) -> tuple[int, str]:
    """Failures in a row, and what the last one was."""
    values = value if isinstance(value, dict) else {}
    count = values.get("count")
    return count if isinstance(count, int) else 0, str(values.get("reason", ""))


def _key(kind: str, name: str) -> str:
    # memcached takes neither spaces nor long keys, and a name may have both.
    return f"llm_wrapper:{kind}:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


# -- a cache that does not answer ------------------------------------------------------------------------

_outage_logged = False


def with_cache(use: Callable[[BaseCache], T], otherwise: T) -> T:
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
