"""Rates: exact, per user, and shared by all processes."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from llm_wrapper.api import throttle
from llm_wrapper.errors import ConfigError, Throttled
from llm_wrapper.models import ChatHistory, Throttle

from .callers import by_token, make_user
from .servers import wsgi_processes

PROCESSES, REQUESTS, ALLOWED = 4, 200, 10


@pytest.mark.django_db(transaction=True)
def test_h7_of_200_requests_at_once_in_4_processes_exactly_10_pass():
    """A rate of 10 a minute lets exactly 10 through, however many processes are asked at the same time; the others are
    429 with the seconds to wait, and make nothing."""
    caller = by_token(make_user("owner"))

    def ask(address):
        server = urlsplit(address)
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=120)
        connection.request("POST", "/sessions/", headers={"Authorization": f"Bearer {caller.key}"})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, response.headers["Retry-After"]

    rates = json.dumps({"write": f"{ALLOWED}/m"})
    with wsgi_processes(PROCESSES, API_RATES=rates) as addresses, ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(ask, [addresses[number % PROCESSES] for number in range(REQUESTS)]))
    statuses = [status for status, _ in answers]
    assert {status: statuses.count(status) for status in set(statuses)} == {200: ALLOWED, 429: REQUESTS - ALLOWED}
    assert all(0 < int(wait) <= 60 for status, wait in answers if status == 429)
    assert ChatHistory.objects.count() == ALLOWED


def test_the_window_slides(db, settings, monkeypatch):
    """Room comes back one request at a time, each a period after it was used, and the wait says exactly when."""
    settings.LLM_WRAPPER_API_RATES = {"send": "3/m"}
    user, now = make_user("owner"), [1000.0]
    real = throttle._locked
    monkeypatch.setattr(throttle, "_locked", lambda key: (real(key)[0], now[0]))
    for moment in (1000.0, 1010.0, 1020.0):
        now[0] = moment
        throttle.take("send", user)
    for moment, wait in ((1020.0, 40), (1059.5, 0.5)):
        now[0] = moment
        with pytest.raises(Throttled) as refused:
            throttle.take("send", user)
        assert refused.value.retry_after == pytest.approx(wait)
    now[0] = 1060.5
    throttle.take("send", user)
    with pytest.raises(Throttled) as refused:
        throttle.take("send", user)
    assert refused.value.retry_after == pytest.approx(9.5)


def test_a_refused_request_does_not_prolong_the_wait(db, settings):
    """Who goes on asking is not shut out for longer."""
    settings.LLM_WRAPPER_API_RATES = {"read": "2/h"}
    user = make_user("owner")
    for _ in range(2):
        throttle.take("read", user)
    kept = Throttle.objects.get().hits
    for _ in range(5):
        with pytest.raises(Throttled):
            throttle.take("read", user)
    assert Throttle.objects.get().hits == kept


def test_a_database_clock_that_was_put_back_does_not_lock_out(db, settings):
    """Requests that seem to be from the future count only while they may be within the period."""
    settings.LLM_WRAPPER_API_RATES = {"read": "1/s"}
    user = make_user("owner")
    Throttle.objects.create(key=f"read:user:{user.pk}", hits=[9e9])
    throttle.take("read", user)


def test_users_and_kinds_have_rates_of_their_own(owner, stranger, settings):
    """One user's requests do not count for another, nor reading for writing; both tokens of a user count as one."""
    settings.LLM_WRAPPER_API_RATES = {"write": "1/m", "read": "1/m", "send": None}
    second = by_token(owner.user)
    assert [caller.post("/sessions/").status_code for caller in (owner, stranger, second)] == [200, 200, 429]
    assert [caller.get("/sessions").status_code for caller in (owner, stranger, second)] == [200, 200, 429]
    told = owner.get("/sessions")
    assert told.json()["code"] == "throttled"
    assert told.json()["retryable"] is True
    assert 0 < int(told.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("rates", [{"send": "10"}, {"send": "0/m"}, {"send": "1.5/m"}, {"send": 10}, {"post": "1/m"}])
def test_a_rate_that_cannot_be_read_is_told(settings, rates):
    """A wrong rate is an error that names the setting, the value and the form."""
    settings.LLM_WRAPPER_API_RATES = rates
    with pytest.raises(ConfigError, match=r"LLM_WRAPPER_API_RATES\["):
        throttle.rates()
