"""Who may do what: every address of the API, every method, every kind of caller. An address without a row fails."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from llm_wrapper import history
from llm_wrapper.models import ChatHistory
from llm_wrapper.testing import scripted_model

from .callers import Caller, by_session, by_token, make_user

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLERS = ("anonymous", "stranger", "owner", "reader", "staff", "auditor", "manager")


def who(**statuses: int) -> dict[str, int]:
    return dict(zip(CALLERS, (statuses[name] for name in CALLERS), strict=True))


def everyone(status: int) -> dict[str, int]:
    return dict.fromkeys(CALLERS, status)


# stranger and staff have no permission, reader has the owner's read-only token, auditor may view chats, manager may
# view and change them.
OPEN = everyone(200)
ANY_USER = everyone(200) | {"anonymous": 401}
ANY_WRITER = ANY_USER | {"reader": 403}
READ_OWN = who(anonymous=401, stranger=404, owner=200, reader=200, staff=404, auditor=200, manager=200)
CHANGE_OWN = who(anonymous=401, stranger=404, owner=200, reader=403, staff=404, auditor=403, manager=200)
DELETE_OWN = CHANGE_OWN | {"owner": 204, "manager": 403}


@dataclass(frozen=True)
class Row:
    """What an address answers: the statuses for each method it has, and a body that each takes."""

    statuses: dict[str, dict[str, int]]
    body: dict[str, object] | None = None


ROWS = {
    "": Row({method: everyone(404) for method in METHODS}),
    "docs": Row({"GET": OPEN}),
    "openapi.json": Row({"GET": OPEN}),
    "health": Row({"GET": OPEN}),
    "ready": Row({"GET": OPEN}),
    "models": Row({"GET": ANY_USER}),
    "prompts": Row({"GET": ANY_USER}),
    "usage": Row({"GET": ANY_USER}),
    "sessions/": Row({"GET": ANY_USER, "POST": ANY_WRITER}, {}),
    "sessions/<session_id>": Row({"GET": READ_OWN, "PATCH": CHANGE_OWN, "DELETE": DELETE_OWN}, {"title": "new"}),
    "sessions/<session_id>/messages": Row({"GET": READ_OWN, "POST": CHANGE_OWN}, {"message": "hi"}),
    "sessions/<session_id>/messages/stream": Row({"POST": CHANGE_OWN}, {"message": "hi"}),
    "sessions/<session_id>/messages/<message_id>/rating": Row({"PUT": CHANGE_OWN}, {"thumb": "up"}),
    "sessions/<session_id>/regenerate": Row({"POST": CHANGE_OWN}),
    "sessions/<session_id>/regenerate/stream": Row({"POST": CHANGE_OWN}),
    "sessions/<session_id>/stop": Row({"POST": CHANGE_OWN}),
    "sessions/<session_id>/usage": Row({"GET": READ_OWN}),
}


def routes() -> list[str]:
    """Every route of the API as the project's URLconf has it."""

    def below(resolver: URLResolver, inside: bool) -> list[str]:
        found = []
        for pattern in resolver.url_patterns:
            if isinstance(pattern, URLResolver):
                is_api = inside or getattr(pattern, "namespace", None) == "llm_wrapper_api"
                found += below(pattern, is_api)
            elif inside and isinstance(pattern, URLPattern):
                found.append(str(pattern.pattern))
        return found

    return below(get_resolver(), False)


def row_of(route: str) -> Row | None:
    return ROWS.get(route) or ROWS.get(route.rstrip("/")) or ROWS.get(f"{route}/")


@pytest.fixture
def callers(db) -> dict[str, Caller]:
    owner = make_user("owner")
    return {
        "anonymous": Caller(),
        "stranger": by_session(make_user("stranger")),
        "owner": by_token(owner),
        "reader": by_token(owner, "read"),
        "staff": by_session(make_user("staff", is_staff=True)),
        "auditor": by_token(make_user("auditor", "view_chathistory", is_staff=True)),
        "manager": by_session(make_user("manager", "view_chathistory", "change_chathistory", is_staff=True)),
    }


def answered_chat(owner: Caller) -> tuple[ChatHistory, int]:
    with scripted_model("Hello."):
        sent = owner.send(owner.start(), "hi").json()
    return ChatHistory.objects.get(public_id=sent["session_id"]), sent["reply"]["id"]


def test_every_address_has_a_row():
    """The URLconf and the table name the same addresses, each in both slash forms."""
    found = routes()
    assert [route for route in found if row_of(route) is None] == []
    for route in ROWS:
        assert {route, route.rstrip("/")} & set(found), route
        if route:
            assert {route.rstrip("/"), f"{route.rstrip('/')}/"} <= set(found)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("route", routes())
def test_h1_each_caller_gets_what_the_table_says(route, callers):
    """No caller gets anything that the table does not give them: no method and no address is open by accident."""
    row = row_of(route)
    assert row is not None
    chat, answer = answered_chat(callers["owner"])
    got, expected = {}, {}
    for method in METHODS:
        for name, caller in callers.items():
            if not ChatHistory.objects.filter(pk=chat.pk).exists():
                chat, answer = answered_chat(callers["owner"])
            path = "/" + route.replace("<session_id>", str(chat.public_id)).replace("<message_id>", str(answer))
            if route == "":
                path = "/no-such-page"  # the site has a page of its own at the root
            with scripted_model("Again."):
                response = caller(method, path, row.body if method != "GET" else None)
                if response.streaming:
                    b"".join(response.streaming_content)
            got[method, name] = response.status_code
            expected[method, name] = row.statuses.get(method, everyone(405))[name]
    assert got == expected


def test_a_token_of_a_user_who_is_not_active_is_refused(callers):
    """A user who is deactivated is refused at once, by token and by session."""
    for name in ("owner", "stranger"):
        callers[name].user.is_active = False
        callers[name].user.save()
        assert callers[name].get("/sessions").status_code == 401


@pytest.mark.django_db(transaction=True)
def test_b7_a_session_that_is_gone_while_it_answers_stays_gone(callers, monkeypatch):
    """Deleting a session in the middle of a turn ends that turn; nothing of it comes back."""
    owner = callers["owner"]
    session = owner.start()
    chat = ChatHistory.objects.get()

    real = history.start_call

    def deleted_meanwhile(*args, **kwargs):
        assert owner("DELETE", session).status_code == 204
        return real(*args, **kwargs)

    monkeypatch.setattr(history, "start_call", deleted_meanwhile)
    with scripted_model("Hello."):
        response = owner.send(session, "hi")
    assert response.status_code in (404, 409)
    assert not ChatHistory.objects.filter(pk=chat.pk).exists()
