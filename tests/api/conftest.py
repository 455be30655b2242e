from __future__ import annotations

import pytest

from .callers import Caller, by_token, make_user


@pytest.fixture
def owner(db) -> Caller:
    """A user with a token that may do everything."""
    return by_token(make_user("owner"))


@pytest.fixture
def stranger(db) -> Caller:
    return by_token(make_user("stranger"))


@pytest.fixture(autouse=True)
def no_rates(settings):
    """Tests make as many requests as they like, but where they say otherwise."""
    settings.LLM_WRAPPER_API_RATES = {}
