"""litellm's exceptions become the package's own, by one table."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from llm_wrapper import errors
from llm_wrapper.types import ModelRequest

# By class name, so that the table can be read without importing litellm.
ERROR_OF: dict[str, type[errors.ProviderError]] = {
    "RateLimitError": errors.RateLimited,
    "Timeout": errors.ProviderTimeout,
    "ServiceUnavailableError": errors.ProviderOverloaded,
    "APIConnectionError": errors.ProviderConnectionFailed,
    "BadGatewayError": errors.ProviderServerError,
    "InternalServerError": errors.ProviderServerError,
    "APIError": errors.ProviderServerError,
    "OpenAIError": errors.ProviderServerError,
    "MidStreamFallbackError": errors.StreamCut,
    "APIResponseValidationError": errors.InvalidProviderResponse,
    "JSONSchemaValidationError": errors.InvalidProviderResponse,
    "AuthenticationError": errors.AuthenticationFailed,
    "PermissionDeniedError": errors.PermissionRefused,
    "PaymentRequiredError": errors.PaymentRequired,
    "BudgetExceededError": errors.PaymentRequired,
    "NotFoundError": errors.ModelNotFound,
    "LiteLLMUnknownProvider": errors.ModelNotFound,
    "ModelNotMappedError": errors.ModelNotFound,
    "ContextWindowExceededError": errors.ContextWindowExceeded,
    "ContentPolicyViolationError": errors.ContentRefused,
    "BlockedPiiEntityError": errors.ContentRefused,
    "GuardrailRaisedException": errors.ContentRefused,
    "ModifyResponseException": errors.ContentRefused,
    "SensitiveDataRouteException": errors.ContentRefused,
    "RejectedRequestError": errors.ContentRefused,
    "BadRequestError": errors.BadProviderRequest,
    "InvalidRequestError": errors.BadProviderRequest,
    "UnprocessableEntityError": errors.BadProviderRequest,
    "UnsupportedParamsError": errors.BadProviderRequest,
    "ImageFetchError": errors.BadProviderRequest,
    "VectorStoreSearchError": errors.BadProviderRequest,
    "MockException": errors.ProviderServerError,
}

# litellm reports a refused connection as an error on the provider's side, its own trouble with an answer as a failed
# connection, and gives many statuses no class, with some providers more than with others. Then the status decides.
VAGUE = (errors.ProviderServerError, errors.ProviderConnectionFailed, errors.ProviderError)
ERROR_OF_STATUS: dict[int | None, type[errors.ProviderError]] = {
    400: errors.BadProviderRequest,
    401: errors.AuthenticationFailed,
    402: errors.PaymentRequired,
    403: errors.PermissionRefused,
    404: errors.ModelNotFound,
    408: errors.ProviderTimeout,
    413: errors.ContextWindowExceeded,
    422: errors.BadProviderRequest,
    429: errors.RateLimited,
    502: errors.ProviderServerError,
    503: errors.ProviderOverloaded,
    504: errors.ProviderTimeout,
    529: errors.ProviderOverloaded,
}

# The errors of the HTTP libraries for an answer with a status of 400 and more.
HTTP_FAILURES = {"HTTPStatusError", "APIStatusError"}
# What breaks inside litellm when an answer is not made as it expects, and what it says of some without a cause.
DATA_ERRORS = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
LITELLM_COULD_NOT_READ = (
    "Empty or invalid response from LLM endpoint",
    "Unexpected string response from Azure",
    "LiteLLM: provider returned",
    "Unable to get json response",
    "Error converting to valid response block",
    "Got unexpected response from Ollama",
)

SENTENCE: dict[type[errors.ProviderError], str] = {
    errors.RateLimited: "is rate limited",
    errors.ProviderTimeout: "did not answer in time",
    errors.ProviderOverloaded: "is overloaded",
    errors.ProviderConnectionFailed: "could not be reached",
    errors.ProviderServerError: "failed on its side",
    errors.StreamCut: "broke off its answer",
    errors.InvalidProviderResponse: "gave no answer that can be used",
    errors.AuthenticationFailed: "refused the key; check api_key in the config's YAML file",
    errors.PermissionRefused: "refuses this key the model",
    errors.PaymentRequired: "wants payment; check the account's balance",
    errors.ModelNotFound: "does not know the model; check its name in the config's YAML file",
    errors.BadProviderRequest: "refused the request",
    errors.ContextWindowExceeded: "says that the conversation is longer than the model's window; set history_window",
    errors.ContentRefused: "refused the content",
    errors.ProviderError: "failed",
}
# What litellm says before it sends anything, of a model that it cannot place and of one without a key.
UNKNOWN_MODEL = "LLM Provider NOT provided"
NO_KEY = re.compile(r"Missing (credentials|\w+ API key)", re.IGNORECASE)
# What a provider says of a refused key may quote the key.
SILENT = (errors.AuthenticationFailed, errors.PermissionRefused)
# What litellm writes before the provider's words: "litellm.RateLimitError: RateLimitError: OpenAIException - ".
_PREFIX = re.compile(r"^(litellm\.\w+: )*((\w+( Error)?: )?\w+(Exception|Error)( \w+)? - )?")


def provider_error(
    request: ModelRequest, kind: type[errors.ProviderError], detail: str = "", retry_after: float | None = None
) -> errors.ProviderError:
    """An error that names the config and says what to do, with further words without any secret."""
    text = f"{_named(request)} {SENTENCE[kind]}."
    if detail and kind not in SILENT:
        text += f" {scrubbed(detail, request.config.credentials.values())[:500]}"
    return kind(text, retry_after=retry_after)


def _named(request: ModelRequest) -> str:
    config = request.config
    # A litellm id that was asked for as it is has no config of another name.
    return f"Model {config.model!r}" if config.name == config.model else f"Config {config.name!r} ({config.model})"


def scrubbed(text: str, secrets: Iterable[Any]) -> str:
    """The text without any of the secret values."""
    for secret in secrets:
        for part in secret.values() if isinstance(secret, dict) else [secret]:
            if isinstance(part, str) and len(part) >= 4:
                text = text.replace(part, "***").replace(quote(part, safe=""), "***")
    return text


def own_error(request: ModelRequest, exc: Exception) -> errors.LLMWrapperError:
    """The package's own error for whatever a call raised, without the frames that it came through: they hold
    the key, and debug pages print frames."""
    if isinstance(exc, errors.LLMWrapperError):
        exc.__traceback__ = exc.__cause__ = exc.__context__ = None
        return exc
    if isinstance(exc, TimeoutError):
        return provider_error(request, errors.ProviderTimeout, f"Its timeout is {request.timeout:g} s.")
    return from_litellm(request, exc)


def from_litellm(request: ModelRequest, exc: Exception) -> errors.ProviderError:
    """The package's own error for what litellm raised. The most specific known class decides."""
    exc = _of_broken_stream(exc)
    kind = _kind(exc)
    if UNKNOWN_MODEL in str(exc):
        return errors.ModelNotFound(
            f"{request.config.model!r} is neither the name of a config nor a litellm model id, which begins with its "
            "provider: openai/gpt-4o."
        )
    if NO_KEY.search(str(exc)) and not any(_is_http_failure(cause) for cause in _chain(exc)):
        return errors.AuthenticationFailed(
            f"{_named(request)} has no key. Set api_key in the config's YAML file, or the variable in the environment "
            "that litellm documents for the provider."
        )
    if _unreadable(exc, kind):
        kind = errors.InvalidProviderResponse
    elif kind in VAGUE:
        kind = ERROR_OF_STATUS.get(_status(exc)) or _without_status(kind, exc)
    return provider_error(request, kind, f"It said: {_words(exc)}", retry_after(_headers(exc)))


def _unreadable(exc: Exception, kind: type[errors.ProviderError]) -> bool:
    """Whether the provider answered well as far as HTTP goes, and litellm could not make an answer of it.

    litellm calls that a failure of the provider with a status of its own making, or even a bad request.
    """
    if kind not in (*VAGUE, errors.BadProviderRequest) or _network_failed(exc):
        return False
    if any(_is_http_failure(cause) for cause in _chain(exc)):
        return False
    if any(words in str(getattr(exc, "message", exc)) for words in LITELLM_COULD_NOT_READ):
        return True
    return kind in VAGUE and any(isinstance(cause, DATA_ERRORS) for cause in _chain(exc))


def _is_http_failure(exc: BaseException) -> bool:
    # litellm's own exceptions derive from those of the OpenAI SDK, whatever they are about.
    own = type(exc).__module__ == "litellm.exceptions"
    return not own and any(cls.__name__ in HTTP_FAILURES for cls in type(exc).__mro__)


def _without_status(kind: type[errors.ProviderError], exc: Exception) -> type[errors.ProviderError]:
    if _network_failed(exc):
        return errors.ProviderConnectionFailed
    return errors.InvalidProviderResponse if kind is errors.ProviderConnectionFailed else kind


def _status(exc: BaseException) -> int | None:
    """The status that the provider answered with: the innermost one, for litellm makes up others on the way."""
    found = None
    for cause in _chain(exc):
        status = getattr(cause, "status_code", None)
        if isinstance(status, int) and status >= 400:
            found = status
    return found


def _chain(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _words(exc: Exception) -> str:
    """The provider's own words, without what litellm writes around them."""
    text = str(getattr(exc, "message", exc)).partition("Traceback (most recent")[0].strip()
    try:
        body = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    except (ValueError, RecursionError):
        return _PREFIX.sub("", text)
    error = body.get("error", body)
    words = error.get("message") if isinstance(error, dict) else error
    return str(words or text)


def _kind(exc: BaseException) -> type[errors.ProviderError]:
    known = (ERROR_OF[cls.__name__] for cls in type(exc).__mro__ if cls.__name__ in ERROR_OF)
    return next(known, errors.ProviderError)


def _of_broken_stream(exc: Exception) -> Exception:
    """What broke a stream, where that says more than that it broke: it had not begun, or it stood still."""
    if type(exc).__name__ != "MidStreamFallbackError":
        return exc
    original = getattr(exc, "original_exception", None)
    if not isinstance(original, Exception):
        return exc
    not_begun = bool(getattr(exc, "is_pre_first_chunk", False))
    return original if not_begun or _kind(original) is errors.ProviderTimeout else exc


def _network_failed(exc: BaseException) -> bool:
    """Whether a failed connection is behind the error."""
    # httpx's and aiohttp's bases; other errors of theirs, and of sockets, are OSErrors.
    bases = {"TransportError", "ClientConnectionError"}
    return any(
        isinstance(cause, OSError) or any(cls.__name__ in bases for cls in type(cause).__mro__) for cause in _chain(exc)
    )


def _headers(exc: Exception) -> dict[str, str]:
    """Response headers of a failed call, lower-cased; litellm keeps them in one of two places."""
    found: dict[str, str] = {}
    response = getattr(exc, "response", None)
    for source in (getattr(response, "headers", None), getattr(exc, "litellm_response_headers", None)):
        if source:
            found.update({str(key).lower(): str(value) for key, value in dict(source).items()})
    return found


def retry_after(headers: dict[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date, RFC 9110 10.2.3).

    0 is "at once". None where the header is absent, in the past or not understood.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        raw = headers.get(name, "").strip()
        if not raw:
            continue
        try:
            seconds = float(raw) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(raw).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None
