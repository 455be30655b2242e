"""Who asks, and what they may do: a bearer token, or the session of a user who is logged in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from llm_wrapper import tokens
from llm_wrapper.conf import conf
from llm_wrapper.errors import BodyTooLarge, CSRFFailed, NotAllowed, NotAuthenticated, ScopeMissing, SessionNotFound
from llm_wrapper.models import ApiToken, ChatHistory

from . import throttle


@dataclass(frozen=True)
class Caller:
    """Who makes a request. `token` is None for a user who is logged in."""

    user: Any
    token: ApiToken | None = None

    def may(self, action: str) -> bool:
        """Whether a member of staff may do this (view, change, delete) with the chats of others."""
        return bool(self.user.is_staff and self.user.has_perm(f"llm_wrapper.{action}_chathistory"))


class CallersRequest(HttpRequest):
    """A request whose caller is known: what endpoints get."""

    auth: Caller


@dataclass(frozen=True)
class Need:
    """What an endpoint asks of its caller: a scope of their token, and room in a rate."""

    scope: str
    rate: str

    def admit(self, request: HttpRequest, caller: Caller) -> Caller:
        if caller.token is not None and self.scope not in caller.token.scopes:
            raise ScopeMissing(
                f"This token has no scope {self.scope!r}; it has: {', '.join(caller.token.scopes)}. Use another."
            )
        size = int(request.META.get("CONTENT_LENGTH") or 0)
        # A request that does not tell its length is measured; by now the server has received it.
        if max(size, len(request.body) if size <= conf.api_max_body else 0) > conf.api_max_body:
            raise BodyTooLarge(
                f"The request's body is larger than {conf.api_max_body} bytes (LLM_WRAPPER_API_MAX_BODY)."
            )
        throttle.take(self.rate, caller.user)
        return caller


class BearerToken(AuthBase):
    """`Authorization: Bearer llmw_…`, a key made in the admin or by `manage.py llm_token create`."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, need: Need) -> None:
        self.need = need
        super().__init__()

    def __call__(self, request: HttpRequest) -> Caller | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.find_token(key.strip())
        if token is None:
            raise NotAuthenticated("The token is unknown, expired or revoked, or its user is not active.")
        return self.need.admit(request, Caller(token.user, token))


class SessionCookie(AuthBase):
    """The cookie of a user who is logged in. What changes something needs the CSRF token too (X-CSRFToken)."""

    openapi_type = "apiKey"
    openapi_in = "cookie"
    csrf = True  # the interactive pages then send the CSRF token

    def __init__(self, need: Need) -> None:
        self.need = need
        self.openapi_name = settings.SESSION_COOKIE_NAME
        super().__init__()

    def __call__(self, request: HttpRequest) -> Caller | None:
        user = getattr(request, "user", None)
        if user is None or not user.is_authenticated or not user.is_active:
            return None
        if check_csrf(request) is not None:
            raise CSRFFailed("The CSRF token is missing or wrong. Send the csrftoken cookie's value as X-CSRFToken.")
        return self.need.admit(request, Caller(user))


def needs(scope: str, rate: str) -> list[Callable[[HttpRequest], Caller | None]]:
    """The ways to authenticate for an endpoint."""
    need = Need(scope, rate)
    return [BearerToken(need), SessionCookie(need)]


READ = needs("read", "read")
WRITE = needs("write", "write")
SEND = needs("write", "send")


def find_chat(caller: Caller, session_id: UUID, action: str = "view") -> ChatHistory:
    """The chat of that public id. Raises SessionNotFound unless it is the caller's own, or they are staff who may view
    it; NotAllowed where they may view it but not do this."""
    chats = ChatHistory.objects.select_related("prompt_template").defer("chat_history")
    chat = chats.filter(public_id=session_id).first()
    own = chat is not None and chat.user_id is not None and chat.user_id == caller.user.pk
    if chat is None or not (own or caller.may("view")):
        raise SessionNotFound("Chat session not found")
    if not own and not caller.may(action):
        raise NotAllowed(f"You may read this session, and not {action} it.")
    return chat
