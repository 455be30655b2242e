"""The API as a whole: its endpoints, its pages, and how it sits in a Django project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.openapi.docs import Swagger
from ninja.operation import Operation

from llm_wrapper import __version__
from llm_wrapper.errors import MethodNotAllowed

from . import catalog, health, messages, sessions, throttle, turns, usage
from .auth import READ
from .failures import HANDLERS, response_to
from .routing import router

__all__ = ["api", "catalog", "health", "messages", "sessions", "turns", "usage"]

ABOUT = """Sessions with language models: start one, send messages, read the answers with their tokens and cost.

Authenticate with `Authorization: Bearer llmw_…` (a key made in the admin or by `manage.py llm_token create`), or as a
user who is logged in, with the CSRF token in `X-CSRFToken`. Errors are `{"detail", "code", "retryable"}`; where it may
help to try again, `Retry-After` says when. Every address works with and without a slash at its end."""

TAGS = {
    "sessions": "Conversations, each its owner's.",
    "turns": "Messages and their answers.",
    "messages": "What was said, and what you think of it.",
    "catalog": "What you may use.",
    "usage": "What was spent.",
    "health": "For load balancers; without a login.",
}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}
}


class LocalPages(Swagger):
    """Swagger UI from this server's own static files; a page is never made of files from elsewhere."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        if not apps.is_installed("ninja"):
            return HttpResponse(
                'Add "ninja" to INSTALLED_APPS to read about the API here. Its schema is at '
                f"{self.get_openapi_url(api, kwargs)}.",
                content_type="text/plain",
                status=501,
            )
        return super().render_page(request, api, **kwargs)


class ChatAPI(NinjaAPI):
    """The API. Each address has both slash forms, no view runs in a transaction, and all errors are JSON."""

    def _get_urls(self) -> list[Any]:
        return list(_both_forms(super()._get_urls()))

    def get_openapi_operation_id(self, operation: Operation) -> str:
        return operation.view_func.__name__

    def get_openapi_schema(self, **kwargs: Any) -> Any:
        schema = super().get_openapi_schema(**kwargs)
        for operations in schema["paths"].values():
            for operation in operations.values():
                responses = operation["responses"]
                if operation.pop("x-event-stream", False):
                    event = responses[200]["content"]["application/json"]["schema"]
                    responses[200]["content"] = {"text/event-stream": {"schema": _server_sent(event)}}
                for status in {429, 503} & responses.keys():
                    responses[status]["headers"] = RETRY_AFTER
        return schema


def _server_sent(event: dict[str, Any]) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes them: its data is text that holds JSON."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": event}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["event", "data"]}


def _both_forms(patterns: list[Any]) -> Iterator[Any]:
    for pattern in patterns:
        route, view = str(pattern.pattern), _guarded(pattern.callback)
        yield path(route, view, name=pattern.name)
        if route:
            yield path(route[:-1] if route.endswith("/") else f"{route}/", view)


def _guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view, out of ATOMIC_REQUESTS (a turn commits each step), with a method that it does not know told in JSON."""
    guarded: Callable[..., Any]
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return _told(request, await view(request, *args, **kwargs))

    else:

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return _told(request, view(request, *args, **kwargs))

    for alias in connections:
        guarded = transaction.non_atomic_requests(using=alias)(guarded)
    return guarded


def _told(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code != 405:
        return response
    allowed = response.headers["Allow"]
    told = response_to(request, MethodNotAllowed(f"{request.method} is not for this address. Allowed: {allowed}."))
    told["Allow"] = allowed
    return told


throttle.rates()  # a rate that cannot be read is told when the project starts, and not to its first caller

api = ChatAPI(
    title="llm_wrapper",
    version=__version__,
    description=ABOUT,
    urls_namespace="llm_wrapper_api",
    auth=READ,
    openapi_extra={"tags": [{"name": name, "description": text} for name, text in TAGS.items()]},
    docs_decorator=require_safe,
    docs=LocalPages(settings={"validatorUrl": None, "persistAuthorization": False}),
)
api.add_router("", router)
for kind, handler in HANDLERS.items():
    api.add_exception_handler(kind, handler)
