"""The fakes that users get."""

import time

import pytest

from llm_wrapper import errors
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import assertNumLLMCalls, block_real_calls, delayed, rate_limit, scripted_model
from llm_wrapper.transport import current
from llm_wrapper.types import ConfigChoice, Credentials, ModelRequest

pytestmark = pytest.mark.django_db


def test_the_number_of_calls_is_asserted(make_prompt):
    """assertNumLLMCalls counts failed calls too, and lists what was made when the number is wrong."""
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(), "ok"), assertNumLLMCalls(2):
        wrapper.send_user_message_and_get_response("hi", None, True)
    with (
        scripted_model("ok"),
        pytest.raises(AssertionError, match="1 LLM calls were made, 0 expected"),
        assertNumLLMCalls(0),
    ):
        wrapper.send_user_message_and_get_response("hi")


def test_a_call_past_the_script_is_an_error(make_prompt):
    """A call that the script does not know is refused with a sentence, and the turn records it."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(), pytest.raises(errors.RealCallBlocked, match="0 steps"):
        wrapper.send_user_message_and_get_response("hi")


def test_delays_are_kept(make_prompt):
    """A delayed step takes its time."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    started = time.monotonic()
    with scripted_model(delayed(0.2, "late")):
        wrapper.send_user_message_and_get_response("hi")
    assert time.monotonic() - started >= 0.2


def test_the_guard_refuses_real_calls():
    """With the guard on, a call that would reach a model is refused before anything is loaded or sent."""
    choice = ConfigChoice(name="real", model="openai/gpt-4o", params={}, credentials=Credentials({"api_key": "k"}))
    request = ModelRequest(config=choice, messages=[{"role": "user", "content": "hi"}])
    with block_real_calls(), pytest.raises(errors.RealCallBlocked, match="real"):
        current().complete(request)


def test_a_limit_in_one_test_does_not_reach_the_next(make_prompt):
    """A config that a scripted model limited is warm again after the block."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(600)), pytest.raises(errors.RateLimited):
        wrapper.send_user_message_and_get_response("hi")
    with scripted_model("fine"):
        assert wrapper.send_user_message_and_get_response("hi") == "fine"
