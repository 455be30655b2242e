import inspect
import time
from email.utils import formatdate

import pytest

from llm_wrapper import errors
from llm_wrapper.transport import failures
from llm_wrapper.transport.library import litellm

from .conftest import DOORS, KEY, STREAMED
from .provider import chunk, fails, message, sends, streams, tool_call

# Names of the table that litellm.exceptions does not define as exceptions of its own.
ELSEWHERE = set()


def exceptions_of_litellm():
    module = litellm().exceptions
    return {
        name
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == module.__name__
    }


def test_every_exception_of_litellm_is_in_the_table():
    """A new litellm version with a new exception fails here until somebody decides what it means."""
    assert exceptions_of_litellm() - failures.ERROR_OF.keys() == set()


def test_the_table_names_nothing_that_is_gone():
    """The table holds no exception that litellm has dropped."""
    assert failures.ERROR_OF.keys() - exceptions_of_litellm() == ELSEWHERE


def test_every_error_of_the_table_has_a_sentence():
    """Each error that the table can give says in words what happened."""
    kinds = {*failures.ERROR_OF.values(), *failures.ERROR_OF_STATUS.values()}
    assert kinds <= failures.SENTENCE.keys()


STATUSES = {
    400: errors.BadProviderRequest,
    401: errors.AuthenticationFailed,
    402: errors.PaymentRequired,
    403: errors.PermissionRefused,
    404: errors.ModelNotFound,
    408: errors.ProviderTimeout,
    422: errors.BadProviderRequest,
    429: errors.RateLimited,
    500: errors.ProviderServerError,
    502: errors.ProviderServerError,
    503: errors.ProviderOverloaded,
    504: errors.ProviderTimeout,
    529: errors.ProviderOverloaded,
}


MODELS = ["openai/x", "hosted_vllm/x", "azure/x", "anthropic/x", "gemini/x", "groq/x", "ollama_chat/x"]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("model", MODELS)
def test_a_status_means_the_same_with_every_provider(provider, ask, model, status):
    """Whichever provider answers with a status, the error is the same, and quotes the provider's words."""
    provider.answers = [fails(status, "The words of the provider.")]
    with pytest.raises(errors.ProviderError) as caught:
        ask("complete", model)
    assert type(caught.value) is STATUSES[status]
    if not isinstance(caught.value, failures.SILENT):
        assert str(caught.value).endswith("It said: The words of the provider.")


DEEP = '{"a":' * 3_000 + "1" + "}" * 3_000
UNREADABLE = {
    "HTML": sends(b"<html>Please log in.</html>"),
    "nothing": sends(b""),
    "half of it": sends(b'{"id": "x", "choi'),
    "null": sends(b"null"),
    "a list": sends(b"[]"),
    "a string": sends(b'"x"'),
    "a number": sends(b"7"),
    "an empty object": sends(b"{}"),
    "no text": sends(b'{"choices": "\xff\xfe"}'),
    "too deep": sends(DEEP.encode()),
    "choices that are none": sends({**message("x"), "choices": None}),
    "choices of another type": sends({**message("x"), "choices": "abc"}),
    "no message": sends({**message("x"), "choices": [{"index": 0, "message": None, "finish_reason": "stop"}]}),
    "tool calls of another type": sends(message(None, tool_calls=[7])),
    "arguments too deep": sends(message(None, tool_calls=[tool_call("f", DEEP)])),
}


@pytest.mark.parametrize("door", ["complete", "acomplete"])
@pytest.mark.parametrize("body", UNREADABLE)
@pytest.mark.parametrize("model", MODELS)
def test_c6_an_answer_that_cannot_be_read_is_an_invalid_one(provider, ask, model, door, body):
    """A 200 with a body that is no answer is not taken for a server that fails, nor for a request that is bad."""
    provider.answers = [UNREADABLE[body]]
    with pytest.raises(errors.InvalidProviderResponse):
        ask(door, model)


UNREADABLE_STREAMS = {
    "HTML": sends(b"<html>Please log in.</html>"),
    "nothing": streams(done=False),
    "broken JSON": streams(b"data: {bad\n\n"),
    "a number": streams(b"data: 7\n\n"),
    "choices of another type": streams({**chunk({}), "choices": "abc"}),
    "no text": streams(b'data: {"choices": "\xff\xfe"}\n\n'),
    "too deep": streams(f"data: {DEEP}\n\n".encode()),
}


@pytest.mark.parametrize("door", STREAMED)
@pytest.mark.parametrize("body", UNREADABLE_STREAMS)
@pytest.mark.parametrize("model", ["openai/x", "hosted_vllm/x", "azure/x"])
def test_c6_a_stream_that_holds_nothing_of_an_answer_is_an_invalid_one(provider, ask, model, door, body):
    """The same for a stream of which nothing could be read; one that broke off later is cut."""
    provider.answers = [UNREADABLE_STREAMS[body]]
    with pytest.raises(errors.InvalidProviderResponse):
        ask(door, model)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("status", [400, 500, 503])
@pytest.mark.parametrize("model", MODELS)
def test_a_failure_whose_body_cannot_be_read_is_what_its_status_says(provider, ask, model, door, status):
    """A proxy's HTML page with a status of its own is no answer of the model, however it is written."""
    provider.answers = [sends(b"<html>Bad, bad.</html>", status)]
    with pytest.raises(errors.ProviderError) as caught:
        ask(door, model)
    assert type(caught.value) is STATUSES[status]


def test_a_conversation_that_is_too_long(provider, ask):
    """A provider that calls the conversation too long is told apart from other bad requests."""
    body = {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}
    provider.answers = [sends({"error": body}, 400)]
    with pytest.raises(errors.ContextWindowExceeded, match="history_window"):
        ask()


@pytest.mark.parametrize("door", STREAMED)
def test_a_stream_that_fails_before_its_first_chunk_fails_like_a_plain_call(provider, ask, door):
    """An error event in place of an answer is what it says, and not a broken stream."""
    provider.answers = [streams({"error": {"message": "Slow down.", "code": 429}})]
    with pytest.raises(errors.RateLimited):
        ask(door, "hosted_vllm/x")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "99999"}, 99999),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 99 Foo 2026 99:00:00"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_c1_retry_after_is_read_or_ignored(headers, seconds):
    """Every form of the header that says a time to come is read; anything else is as if it were not there."""
    assert failures.retry_after(headers) == seconds


def test_c1_retry_after_may_be_a_date():
    """An HTTP date is turned into the seconds until then."""
    seconds = failures.retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert 55 < seconds <= 60


def test_words_of_a_provider_lose_every_secret(make_request):
    """Secrets are cut from quoted words, also where they stand in an address or in a header."""
    text = failures.scrubbed(f"GET /x?key={KEY} with a%2Fb%2Bc", [{"x-key": "a/b+c"}, KEY])
    assert text == "GET /x?key=*** with ***"


def test_words_are_cut(make_request):
    """A page of HTML in an error message does not fill the log."""
    error = failures.provider_error(make_request(), errors.ProviderServerError, "x" * 5000)
    assert len(str(error)) < 700
