"""Every error that leaves the package, in one tree.

A message says what happened and what to do. `code` is stable and fit for programs, `http_status` is what a
web face answers, `retryable` says whether the same request may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import OperationalError


class LLMWrapperError(Exception):
    code: ClassVar[str] = "llm_wrapper_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


# -- configuration ---------------------------------------------------------------------------------------


class ConfigError(LLMWrapperError, ImproperlyConfigured):
    """A YAML config, or the folder that holds them, cannot be used."""

    code = "config_error"


class MissingExtra(LLMWrapperError, ImproperlyConfigured):
    """An optional dependency is needed and not installed; the message names the extra."""

    code = "missing_extra"


class LLMConfigsNotAvailable(LLMWrapperError):
    """No config can be used for this prompt."""

    code = "no_config"
    http_status = 503


class AllConfigsUnavailable(LLMConfigsNotAvailable):
    """Every config of the prompt is limited, failing or cooling.

    `causes` maps a config's name to the error it gave in this turn; `cooling` maps a config's name to the
    seconds left until it is tried again; `retry_after` is the soonest of those in seconds, or None.
    """

    code = "all_configs_unavailable"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        causes: Mapping[str, LLMWrapperError] | None = None,
        cooling: Mapping[str, float] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.causes = dict(causes or {})
        self.cooling = dict(cooling or {})
        self.retry_after = retry_after


class ToolsNotEnabled(LLMWrapperError, ValueError):
    """The prompt has tools, and every config it may use has `tools_enabled: false`."""

    code = "tools_not_enabled"


# -- prompts ---------------------------------------------------------------------------------------------


class PromptError(LLMWrapperError, ValueError):
    code = "prompt_error"
    http_status = 422


class MissingContextVariables(PromptError):
    """Context variables that the prompt needs were not given; `names` lists all of them."""

    code = "missing_context_variables"
    http_status = 400

    def __init__(self, names: Iterable[str], where: str = "") -> None:
        self.names = sorted(set(names))
        hint = f" for {where}" if where else ""
        super().__init__(
            f"Missing required keys: {', '.join(self.names)}. Pass them{hint} as context_vars or "
            "initializing_context_vars."
        )


class BadContextVariable(PromptError):
    """A context variable cannot be used in a template (only plain data reaches templates)."""

    code = "bad_context_variable"
    http_status = 400


class TemplateInvalid(PromptError):
    """A template does not parse. `field` and `line` (1-based) say where."""

    code = "template_invalid"

    def __init__(self, message: str, *, field: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.line = line


class TemplateFailed(PromptError):
    """A template parsed and then failed while it was rendered. `field` and `line` say where."""

    code = "template_failed"

    def __init__(self, message: str, *, field: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.line = line


class TemplateTooExpensive(TemplateFailed):
    """A template was stopped at a limit of time, steps or size."""

    code = "template_too_expensive"


# -- tools -----------------------------------------------------------------------------------------------


class ToolDefinitionError(LLMWrapperError, ValueError):
    """A tool's code, spec or parameters are not usable. `field` and `line` say where."""

    code = "tool_definition_error"
    http_status = 422

    def __init__(self, message: str, *, field: str = "tool_code", line: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.line = line


# -- chats and turns -------------------------------------------------------------------------------------


class BadMessage(LLMWrapperError, ValueError):
    """The user's message is empty, too long, or not text."""

    code = "bad_message"
    http_status = 400


class TurnInProgress(LLMWrapperError):
    """Another turn is running on this chat."""

    code = "turn_in_progress"
    http_status = 409
    retryable = True


class TurnLost(LLMWrapperError):
    """The turn was taken over (its lease ran out) or ended elsewhere; nothing more may be written by it."""

    code = "turn_lost"
    http_status = 409


class TurnTimeout(LLMWrapperError):
    """The turn as a whole took longer than LLM_WRAPPER_TURN_TIMEOUT."""

    code = "turn_timeout"
    http_status = 504
    retryable = True


class TurnCancelled(LLMWrapperError):
    """The caller stopped the turn before it ended."""

    code = "turn_cancelled"
    http_status = 499

    @classmethod
    def stopped(cls) -> TurnCancelled:
        return cls("The turn was stopped on request before it ended; what had arrived is kept.")


class CannotRegenerate(LLMWrapperError, ValueError):
    """Only the answer to the newest message of a chat can be given anew."""

    code = "cannot_regenerate"
    http_status = 409


class DuplicateSystemMessage(LLMWrapperError, ValueError):
    """The chat has a system message already."""

    code = "duplicate_system_message"
    http_status = 409


class IdempotencyConflict(LLMWrapperError, ValueError):
    """The idempotency key was used before, for another message."""

    code = "idempotency_conflict"
    http_status = 422


class TurnFailedBefore(LLMWrapperError):
    """The request with this idempotency key was made before and failed; the message names the error."""

    code = "turn_failed_before"
    http_status = 409


class ResponseFormatError(LLMWrapperError, ValueError):
    """The model's answer does not validate against `response_format_class`, also after one repair round."""

    code = "response_format_error"
    http_status = 502


class TooManyToolRounds(LLMWrapperError):
    """The model kept asking for tools after it was told to answer."""

    code = "too_many_tool_rounds"
    http_status = 502


class InsideTransaction(LLMWrapperError, RuntimeError):
    """A turn was started inside a transaction of the caller, where its steps could be rolled back."""

    code = "inside_transaction"


class DatabaseUnavailable(LLMWrapperError, OperationalError):
    """The database is locked for too long, full, or cannot be reached. What was committed before is kept."""

    code = "database_unavailable"
    http_status = 503
    retryable = True


class SyncInAsyncContext(LLMWrapperError, RuntimeError):
    """The sync door was used inside a running event loop; the message names the async one."""

    code = "sync_in_async"


class RealCallBlocked(LLMWrapperError, RuntimeError):
    """A test tried to reach a real model; see `llm_wrapper.testing`."""

    code = "real_call_blocked"


class InternalError(LLMWrapperError):
    """A step failed in a way that the package does not know; the traceback is in the log."""

    code = "internal_error"


# -- providers -------------------------------------------------------------------------------------------


class ProviderError(LLMWrapperError):
    """The model's provider did not give an answer that can be used.

    `retry_after` is the wait in seconds that the provider asked for, or None. `fails_over` says whether the
    turn may go to another config: it may where the request itself was not at fault.

    A failed call may be billed: `usage` is the `llm_wrapper.types.Usage` that the provider reported before the call
    failed, or None; `cost` is what it comes to, or None where that cannot be known, and `price_source` says whose price
    that is.
    """

    code = "provider_error"
    http_status = 502
    fails_over: ClassVar[bool] = False
    # Any, because types stand above errors.
    usage: Any = None
    cost: Decimal | None = None
    price_source: str = ""

    def __init__(self, message: str, *, retry_after: float | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.extra = extra


class RateLimited(ProviderError):
    code = "rate_limited"
    http_status = 429
    retryable = True
    fails_over = True


class ProviderTimeout(ProviderError):
    code = "provider_timeout"
    http_status = 504
    retryable = True
    fails_over = True


class ProviderOverloaded(ProviderError):
    code = "provider_overloaded"
    http_status = 503
    retryable = True
    fails_over = True


class ProviderConnectionFailed(ProviderError):
    code = "provider_connection_failed"
    http_status = 502
    retryable = True
    fails_over = True


class ProviderServerError(ProviderError):
    code = "provider_server_error"
    http_status = 502
    retryable = True
    fails_over = True


class StreamCut(ProviderError):
    """The answer broke off before its end."""

    code = "stream_cut"
    retryable = True
    fails_over = True


class InvalidProviderResponse(ProviderError):
    """The provider answered with something that is not an answer (no choices, broken JSON, too large)."""

    code = "invalid_provider_response"
    retryable = True
    fails_over = True


class AuthenticationFailed(ProviderError):
    code = "authentication_failed"
    http_status = 502


class PermissionRefused(ProviderError):
    code = "permission_refused"


class PaymentRequired(ProviderError):
    code = "payment_required"


class ModelNotFound(ProviderError):
    code = "model_not_found"


class BadProviderRequest(ProviderError):
    """The provider refused the request itself (bad parameter, unsupported feature)."""

    code = "bad_provider_request"


class ContextWindowExceeded(BadProviderRequest):
    code = "context_window_exceeded"
    http_status = 413


class ContentRefused(ProviderError):
    """The provider's content policy refused the request or the answer."""

    code = "content_refused"
    http_status = 422


# -- the REST API ----------------------------------------------------------------------------------------


class ApiError(LLMWrapperError):
    """A request to the REST API cannot be met."""

    code = "api_error"
    http_status = 422


class BadRequest(ApiError, ValueError):
    """The request's body, query, path or headers are not what the endpoint takes."""

    code = "bad_request"


class ContextVariableNotAllowed(ApiError, ValueError):
    """A context variable was given that callers may not set for this prompt."""

    code = "context_variable_not_allowed"


class NotAvailable(ApiError, LookupError):
    """A prompt or model was named that does not exist, or that the caller may not use."""

    code = "not_available"


class NotAuthenticated(ApiError):
    code = "not_authenticated"
    http_status = 401


class CSRFFailed(ApiError):
    """A request with a session cookie came without its CSRF token."""

    code = "csrf_failed"
    http_status = 403


class ScopeMissing(ApiError):
    code = "scope_missing"
    http_status = 403


class NotAllowed(ApiError):
    code = "not_allowed"
    http_status = 403


class SessionNotFound(ApiError, LookupError):
    """There is no such session, or it is not the caller's."""

    code = "session_not_found"
    http_status = 404


class MessageNotFound(ApiError, LookupError):
    """The session has no such answer."""

    code = "message_not_found"
    http_status = 404


class MethodNotAllowed(ApiError):
    code = "method_not_allowed"
    http_status = 405


class SessionArchived(ApiError):
    code = "session_archived"
    http_status = 409


class PromptGone(ApiError):
    """The prompt that the session was started on has been deleted."""

    code = "prompt_gone"
    http_status = 409


class BodyTooLarge(ApiError):
    code = "body_too_large"
    http_status = 413


class Throttled(ApiError):
    """The caller has used up their rate; `retry_after` is the wait in seconds."""

    code = "throttled"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
