"""Configs that rest after a failure, shared through the cache."""

import logging
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError

from llm_wrapper.configs import clear, cool, cooldown, cooling, release, warm_up
from llm_wrapper.configs.cooldown import Standing, standing, take_probe


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
    """Retry-After is honoured, in whole seconds as caches know no others, and the config is free after it."""
    assert cool("a", retry_after=12.5, reason="rate_limited") == 13
    assert cooling(["a", "b"]) == {"a": cooldown.Cooling(13, "rate_limited")}
    clock.now += 12.5
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


def test_a_rest_that_began_during_a_probe_is_kept(clock):
    """A probe that ends well does not free a config that another call found limited meanwhile."""
    cool("a", reason="x")
    clock.now += 31
    assert take_probe("a", seconds=60) == "taken"
    cool("a", retry_after=60, reason="rate_limited")
    clear("a")
    assert cooling(["a"]) == {"a": cooldown.Cooling(60, "rate_limited")}
    release("a")
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


# -- probes ----------------------------------------------------------------------------------------------


@pytest.fixture
def rested(clock):
    """A config whose rest is over and which nobody has called since."""
    cool("a", reason="rate_limited")
    clock.now += 31
    return clock


def test_c2_one_worker_at_a_time_probes_a_config_after_its_rest(rested):
    """When a rest is over one call may go out, and the others go on passing the config over."""
    assert standing(["a", "b"]) == Standing(unproven={"a": "rate_limited"})
    assert take_probe("a", seconds=60, reason="rate_limited") == "taken"
    assert take_probe("a", seconds=60) == "busy"
    assert standing(["a", "b"]) == Standing(cooling={"a": cooldown.Cooling(1, "rate_limited", probed=True)})


def test_a_probe_that_ends_well_opens_the_config(rested):
    """After a good probe every call may go out, and the next failure gives the shortest rest."""
    take_probe("a", seconds=60)
    clear("a")
    assert standing(["a"]) == Standing()
    assert cool("a", reason="x") == 30


def test_c2_a_probe_that_ends_badly_is_a_longer_rest(rested):
    """After a bad probe the config rests again, twice as long, and is then probed again."""
    take_probe("a", seconds=60)
    assert cool("a", reason="rate_limited") == 60
    assert cooling(["a"]) == {"a": cooldown.Cooling(60, "rate_limited")}
    rested.now += 61
    assert standing(["a"]).unproven == {"a": "rate_limited"}


def test_a_probe_without_an_outcome_is_given_to_the_next(rested):
    """A probe that was cancelled tells nothing of the config: it neither opens it nor lets it rest."""
    take_probe("a", seconds=60)
    release("a")
    assert standing(["a"]).unproven == {"a": "rate_limited"}
    assert take_probe("a", seconds=60) == "taken"


def test_a_probe_of_a_dead_worker_runs_out(rested):
    """A worker that dies in its probe holds the config back for no longer than its call could have taken."""
    take_probe("a", seconds=64.2)
    rested.now += 64.5
    assert take_probe("a", seconds=60) == "busy"
    rested.now += 1
    assert take_probe("a", seconds=60) == "taken"


def test_a_probe_is_not_needed_where_another_ended_well_just_now(rested):
    """A worker that looked before the other's probe had ended does not keep the open config from all others."""
    seen = standing(["a"])
    take_probe("a", seconds=60)
    clear("a")
    assert seen.unproven
    assert take_probe("a", seconds=60) == "open"
    assert standing(["a"]) == Standing()


def test_a_failure_of_an_old_call_during_a_probe_is_a_rest(rested):
    """A call that began before the rest and fails during the probe ends the probe's hold with a rest."""
    take_probe("a", seconds=600)
    assert cool("a", retry_after=7, reason="rate_limited") == 7
    rested.now += 8
    assert standing(["a"]).unproven


def test_a_config_may_be_warmed_up_by_hand(rested):
    """After `warm_up` nothing is left of rests, probes and failures."""
    take_probe("a", seconds=60)
    warm_up("a")
    assert standing(["a"]) == Standing()
    assert cool("a", reason="x") == 30


def test_c2_many_threads_get_one_probe(rested):
    """However many workers ask at once, one of them gets the probe."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: take_probe("a", seconds=60), range(64)))
    assert sorted(set(answers)) == ["busy", "taken"]
    assert answers.count("taken") == 1


def test_c1_rests_that_are_set_at_once_leave_the_longest(monkeypatch):
    """Of workers that are told different waits in the same instant, none makes another's rest shorter."""
    real = LocMemCache.get_many

    def slow(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        time.sleep(0.005)  # as if the cache were a network away
        return found

    monkeypatch.setattr(LocMemCache, "get_many", slow)
    waits = [60, 5, 7, 30, 9, 50, 11, 20]
    for _ in range(3):
        warm_up("a")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda wait: cool("a", retry_after=wait, reason="x"), waits))
        assert cooling(["a"])["a"].seconds_left > 55


def test_a_lock_of_a_dead_worker_holds_up_nobody_for_long():
    """A worker that died while it changed a rest does not keep others from letting the config rest."""
    caches["default"].set(cooldown._key("lock", "a"), 1, 60)
    assert cool("a", retry_after=60, reason="x") == 60
    assert "a" in cooling(["a"])
    assert caches["default"].get(cooldown._key("lock", "a")) == 1


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
        caches["default"].set(cooldown._key("failures", "a"), value, 60)
        caches["default"].delete(cooldown._key("cool", "a"))
        assert "a" in standing(["a"]).unproven
        assert cool("a", reason="x") == 30


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
    assert caches["default"].get(cooldown._key("failures", "a")) == {"count": 1, "reason": "x"}


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
        assert take_probe("a", seconds=60) == "open"
        clear("a")
        release("a")
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
