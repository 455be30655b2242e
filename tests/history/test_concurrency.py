"""Many workers on one chat."""

import threading

import pytest
from django.db import connection

from llm_wrapper import errors
from llm_wrapper.models import ChatHistory, Message
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model

pytestmark = pytest.mark.django_db(transaction=True)


def test_b1_parallel_sends_leave_no_gap_and_lose_nothing(make_prompt):
    """B1: of sends that race on one chat each is answered or refused; steps have no gaps, transcript and counters
    agree."""
    make_prompt()
    chat_id = LLMCommunicationWrapper(prompt_name="support").chat_history_id
    answered, refused, failed = [], [], []

    def send(number):
        try:
            for round_ in range(4):
                wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat_id)
                try:
                    wrapper.send_user_message_and_get_response(f"{number}-{round_}")
                    answered.append(f"{number}-{round_}")
                except errors.TurnInProgress:
                    refused.append(f"{number}-{round_}")
        except Exception as exc:  # noqa: BLE001 - shown by the assertion below
            failed.append(exc)
        finally:
            connection.close()

    with scripted_model(*["ok"] * 100):
        threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failed
    assert len(answered) + len(refused) == 24
    assert answered
    steps = Message.objects.filter(chat=chat_id).order_by("position")
    assert [step.position for step in steps] == list(range(1, 2 * len(answered) + 1))
    assert sorted(step.text for step in steps if step.type == "user") == sorted(answered)
    chat = ChatHistory.objects.get(pk=chat_id)
    assert chat.chat_history == chat.full_history()
    assert chat.turn_count == len(answered)
    assert chat.input_tokens_count == 10 * len(answered)
