"""Callers of the API, each with a way to authenticate."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from llm_wrapper.tokens import make_token


def make_user(name: str, *codenames: str, **fields: Any) -> Any:
    user = get_user_model().objects.create_user(name, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames, content_type__app_label="llm_wrapper"))
    return user


@dataclass
class Caller:
    """One caller: by token where `key` is set, else by the client's session, or nobody."""

    user: Any = None
    key: str = ""
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request; `body` is JSON, or bytes as they are. Header names are with underscores."""
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.generic(method, path, data, content_type="application/json", headers=names)

    def get(self, path: str, **headers: str) -> Any:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("POST", path, body, **headers)

    def start(self, **body: Any) -> str:
        """Start a session and give its address."""
        response = self.post("/sessions/", body)
        assert response.status_code == 200, response.content
        return f"/sessions/{response.json()['session_id']}"

    def send(self, session: str, message: str, **headers: str) -> Any:
        return self.post(f"{session}/messages", {"message": message}, **headers)


def by_token(user: Any, *scopes: str) -> Caller:
    return Caller(user, make_token(user, "test", scopes=scopes or None)[1])


def by_session(user: Any) -> Caller:
    caller = Caller(user)
    caller.client.force_login(user)
    return caller


def tenant_of(request: Any) -> dict[str, Any]:
    """What a project may set as LLM_WRAPPER_API_CONTEXT."""
    return {"user_id": request.auth.user.pk, "tenant": f"tenant of {request.auth.user.username}"}
