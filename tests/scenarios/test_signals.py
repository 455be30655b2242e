"""Signals, and the caller's transaction."""

import pytest
from django.db import transaction

from llm_wrapper import errors, signals
from llm_wrapper.models import Message
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import rate_limit, scripted_model, tool_call


@pytest.mark.django_db
def test_each_stage_sends_its_signal_and_a_bad_receiver_harms_nothing(make_prompt, make_tool, caplog):
    """Every stage of a turn sends its signal with the event; a receiver that raises does not touch the turn."""
    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event.type)
        raise RuntimeError("a receiver's own fault")

    for signal in signals.SIGNAL_OF.values():
        signal.connect(receiver)
    try:
        with scripted_model(tool_call("order_state", order=1), "Done.", rate_limit()):
            assert wrapper.send_user_message_and_get_response("hi", {"user_id": 1}) == "Done."
            with pytest.raises(errors.RateLimited):
                wrapper.send_user_message_and_get_response("hi", {"user_id": 1})
    finally:
        for signal in signals.SIGNAL_OF.values():
            signal.disconnect(receiver)
    calls = ["llm_call_started", "llm_call_finished"]
    tool = ["tool_call_started", "tool_call_finished"]
    answered = ["turn_started", *calls, *tool, *calls, "turn_finished"]
    assert seen == [*answered, "turn_started", *calls, "turn_failed"]


@pytest.mark.django_db(transaction=True)
def test_a_turn_inside_a_transaction_is_refused(make_prompt):
    """A turn that the caller could roll back is refused with what to do; nothing is sent."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with (
        scripted_model() as model,
        transaction.atomic(),
        pytest.raises(errors.InsideTransaction, match="ATOMIC_REQUESTS"),
    ):
        wrapper.send_user_message_and_get_response("hi")
    assert not model.requests
    assert not Message.objects.exists()
