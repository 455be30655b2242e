"""Cooling in the cache that the suite runs on: local memory, or a real Redis."""

import time

import pytest

from llm_wrapper import configs, errors


def test_c2_a_rest_runs_out_and_one_worker_probes():
    """A rest ends by itself; then one caller gets the config, as a probe, until that ended well."""
    configs.cool("demo", retry_after=1, reason="rate_limited")
    with pytest.raises(errors.AllConfigsUnavailable) as told:
        configs.choose(["demo"], probe=True)
    assert 0 < told.value.retry_after <= 1
    time.sleep(1.2)
    _, route = configs.choose(["demo"], probe=True)
    assert route["probe"] is True
    with pytest.raises(errors.AllConfigsUnavailable):
        configs.choose(["demo"], probe=True)
    configs.clear("demo")
    _, route = configs.choose(["demo"], probe=True)
    assert "probe" not in route


def test_a_rest_is_only_made_longer():
    """A second, shorter rest does not cut the first one short."""
    configs.cool("demo", retry_after=30, reason="rate_limited")
    configs.cool("demo", retry_after=2, reason="rate_limited")
    assert configs.cooling(["demo"])["demo"].seconds_left > 20
    configs.warm_up("demo")
    assert configs.cooling(["demo"]) == {}
