"""Errors as responses: `{"detail", "code", "retryable"}`, a status, and Retry-After where it may help to try again."""

from __future__ import annotations

import logging
import math
from typing import Any

from django.core import signals
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from ninja.errors import AuthenticationError, HttpError, ValidationError

from llm_wrapper import errors

from .schemas import ErrorOut

log = logging.getLogger("django.request")

# Seconds to wait where an error names none.
WAIT = 5

# The package's statuses are those of a caller in Python. Here all input that is wrong is 422, and 429 is for callers
# who ask too often: a provider's limit is none of their doing.
STATUS = {400: 422, 499: 409}

# What these errors say is about the request itself. Others may quote a provider, a prompt or a config, which is for
# those who run the site: they find it in the turn's record.
TOLD: tuple[type[errors.LLMWrapperError], ...] = (
    errors.ApiError,
    errors.BadMessage,
    errors.MissingContextVariables,
    errors.BadContextVariable,
    errors.IdempotencyConflict,
    errors.TurnInProgress,
    errors.TurnCancelled,
    errors.CannotRegenerate,
)
KINDS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LLMWrapperError)
}
NO_RESPONSE = "Failed to generate model response: "
WORDS = {
    "turn_failed_before": "The request with this Idempotency-Key was made before and failed. Send it with a new key "
    "to try again.",
    "turn_lost": "The turn was ended elsewhere. Look at the session for what became of it.",
    "no_config": NO_RESPONSE + "no model is set up for this session.",
    "all_configs_unavailable": NO_RESPONSE + "all models are limited or unavailable at the moment. Try again later.",
    "rate_limited": NO_RESPONSE + "the model is limited at the moment. Try again later.",
    "provider_timeout": NO_RESPONSE + "the model took too long. Try again.",
    "provider_overloaded": NO_RESPONSE + "the model is overloaded. Try again later.",
    "turn_timeout": NO_RESPONSE + "it took too long. Try again, or ask for less at once.",
    "context_window_exceeded": NO_RESPONSE + "the session has become too long for the model. Start a new one.",
    "content_refused": NO_RESPONSE + "the provider's content policy refused the message or its answer.",
}


def status_of(error: errors.LLMWrapperError) -> int:
    """The HTTP status of an error in this API."""
    if isinstance(error, errors.RateLimited):
        return 503
    return STATUS.get(error.http_status, error.http_status)


def words_of(error: errors.LLMWrapperError, method: str = "POST") -> str:
    """What callers are told of an error."""
    return words_for(error.code, str(error), method)


def words_for(code: str, message: str, method: str = "POST") -> str:
    """The same for an error of which only its code and message are known, as in an event."""
    kind = KINDS.get(code, errors.LLMWrapperError)
    if issubclass(kind, TOLD):
        return message
    if kind is errors.DatabaseUnavailable:
        return f"Database error while {'fetching chat session' if method == 'GET' else 'saving message'}. Try again."
    fallback = "the provider gave no usable answer." if issubclass(kind, errors.ProviderError) else "see the log."
    return WORDS.get(code, NO_RESPONSE + fallback)


def wait_of(error: errors.LLMWrapperError) -> int | None:
    """Whole seconds after which to try again, or None where that is of no use."""
    if not error.retryable:
        return None
    seconds = getattr(error, "retry_after", None)
    return WAIT if seconds is None else max(1, math.ceil(seconds))


def response_to(request: HttpRequest, error: errors.LLMWrapperError, detail: Any = None) -> HttpResponse:
    """The response that tells an error."""
    status = status_of(error)
    out = ErrorOut(detail=detail or words_of(error, request.method or ""), code=error.code, retryable=error.retryable)
    response = JsonResponse(out.model_dump(), status=status)
    wait = wait_of(error)
    if wait is not None:
        response["Retry-After"] = str(wait)
    if status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="llm_wrapper"'
    if status >= 500:
        log.warning("%s %s: %s: %s", request.method, request.path, error.code, error)
    return response


# -- what is not an error of the package ------------------------------------------------------------------


def unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    told = errors.NotAuthenticated("Log in, or send a token: Authorization: Bearer llmw_…")
    return response_to(request, told)


def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Input that does not fit its schema, problem by problem; what was sent is not repeated."""
    problems = [{"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"]} for item in error.errors]
    return response_to(request, errors.BadRequest("invalid"), detail=problems)


def unreadable(request: HttpRequest, error: Exception) -> HttpResponse:
    """The framework's own refusals: it raises them for a body that is not JSON, or that cannot be read."""
    if isinstance(error, RequestDataTooBig):
        return response_to(request, errors.BodyTooLarge("The request's body is too large."))
    return response_to(request, errors.BadRequest("The request's body is not valid JSON in UTF-8."))


def database(request: HttpRequest, error: OperationalError | InterfaceError) -> HttpResponse:
    log.error("%s %s: the database failed", request.method, request.path, exc_info=error)
    return response_to(request, errors.DatabaseUnavailable(str(error)))


def unknown(request: HttpRequest, error: Exception) -> HttpResponse:
    """A bug: told to those who run the site as Django tells it, and to the caller without what it was."""
    signals.got_request_exception.send(sender=None, request=request)
    log.error("%s %s: %s", request.method, request.path, type(error).__name__, exc_info=error)
    problem = ErrorOut(
        detail="Something failed here that should not. It has been logged.", code="internal_error", retryable=False
    )
    return JsonResponse(problem.model_dump(), status=500)


HANDLERS: dict[type[Exception], Any] = {
    errors.LLMWrapperError: response_to,
    AuthenticationError: unauthenticated,
    ValidationError: invalid,
    HttpError: unreadable,
    RequestDataTooBig: unreadable,
    UnreadablePostError: unreadable,
    OperationalError: database,
    InterfaceError: database,
    Exception: unknown,
}
