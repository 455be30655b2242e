"""Tokens and sessions: who is let in."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from llm_wrapper import tokens
from llm_wrapper.models import ApiToken

from .callers import Caller, by_session, by_token, make_user


def test_a_key_is_random_and_only_its_digest_is_stored(owner):
    """A key holds 256 random bits; no column holds it, and two keys share nothing but their beginning."""
    keys = {tokens.make_token(owner.user, "test")[1] for _ in range(20)}
    assert len({key.removeprefix(tokens.BEGINS_WITH) for key in keys}) == 20
    assert all(len(key.removeprefix(tokens.BEGINS_WITH)) == 43 for key in keys)
    stored = repr(list(ApiToken.objects.values()))
    assert not [key for key in keys if key in stored or key[tokens.SHOWN + 3 :] in stored]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer llmw_x", "Bearer \xff\xfe", "Basic abc", "bearer  {key}x", "Token {key}"],
)
def test_what_is_no_valid_key_is_401(owner, header):
    """Any other Authorization header is 401, says how to authenticate, and tells nothing of what was sent."""
    response = Caller().get("/sessions", Authorization=header.format(key=owner.key))
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert owner.key not in response.content.decode()


def test_a_bad_token_is_not_saved_by_a_session(owner, stranger):
    """A token that is sent and refused ends the request, whoever is logged in besides."""
    both = by_session(stranger.user)
    assert both.get("/sessions").status_code == 200
    assert both.get("/sessions", Authorization="Bearer llmw_revoked").status_code == 401


def test_a_revoked_or_expired_token_is_refused(owner):
    """A token works until it is revoked or its time is up, by the database's clock."""
    mine = ApiToken.objects.filter(user=owner.user)
    for expires, status in ((timedelta(seconds=60), 200), (timedelta(seconds=-1), 401)):
        mine.update(expires_at=timezone.now() + expires)
        assert owner.get("/sessions").status_code == status
    mine.update(expires_at=None)
    assert tokens.revoke(mine) == 1
    assert tokens.revoke(mine) == 0
    assert owner.get("/sessions").status_code == 401


def test_the_use_of_a_token_is_noted_once_a_minute(owner, django_assert_num_queries):
    """The first use is written down, the next ones of that minute cost no write."""
    assert ApiToken.objects.get().last_used_at is None
    tokens.find_token(owner.key)
    first = ApiToken.objects.get().last_used_at
    with django_assert_num_queries(1):
        tokens.find_token(owner.key)
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    tokens.find_token(owner.key)
    assert ApiToken.objects.get().last_used_at >= first


def test_a_read_token_changes_nothing(owner):
    """A token without the scope `write` is refused by name of the scope."""
    reader = by_token(owner.user, "read")
    response = reader.post("/sessions/")
    assert (response.status_code, response.json()["code"]) == (403, "scope_missing")
    assert "'write'" in response.json()["detail"]
    assert reader.get("/sessions").status_code == 200
    writer = by_token(owner.user, "write")
    assert writer.get("/sessions").status_code == 403


@pytest.mark.parametrize("scopes", [[], ["admin"], ["read", "root"]])
def test_only_known_scopes_are_given(owner, scopes):
    """A token with an unknown scope, or none, is not made."""
    with pytest.raises(ValueError, match="scopes out of read, write"):
        tokens.make_token(owner.user, "test", scopes=scopes)


def test_h5_a_cookie_needs_the_csrf_token_and_a_key_does_not(owner):
    """With a session cookie a change needs the CSRF token; reading does not, and neither does a key."""
    strict = Caller(client=Client(enforce_csrf_checks=True))
    strict.client.force_login(owner.user)
    refused = strict.post("/sessions/", {})
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    assert strict.get("/sessions").status_code == 200
    strict.client.get("/docs")  # the page sets the cookie
    csrf = strict.client.cookies["csrftoken"].value
    assert strict.post("/sessions/", {}, X_CSRFToken=csrf).status_code == 200
    strict.key = owner.key
    assert strict.post("/sessions/", {}).status_code == 200


# -- manage.py llm_token ---------------------------------------------------------------------------------


def test_the_command_makes_lists_and_revokes(db, capsys):
    """`create` prints the key and nothing else on stdout, `list` shows no key, `revoke` ends it."""
    make_user("ada")
    call_command("llm_token", "create", "--user", "ada", "--scope", "read", "--days", "30", "--name", "laptop")
    printed = capsys.readouterr()
    key = printed.out.strip()
    token = tokens.find_token(key)
    assert token is not None
    assert (token.scopes, token.name, token.user.username) == (["read"], "laptop", "ada")
    assert timedelta(days=29) < token.expires_at - timezone.now() < timedelta(days=31)
    call_command("llm_token", "list", "--user", "ada")
    listed = capsys.readouterr().out
    assert "laptop" in listed
    assert "active" in listed
    assert key not in listed
    call_command("llm_token", "revoke", str(token.pk))
    assert tokens.find_token(key) is None
    call_command("llm_token", "list")
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--user", "nobody"], "no user 'nobody'"),
        (["create", "--user", "gone"], "not active"),
        (["create", "--user", "ada", "--days", "0"], "more than 0"),
        (["create", "--user", "ada", "--days", "nan"], "more than 0"),
        (["revoke", "77"], "no token 77"),
        (["list", "--user", "nobody"], "no user 'nobody'"),
    ],
)
def test_the_command_says_what_is_wrong(db, arguments, said):
    """Bad arguments end in an error that names them, and make no token."""
    make_user("ada")
    make_user("gone", is_active=False)
    with pytest.raises(CommandError, match=said):
        call_command("llm_token", *arguments)
    assert not ApiToken.objects.exists()
