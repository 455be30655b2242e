"""The API in a project: its schema and pages, health, usage, transactions, and what is told of a bug."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.staticfiles import finders
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, connection, connections

from llm_wrapper import configs, errors
from llm_wrapper.api import failures
from llm_wrapper.models import LLMCall, Turn
from llm_wrapper.testing import scripted_model

from .callers import Caller, by_token, make_user
from .servers import ROOT, environment


@pytest.fixture
def schema(client) -> dict:
    return client.get("/openapi.json").json()


# -- schema and pages ------------------------------------------------------------------------------------


def test_every_endpoint_documents_its_errors_and_what_it_takes(schema):
    """Each operation has a name of its own, a summary, its ways to authenticate and the statuses of all endpoints."""
    assert schema["openapi"].startswith("3.1")
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == 18
    for operation in operations:
        assert operation["summary"]
        if operation["tags"] == ["health"]:
            continue
        assert [next(iter(way)) for way in operation["security"]] == ["BearerToken", "SessionCookie"]
        assert {"401", "403", "413", "422", "429", "500", "503"} <= operation["responses"].keys()
        assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_streams_are_typed_in_the_schema(schema):
    """A stream is documented as server-sent events whose data is one of the package's events."""
    streams = [path["post"] for name, path in schema["paths"].items() if name.endswith("/stream")]
    assert len(streams) == 2
    for operation in streams:
        assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
        event = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["properties"]["data"][
            "contentSchema"
        ]
        assert "text_delta" in event["discriminator"]["mapping"]
        assert "x-event-stream" not in operation


def test_the_pages_load_from_this_server_only(client):
    """The interactive pages name no other host, and the files that they name are there."""
    page = client.get("/docs").content.decode()
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page) == []
    named = re.findall(r"""(?:src|href)=["']/static/([^"']+)""", page)
    assert len(named) >= 3
    assert [name for name in named if finders.find(name) is None] == []
    assert '"validatorUrl": null' in page


def test_without_ninja_installed_the_page_says_what_to_do(client, settings):
    """Where the static files are not there, the page says how to get them, and loads none from elsewhere."""
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "ninja"]
    response = client.get("/docs")
    assert response.status_code == 501
    assert "INSTALLED_APPS" in response.content.decode()
    assert "//cdn" not in response.content.decode()


def test_a_method_that_an_address_has_not_is_405_in_json(owner):
    """The methods that it has are named, as for every error in JSON."""
    response = owner("DELETE", "/sessions")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert {method.strip() for method in response.headers["Allow"].split(",")} == {"GET", "POST"}


# -- health ----------------------------------------------------------------------------------------------


def test_health_and_readiness(client, db):
    """Up is up; ready is when database, cache and a model answer. Nobody logs in for it."""
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready", "database": True, "cache": True, "models": True}


def test_not_ready_says_which_part_and_nothing_else(client, db, monkeypatch, settings, tmp_path):
    """Each part that is away makes it 503, and no more than its name is told."""

    def away(*args, **kwargs):
        raise DatabaseError("password=secret")

    def told():
        response = client.get("/ready")
        assert response.status_code == 503
        assert "secret" not in response.content.decode()
        return [name for name, good in response.json().items() if good is False]

    for name in configs.get_configs().names():
        configs.cool(name, retry_after=60, reason="rate_limited")
    assert told() == ["models"]
    settings.LLM_CONFIGS_PATH = tmp_path
    assert told() == ["models"]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with monkeypatch.context() as patch:
        patch.setattr(connections["default"], "cursor", away)
        assert told() == ["database", "models"]
        patch.setattr(LocMemCache, "set", away)
        assert told() == ["database", "cache", "models"]
    assert client.get("/health").status_code == 200


# -- usage -----------------------------------------------------------------------------------------------


def test_usage_adds_up_by_day_and_by_config(owner, stranger):
    """Sums are exact and by UTC day; what others spent is not in them; unknown costs are counted and not added."""
    session = owner.start()
    with scripted_model("ok", "ok", "ok"):
        for _ in range(3):
            owner.send(session, "hi")
    with scripted_model("ok"):
        stranger.send(stranger.start(), "hi")
    calls = list(LLMCall.objects.filter(user=owner.user).order_by("pk"))
    days = [datetime(2026, 3, 1, 0, 0, tzinfo=UTC), datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)]
    days.append(days[1] + timedelta(microseconds=1))
    for call, day, cost in zip(calls, days, (Decimal("0.1"), Decimal("0.2"), None), strict=True):
        LLMCall.objects.filter(pk=call.pk).update(started_at=day, cost=cost)
    found = owner.get("/usage?since=2026-03-01&until=2026-03-02").json()
    assert (found["calls"], found["cost_exact"], found["unpriced_calls"]) == (3, "0.3", 1)
    assert [(day["day"], day["calls"], day["cost_exact"]) for day in found["by_day"]] == [
        ("2026-03-01", 2, "0.3"),
        ("2026-03-02", 1, "0"),
    ]
    assert owner.get("/usage?since=2026-03-02&until=2026-03-02").json()["calls"] == 1
    of_session = owner.get(f"{session}/usage").json()
    assert sum(config["calls"] for config in of_session["by_config"]) == of_session["calls"] == 3


@pytest.mark.parametrize(
    "query",
    [
        "since=2026-03-02&until=2026-03-01",
        "since=0001-01-01",
        "until=9999-12-31",
        "since=x",
        "since=2025-01-01&until=2026-02-01",
    ],
)
def test_a_period_that_cannot_be_is_422(owner, query):
    """Periods that end before they begin, are too long, or no dates."""
    assert owner.get(f"/usage?{query}").status_code == 422


def test_without_django_ninja_the_import_says_what_to_install():
    """A project that mounts the API without the extra is told which one to install."""
    script = (
        "import sys, django; sys.modules['ninja'] = None; django.setup()\n"
        "from llm_wrapper.errors import MissingExtra\n"
        "try:\n    import llm_wrapper.api.urls\nexcept MissingExtra as error:\n    print(error)\n"
    )
    settings = {"DJANGO_SETTINGS_MODULE": "tests.api.plain_settings"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'llm_wrapper[api]'" in done.stdout, done.stderr


# -- in a project ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_atomic_requests_do_not_break_a_turn(settings):
    """With ATOMIC_REQUESTS the views stay out of the transaction, by both kinds of server."""
    owner = by_token(make_user("owner"))
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        session = owner.start()
        with scripted_model("one", "two"):
            assert owner.send(session, "hi").status_code == 200
            response = owner.post(f"{session}/messages/stream", {"message": "hi"})
            assert b"turn_finished" in b"".join(response.streaming_content)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert Turn.objects.filter(status="done").count() == 2


def test_a_bug_is_logged_and_told_without_its_words(owner, monkeypatch, caplog):
    """An exception that nobody expected is a 500 in JSON without its text, and is in the log with its traceback."""

    def broken(*args, **kwargs):
        raise ZeroDivisionError("the password is secret")

    session = owner.start()
    monkeypatch.setattr("llm_wrapper.api.shown.messages", broken)
    response = owner.get(session)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.content.decode()
    assert "the password is secret" in caplog.text
    owner.client.raise_request_exception = True
    with pytest.raises(ZeroDivisionError):  # what error reporters listen to is sent, as by Django's own views
        owner.get(session)


def test_every_error_has_words_for_callers_and_a_documented_status(schema):
    """Whatever the package raises in a turn has a status that the sends document, and words without a secret."""
    documented = schema["paths"]["/sessions/{session_id}/messages"]["post"]["responses"].keys()
    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, errors.LLMWrapperError)):
            continue
        words = failures.words_for(kind.code, "secret")
        assert words == "secret" if issubclass(kind, failures.TOLD) else "secret" not in words
        error = kind.__new__(kind)
        if kind is not errors.MethodNotAllowed:
            assert str(failures.status_of(error)) in documented, kind


def test_a_length_that_is_not_told_is_measured(owner, settings):
    """A body without a Content-Length has the same bound."""
    settings.LLM_WRAPPER_API_MAX_BODY = 100
    assert owner.post("/sessions/", {"title": "x" * 90}).status_code == 413
    assert owner.post("/sessions/", {"title": "x"}).status_code == 200
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert owner.post("/sessions/", {"title": "x"}).status_code == 413


def test_anonymous_requests_are_refused_before_their_body_is_read(db, settings):
    """Who is not known gets 401, whatever they send."""
    settings.LLM_WRAPPER_API_MAX_BODY = 10
    assert Caller().post("/sessions/", b"x" * 1000).status_code == 401
