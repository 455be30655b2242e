"""Which config a call goes to, and the reasons that are kept."""

import json
import sys
from random import Random

import pytest

from llm_wrapper.configs import choose, clear, cool, release
from llm_wrapper.configs.cooldown import take_probe
from llm_wrapper.errors import AllConfigsUnavailable, LLMConfigsNotAvailable, ToolsNotEnabled

# The package has a function of the same name.
CHOOSE = sys.modules["llm_wrapper.configs.choose"]
DEMO = "llm_config_class: DemoConfig\n"


@pytest.fixture
def abc(write):
    for name in "abc":
        write(f"{name}.yml")
    return ["a", "b", "c"]


def test_the_choice_is_random_by_weight(write):
    """Over many chats a config gets calls in proportion to its weight."""
    write("a.yml", DEMO + "weight: 3\n")
    write("b.yml", DEMO + "weight: 1\n")
    rng = Random(1)
    chosen = [choose(["a", "b"], rng=rng)[0].name for _ in range(400)]
    assert 270 <= chosen.count("a") <= 330


def test_a_seed_repeats_the_choice(abc):
    """A test can fix what is drawn."""
    draws = [[choose(abc, rng=Random(seed))[0].name for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert set(draws[0]) == {"a", "b", "c"}


def test_the_route_says_why(abc):
    """The route names the candidates with their weights and why each other config was passed over."""
    cool("c", retry_after=12, reason="rate_limited")
    choice, route = choose([*abc, "gone"], exclude={"b": "provider_timeout"})
    assert choice.name == "a"
    assert json.loads(json.dumps(route)) == {
        "chosen": "a",
        "why": "only one left",
        "candidates": {"a": 1},
        "skipped": {
            "gone": "not loaded: no file of that name in LLM_CONFIGS_PATH",
            "b": "failed in this turn: provider_timeout",
            "c": "cooling for 12 s after rate_limited",
        },
    }


def test_a_usable_sticky_config_wins(abc):
    """A chat stays with its config, whose provider has its prompt cached, also where others weigh more."""
    for _ in range(10):
        choice, route = choose(abc, sticky="b")
        assert (choice.name, route["why"]) == ("b", "sticky")
    assert route["candidates"] == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("reason", ["cooling", "excluded", "gone", "tools", "taken off the prompt"])
def test_a_sticky_config_that_cannot_be_used_is_left(abc, write, folder, reason):
    """Stickiness never wins over a reason not to use a config, and the reason is kept."""
    exclude, names = frozenset(), abc
    if reason == "cooling":
        cool("b", reason="rate_limited")
    elif reason == "excluded":
        exclude = frozenset({"b"})
    elif reason == "gone":
        (folder / "b.yml").unlink()
    elif reason == "tools":
        write("b.yml", DEMO + "tools_enabled: false\n", age=50)
    else:
        names = ["a", "c"]
    choice, route = choose(names, sticky="b", exclude=exclude, needs_tools=True)
    assert choice.name in {"a", "c"}
    assert route["why"] == "weighted random"
    assert route["skipped"]["b"]


def test_weight_0_is_a_spare(write):
    """A config of weight 0 gets no call while another is left, and every call where none is."""
    write("a.yml", DEMO + "weight: 0\n")
    write("b.yml", DEMO + "weight: 0.001\n")
    write("c.yml", DEMO + "weight: 0\n")
    assert {choose(["a", "b", "c"])[0].name for _ in range(20)} == {"b"}
    rng = Random(1)
    spares = [choose(["a", "b", "c"], exclude={"b"}, rng=rng) for _ in range(20)]
    assert {choice.name for choice, _ in spares} == {"a", "c"}
    assert spares[0][1]["why"] == "last resort: all have weight 0"


def test_no_names_is_an_error_that_says_what_to_do(abc):
    """A prompt without configs is told apart from one whose configs failed."""
    with pytest.raises(LLMConfigsNotAvailable, match=r"^No LLM configs available\. The prompt names none") as caught:
        choose([])
    assert not isinstance(caught.value, AllConfigsUnavailable)


def test_e7_dangling_names_are_an_error_that_says_what_to_do(write):
    """Names without a usable file give the reason of each, not a crash."""
    write("bad.yml", "llm_config_class: Nope\n")
    with pytest.raises(
        LLMConfigsNotAvailable, match=r"^No LLM configs available\. .*bad\.yml.*gone: not loaded"
    ) as caught:
        choose(["bad", "gone"])
    assert not isinstance(caught.value, AllConfigsUnavailable)


def test_tools_need_a_config_that_allows_them(write):
    """A prompt with tools never goes to a config with tools_enabled false."""
    write("a.yml", DEMO + "tools_enabled: false\n")
    write("b.yml")
    assert choose(["a", "b"], needs_tools=True)[0].name == "b"
    assert choose(["a"])[0].name == "a"
    with pytest.raises(ToolsNotEnabled, match="Tools not enabled in LLM config"):
        choose(["a"], needs_tools=True)


def test_c1_all_cooling_says_when_to_come_back(abc):
    """Where every config rests, the error holds the seconds of each and the soonest."""
    cool("a", retry_after=40, reason="rate_limited")
    cool("b", retry_after=20, reason="rate_limited")
    cool("c", retry_after=60, reason="provider_timeout")
    with pytest.raises(AllConfigsUnavailable, match="Try again in 20 s") as caught:
        choose(abc, exclude={"c": "provider_timeout"})
    error = caught.value
    assert error.retryable
    assert error.retry_after == pytest.approx(20, abs=2)
    assert {name: round(left, -1) for name, left in error.cooling.items()} == {"a": 40, "b": 20, "c": 60}
    assert "c: failed in this turn: provider_timeout" in str(error)


def test_all_failed_and_none_cooling(abc):
    """Where every config failed in this turn without a rest, no time to come back is made up."""
    with pytest.raises(AllConfigsUnavailable) as caught:
        choose(abc, exclude=frozenset(abc))
    assert caught.value.retry_after is None
    assert caught.value.cooling == {}


@pytest.fixture
def rested(abc, monkeypatch):
    """Three configs, of which `a` rested and has not been called since."""
    now = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    cool("a", reason="rate_limited")
    now += 31
    return abc


def test_c2_a_config_that_rested_goes_to_one_caller(rested):
    """The first call after a rest is a probe, as its route says, and until it has ended others pass the config over."""
    choice, route = choose(rested, sticky="a", probe=True)
    assert (choice.name, route["why"], route["probe"]) == ("a", "sticky", True)
    choice, route = choose(rested, sticky="a", probe=True)
    assert choice.name in {"b", "c"}
    assert route["skipped"] == {"a": "being probed after rate_limited"}
    assert "probe" not in route
    clear("a")
    choice, route = choose(rested, sticky="a", probe=True)
    assert (choice.name, "probe" in route) == ("a", False)


def test_c2_a_caller_that_was_too_slow_draws_again(rested, monkeypatch):
    """Of two callers that saw the same config at the end of its rest, the second goes elsewhere."""
    monkeypatch.setattr(CHOOSE, "take_probe", lambda *args, **kwargs: "busy")
    choice, route = choose(rested, sticky="a", probe=True)
    assert choice.name in {"b", "c"}
    assert route["candidates"] == {"b": 1, "c": 1}
    assert route["skipped"] == {"a": "being probed after rate_limited"}


def test_c3_a_single_config_that_is_being_probed_says_when_to_come_back(rested, monkeypatch):
    """Where the only config is being probed the others are told at once, with a time, also in the same instant."""
    assert choose(["a"], probe=True)[1]["probe"]
    with pytest.raises(AllConfigsUnavailable, match="a: being probed after rate_limited") as caught:
        choose(["a"], probe=True)
    assert (caught.value.retry_after, caught.value.cooling) == (1, {"a": 1})
    release("a")
    monkeypatch.setattr(CHOOSE, "take_probe", lambda *args, **kwargs: "busy")
    with pytest.raises(AllConfigsUnavailable, match="a: being probed after rate_limited") as caught:
        choose(["a"], probe=True)
    assert (caught.value.retry_after, caught.value.cooling) == (1, {"a": 1})


def test_c3_a_rest_that_ended_within_the_turn_says_when_to_come_back(rested):
    """Where the writing of rows took longer than the rest of the only config, the caller is still told a time."""
    with pytest.raises(AllConfigsUnavailable) as caught:
        choose(["a"], exclude={"a": "rate_limited"}, probe=True)
    assert caught.value.retry_after == 1


def test_who_only_draws_takes_no_probe(rested):
    """A choice that is made ahead of the call, as with a new instance, leaves the probe to the caller."""
    assert choose(rested, sticky="a")[0].name == "a"
    assert take_probe("a", seconds=60) == "taken"


def test_a_probe_lasts_as_long_as_its_call_may(write, rested, monkeypatch, settings):
    """A dead prober holds the config back for the time its call could have taken, from the YAML or the settings."""
    asked = []

    def note(name, *, seconds, reason):
        asked.append(seconds)
        return "taken"

    monkeypatch.setattr(CHOOSE, "take_probe", note)
    settings.LLM_WRAPPER_CALL_TIMEOUT = 17
    choose(["a"], probe=True)
    write("a.yml", DEMO + "timeout: 90\n", age=50)
    choose(["a"], probe=True)
    assert asked == [22, 95]


def test_a_name_given_twice_counts_once(abc):
    """A doubled name does not double its chance."""
    _, route = choose(["a", "a", "b"])
    assert route["candidates"] == {"a": 1, "b": 1}


def test_the_cache_is_asked_once(abc, django_assert_cache_calls):
    """All configs are looked up in one question, since a cache may be a network away."""
    with django_assert_cache_calls(["get_many"]):
        choose(abc, sticky="a", probe=True)


@pytest.fixture
def django_assert_cache_calls(monkeypatch):
    from contextlib import contextmanager

    from django.core.cache.backends.locmem import LocMemCache

    @contextmanager
    def watch(expected):
        calls = []
        for method in ("get_many", "set", "add", "delete", "touch"):
            real = getattr(LocMemCache, method)

            def record(self, *args, _real=real, _method=method, **kwargs):
                calls.append(_method)
                return _real(self, *args, **kwargs)

            monkeypatch.setattr(LocMemCache, method, record)
        yield
        assert calls == expected

    return watch
