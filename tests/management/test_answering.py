"""An interrupt that comes where a turn cannot take it."""

from __future__ import annotations

import io

import pytest
from django.core.management import BaseCommand

from llm_wrapper import history
from llm_wrapper.chat import Chat
from llm_wrapper.management.answering import Answering
from llm_wrapper.management.conversation import OnModels
from llm_wrapper.management.terminal import Terminal
from llm_wrapper.models import Turn
from llm_wrapper.testing import scripted_model
from llm_wrapper.turn import run_turn
from tests.scenarios.test_recovery import run_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def answering():
    terminal = Terminal(BaseCommand(stdout=io.StringIO(), stderr=io.StringIO()), io.StringIO())
    return Answering(terminal, OnModels(Chat.create(), ["demo"], None, is_new=True))


def left_open(chat):
    """A turn that was opened and then left, as by a worker that is elsewhere."""
    with scripted_model("never seen"):
        run_until(run_turn(chat._job("demo", "hello"), history), 4)


def test_a_turn_that_missed_the_interrupt_is_ended_all_the_same(answering):
    """Ctrl-C between two steps of the turn's own code leaves no running turn that would hold up the chat."""

    def turn():
        left_open(answering.conversation.chat)
        raise KeyboardInterrupt
        yield

    assert answering.run(turn) is False
    assert Turn.objects.get().status == "cancelled"


def test_a_turn_of_somebody_else_is_not_stopped(answering):
    """A turn that ran on the session before is not this terminal's to end."""
    left_open(answering.conversation.chat)

    def turn():
        raise KeyboardInterrupt
        yield

    assert answering.run(turn) is False
    assert Turn.objects.get().status == "running"
