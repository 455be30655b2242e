"""The key of a config must not be found in anything that a failed call leaves behind."""

import logging
import sys
import traceback

import pytest
from django.views.debug import ExceptionReporter

from llm_wrapper.errors import AuthenticationFailed, LLMWrapperError, ProviderTimeout

from .conftest import DOORS, KEY
from .provider import fails, message, sends, silent, streams, text_chunks

FAILURES = {
    "401": fails(401, f"Incorrect API key provided: {KEY}."),
    "403": fails(403, f"The key {KEY} may not."),
    "400": fails(400, f"Bad header: Bearer {KEY}"),
    "429": fails(429, f"{KEY} is limited.", retry_after="3"),
    "500": fails(500, KEY),
    "no JSON": sends(f"<html>{KEY}</html>".encode()),
    "no answer": sends(message("", finish="stop")),
    "cut": streams(*text_chunks("Hello")[:-2], cut=True),
}
MODELS = ("openai/x", "hosted_vllm/x", "azure/x", "anthropic/x", "gemini/x")


@pytest.mark.parametrize("door", ["complete", "astream"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("failure", FAILURES)
def test_i1_a_failed_call_leaves_no_key(provider, ask, caplog, capfd, door, model, failure):
    """Key in no message, attribute, cause, context, traceback, log, output, nor in Django's error page."""
    caplog.set_level(logging.INFO)
    provider.answers = [FAILURES[failure]]
    try:
        ask(door, model)
    except LLMWrapperError as exc:
        text = "".join(traceback.format_exception(exc)) + everything_in(exc)
        reporter = ExceptionReporter(None, *sys.exc_info())
        text += reporter.get_traceback_html() + reporter.get_traceback_text()
    else:
        pytest.fail("the call did not fail")
    captured = capfd.readouterr()
    assert KEY not in text + caplog.text + captured.out + captured.err


@pytest.mark.parametrize("door", DOORS)
def test_i1_a_timeout_leaves_no_key(provider, ask, door):
    """The error of a call that was given up shows no key either, with the frames it was raised through."""
    provider.answers = [silent]
    with pytest.raises(ProviderTimeout) as caught:
        ask(door, timeout=0.3)
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert KEY not in everything_in(caught.value) + page


def test_i1_a_refused_key_is_named_by_where_it_stands(provider, ask):
    """Of a refused key the error says which file to look at, and nothing that the provider quoted."""
    provider.answers = [FAILURES["401"]]
    with pytest.raises(AuthenticationFailed) as caught:
        ask()
    assert str(caught.value) == (
        "Config 'main' (openai/gpt-4o-mini) refused the key; check api_key in the config's YAML file."
    )


def everything_in(exc):
    """The reprs of all that hangs on an exception: args, attributes, causes, contexts and its frames' values."""
    seen, queue, texts = set(), [exc], []
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        texts.append(repr(item))
        if isinstance(item, BaseException):
            texts.append(str(item))
            queue += [item.__cause__, item.__context__, *item.args, *vars(item).values()]
            for frame, _ in traceback.walk_tb(item.__traceback__):
                if "llm_wrapper" in frame.f_code.co_filename:
                    queue += list(frame.f_locals.values())
        elif isinstance(item, dict):
            queue += [*item, *item.values()]
        elif isinstance(item, (list, tuple, set)):
            queue += list(item)
        elif type(item).__module__.startswith(("litellm", "openai", "httpx")):
            queue += list(getattr(item, "__dict__", {}).values())
    return "\n".join(texts)


def test_the_search_for_keys_finds_one(provider):
    """The canary test is worth something: the same search finds the key in litellm's own exception."""
    import litellm

    provider.answers = [fails(500)]
    with pytest.raises(litellm.InternalServerError) as caught:
        litellm.completion("openai/x", [{"role": "user", "content": "x"}], api_key=KEY, api_base=provider.base)
    assert KEY in ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
