"""Configs that rest after a failure, shared through the cache."""

import logging
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError

from llm_wrapper.configs import clear, cool, cooldown, cooling


@pytest.fixture
def clock(monkeypatch):
    """Time that only moves when told to, for the cache as well."""

    class Clock:
        now = 1_800_000_000.0

        def time(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("time.time", clock.time)
    return clock


def test_a_config_rests_for_the_time_it_named(clock):
    """Retry-After is honoured, and the config is free when it is over."""
    assert cool("a", retry_after=12.5, reason="rate_limited") == 12.5
    assert cooling(["a", "b"]) == {"a": cooldown.Cooling(12.5, "rate_limited")}
    clock.now += 12
    assert cooling(["a"])["a"].seconds_left == pytest.approx(0.5)
    clock.now += 1
    assert cooling(["a"]) == {}


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (0, 1),
        (0.2, 1),
        (99_999, 900),
        (float("inf"), 900),
        (-1, 30),
        (float("nan"), 30),
        (None, 30),
        ("12", 30),
        (True, 30),
        ([], 30),
    ],
)
def test_c1_a_strange_retry_after_is_held_in_bounds(retry_after, seconds):
    """Whatever a provider sends, a config rests between a second and the longest rest."""
    assert cool("a", retry_after=retry_after, reason="rate_limited") == seconds


def test_failures_in_a_row_double_the_rest(clock):
    """A config that keeps failing is tried less and less, up to the longest rest."""
    rests = []
    for _ in range(7):
        rests.append(cool("a", reason="provider_timeout"))
        clock.now += rests[-1] + 1
    assert rests == [30, 60, 120, 240, 480, 900, 900]


def test_failures_that_are_not_in_a_row_start_anew(clock):
    """A count that nothing added to for the longest rest is forgotten."""
    cool("a", reason="x")
    clock.now += 30 + 901
    assert cool("a", reason="x") == 30


def test_a_success_starts_the_rests_anew(clock):
    """After a success the next failure gives the shortest rest."""
    cool("a", reason="x")
    clock.now += 31
    clear("a")
    assert cool("a", reason="x") == 30


def test_a_success_does_not_end_a_rest(clock):
    """A call that began before the limit says nothing of the limit."""
    cool("a", retry_after=60, reason="rate_limited")
    clear("a")
    assert "a" in cooling(["a"])


def test_calls_that_fail_together_are_one_failure(clock):
    """Ten workers that meet one limit in the same moment do not rest the config for hours."""
    assert [cool("a", reason="x") for _ in range(10)] == [30] * 10
    clock.now += 31
    assert cool("a", reason="x") == 60


def test_c1_a_rest_is_only_made_longer(clock):
    """A later, shorter wish does not free a config early; a longer one holds it longer."""
    cool("a", retry_after=60, reason="rate_limited")
    clock.now += 10
    assert cool("a", retry_after=5, reason="provider_timeout") == 50
    assert cooling(["a"]) == {"a": cooldown.Cooling(50, "rate_limited")}
    assert cool("a", retry_after=100, reason="provider_timeout") == 100
    assert cooling(["a"]) == {"a": cooldown.Cooling(100, "provider_timeout")}


def test_the_settings_bound_the_rests(settings):
    """LLM_WRAPPER_COOLDOWN and LLM_WRAPPER_MAX_COOLDOWN are read at each use."""
    settings.LLM_WRAPPER_COOLDOWN = 5
    settings.LLM_WRAPPER_MAX_COOLDOWN = 7
    assert cool("a", reason="x") == 5
    assert cool("b", retry_after=100, reason="x") == 7


def test_a_success_costs_no_cache_call_where_nothing_failed(monkeypatch):
    """The common case, a success after a success, does not touch the cache."""

    def refuse(*args, **kwargs):
        raise AssertionError("the cache was used")

    for method in ("get", "set", "add", "delete", "get_many"):
        monkeypatch.setattr(LocMemCache, method, refuse)
    clear("a")


def test_a_success_after_another_workers_failure_clears_its_count(clock):
    """A worker that skipped a resting config knows that there is a count to clear."""
    cool("a", reason="x")
    cooldown._may_have_failed.clear()  # as in another process
    cooling(["a"])
    clock.now += 31
    clear("a")
    assert cool("a", reason="x") == 30


@pytest.mark.parametrize("name", ["with space", "ünï", "x" * 100, "a:b", "a\nb"])
def test_any_name_makes_a_good_cache_key(name):
    """memcached refuses spaces and long keys; Django warns of them, and warnings are errors here."""
    cool(name, reason="x")
    assert list(cooling([name])) == [name]


def test_a_value_of_another_version_still_counts():
    """The key being there is what counts; what it holds only serves people."""
    for value in ("garbage", {"until": "x"}, None, 1):
        caches["default"].set(cooldown._key("cool", "a"), value, 60)
        assert cooling(["a"])["a"].seconds_left == 0
        assert cool("a", retry_after=10, reason="x") == 10
        assert cooling(["a"])["a"].reason == "x"


def test_clocks_that_differ_stay_in_bounds(clock):
    """A deadline from a machine whose clock is a day ahead is shown as the longest rest at most."""
    caches["default"].set(cooldown._key("cool", "a"), {"until": clock.now + 86_400, "reason": "x"}, 60)
    assert cooling(["a"])["a"].seconds_left == 900


def test_nothing_is_asked_for_no_names(monkeypatch):
    """No names, no question."""
    monkeypatch.setattr(LocMemCache, "get_many", None)
    assert cooling([]) == {}


def test_threads_agree(clock):
    """Threads that fail at once leave one rest and one count."""
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: cool("a", reason="x"), range(40))) == {30.0}
    assert caches["default"].get(cooldown._key("failures", "a")) == 1


# -- a cache that does not answer ------------------------------------------------------------------------


class RedisError(Exception):
    """Stands where the client of Redis has its own."""


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), TimeoutError(), OperationalError("no table"), RedisError()]
)
def test_a_cache_that_is_away_breaks_no_turn(monkeypatch, caplog, error):
    """Without the cache nothing counts as cooling, and the log says so once per outage."""
    monkeypatch.setitem(sys.modules, "redis.exceptions", sys.modules[__name__])

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as outage, caplog.at_level(logging.WARNING, "llm_wrapper.configs"):
        for method in ("get", "set", "add", "delete", "get_many"):
            outage.setattr(LocMemCache, method, fail)
        assert cool("a", retry_after=5, reason="x") == 5
        assert cool("a", reason="x") == 30
        assert cooling(["a"]) == {}
        clear("a")
    assert len(caplog.records) == 1
    assert "does not answer" in caplog.text
    assert cool("a", reason="x") == 30
    assert "a" in cooling(["a"])


def test_a_defect_is_not_taken_for_an_outage(monkeypatch):
    """Only errors that mean an outage are caught; a bug shows."""

    def fail(*args, **kwargs):
        raise TypeError

    monkeypatch.setattr(LocMemCache, "get_many", fail)
    with pytest.raises(TypeError):
        cooling(["a"])


def test_an_alias_that_does_not_exist_is_told(settings):
    """A wrong LLM_WRAPPER_CACHE is a mistake of the settings and not an outage."""
    settings.LLM_WRAPPER_CACHE = "nope"
    with pytest.raises(InvalidCacheBackendError):
        cooling(["a"])


# -- two processes ---------------------------------------------------------------------------------------


def test_c1_two_processes_share_what_is_cooling(tmp_path, settings):
    """A limit that one worker met is known to another process at once."""
    where = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    settings.CACHES = {"default": where}
    assert cooling(["a", "b"]) == {}
    code = f"""
        from django.conf import settings
        settings.configure(CACHES={{"default": {where!r}}})
        from llm_wrapper.configs import cool
        cool("a", retry_after=60, reason="rate_limited")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    found = cooling(["a", "b"])
    assert list(found) == ["a"]
    assert found["a"].reason == "rate_limited"
    assert 30 < found["a"].seconds_left <= 60
