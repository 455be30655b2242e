from __future__ import annotations

import re
from collections.abc import Callable

from django.test import Client
from django.urls import reverse

from llm_wrapper import tokens
from llm_wrapper.models import ApiToken

from . import rows

ADD = "admin:llm_wrapper_apitoken_add"
LIST = "admin:llm_wrapper_apitoken_changelist"
FORM = {"name": "laptop", "scopes": ["read"], "expires_at_0": "", "expires_at_1": ""}


def key_on(page: str) -> str:
    found = re.search(r"llmw_[\w-]{43}", page)
    assert found is not None, page
    return found[0]


def test_a_key_is_shown_once(boss: Client) -> None:
    """The page after adding shows the key; it may not be cached, and no later page, message or cookie holds it."""
    owner = rows.make_user("owner")
    response = boss.post(reverse(ADD), {**FORM, "user": owner.pk})
    key = key_on(response.content.decode())
    assert "no-store" in response["Cache-Control"]
    token = tokens.find_token(key)
    assert token is not None
    assert (token.user, token.scopes, token.name) == (owner, ["read"], "laptop")
    pages = [boss.get(reverse(LIST)), boss.get(reverse("admin:llm_wrapper_apitoken_change", args=[token.pk]))]
    for page in pages:
        assert page.status_code == 200
        assert "laptop" in page.content.decode()
        assert key not in page.content.decode()
    assert key not in repr(boss.cookies) + repr(list(ApiToken.objects.values()))


def test_staff_make_tokens_for_themselves_only(staff: Callable[..., Client]) -> None:
    """A token acts as its user, so only a superuser may name another user; the field is not even read."""
    boss_user = rows.make_user("boss", superuser=True)
    client = staff("add_apitoken", "view_apitoken")
    response = client.post(reverse(ADD), {**FORM, "user": boss_user.pk})
    token = tokens.find_token(key_on(response.content.decode()))
    assert token is not None
    assert token.user.username == "add_apitoken-view_apitoken"
    assert staff("view_apitoken").post(reverse(ADD), FORM).status_code == 403


def test_a_token_is_revoked_and_not_changed(boss: Client, staff: Callable[..., Client]) -> None:
    """The list revokes tokens, for those who may change them; nothing else of a token can be changed."""
    token, key = tokens.make_token(rows.make_user("owner"), "laptop")
    change = reverse("admin:llm_wrapper_apitoken_change", args=[token.pk])
    assert boss.post(change, {**FORM, "name": "other"}).status_code == 403
    action = {"action": "revoke_tokens", "_selected_action": [token.pk]}
    staff("view_apitoken").post(reverse(LIST), action)
    assert tokens.find_token(key) is not None
    boss.post(reverse(LIST), action)
    assert tokens.find_token(key) is None
    assert "revoked" in boss.get(change).content.decode()


def test_a_token_that_could_not_work_is_not_made(boss: Client) -> None:
    """A user who is not active, a time that is over, and no scope are told at their fields."""
    gone = rows.make_user("gone")
    type(gone).objects.update(is_active=False)
    type(gone).objects.filter(username="boss").update(is_active=True)
    data = {"name": "x", "user": gone.pk, "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}
    errors = boss.post(reverse(ADD), data).context["adminform"].form.errors
    assert set(errors) == {"user", "scopes", "expires_at"}
    assert not ApiToken.objects.exists()


def test_a_prompt_is_opened_to_the_api_in_its_form(boss: Client) -> None:
    """Who may use a prompt through the API, and which variables they may set, is edited with the prompt; a form without
    these fields leaves them as they are."""
    prompt = rows.make_prompt(configs=("azure-gpt",))
    url = reverse("admin:llm_wrapper_prompttemplate_change", args=[prompt.pk])
    form = boss.get(url).context["adminform"].form
    data = {name: form[name].value() or "" for name in form.fields}
    data |= {"llm_config_names": ["azure-gpt"], "tools": [], "api_access": "staff", "api_context_vars": "plan, name"}
    response = boss.post(url, data)
    assert response.status_code == 302, response.context["adminform"].form.errors
    prompt.refresh_from_db()
    assert (prompt.api_access, prompt.api_context_vars) == ("staff", ["plan", "name"])
    del data["api_access"]
    assert boss.post(url, data).status_code == 302
    prompt.refresh_from_db()
    assert prompt.api_access == "staff"
