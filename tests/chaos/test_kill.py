"""A worker that is killed anywhere loses no message and repeats no effect. Run by `make chaos`."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from llm_wrapper import history
from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, ToolCall, Turn
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model
from tests.chaos import victim
from tests.scenarios.test_recovery import assert_tool_calls_are_paired

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]

KILLS = int(os.environ.get("CHAOS_KILLS", "1000"))


@pytest.fixture
def prompt(make_tool, tmp_path, monkeypatch):
    monkeypatch.setenv(victim.LEDGER, str(tmp_path / "ledger"))
    row = PromptTemplate.objects.create(name="chaos", system_prompt_template="S")
    row.llm_config_names.add(LLMConfigName.objects.create(name="demo"))
    row.tools.add(make_tool("tests.chaos.victim.charge"), make_tool("tests.chaos.victim.look_up", idempotent=True))
    row.current_version()
    return row


def new_chat(prompt):
    return history.create_chat(prompt_template_id=prompt.pk).pk


def finish(pid, pipe, *, kill_after=None, from_acknowledgement=False):
    """Wait for the process, or kill it; True if it had acknowledged the message."""
    acknowledged = from_acknowledgement and os.read(pipe, 1) == b"a"
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    acknowledged = acknowledged or os.read(pipe, 1) == b"a"
    os.close(pipe)
    return acknowledged


def duration_of_a_turn(prompt):
    started = time.monotonic()
    finish(*victim.fork_turn(new_chat(prompt)))
    return time.monotonic() - started


def recover(chat_id):
    """End what the dead worker left, as `llm_resume` does."""
    Turn.objects.filter(chat=chat_id, status="running").update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    for turn in history.expired_turns().filter(chat=chat_id).select_related("chat__prompt_template"):
        with scripted_model("Recovered.") as model:
            try:
                resume(turn)
            except LLMWrapperError as error:
                pytest.fail(f"{turn} could not be resumed: {error}")
            assert len(model.requests) == 1, "more than one call of the model in recovery"


def assert_whole(chat_id, acknowledged):
    """What must hold of a chat after recovery."""
    kept = Message.objects.filter(chat=chat_id, type="user", text="hello").count()
    assert kept == 1 or (kept == 0 and not acknowledged), "an acknowledged message was lost"
    assert not Turn.objects.filter(chat=chat_id).exclude(status="done").exists(), "a turn is stuck"
    assert not LLMCall.objects.filter(turn__chat=chat_id, status="running").exists()
    assert not ToolCall.objects.filter(turn__chat=chat_id, status__in=["pending", "running"]).exists()
    chat = ChatHistory.objects.get(pk=chat_id)
    assert list(audit.differences(chat)) == []
    assert_tool_calls_are_paired(history.context_of(chat))


def assert_no_effect_twice(path):
    charges = Counter(line for line in victim.ledger(path) if line.startswith("charge"))
    assert max(charges.values(), default=0) <= 1, "an effect happened twice"


def test_a2_killed_at_every_boundary(prompt, tmp_path):
    """A2, A3, A4: at every boundary of every effect a kill loses no message and repeats no effect; one more call of
    the model at most ends the turn, and the next send works."""
    at, died = 0, 1
    while died:
        chat_id = new_chat(prompt)
        pid, pipe = victim.fork_turn(chat_id, at=at)
        _, status = os.waitpid(pid, 0)
        died = os.WIFSIGNALED(status)
        assert died or status == 0, "the victim failed by itself"
        acknowledged = os.read(pipe, 1) == b"a"
        os.close(pipe)
        recover(chat_id)
        assert_whole(chat_id, acknowledged)
        with scripted_model("After."):
            wrapper = LLMCommunicationWrapper(prompt_name="chaos", chat_history_id=chat_id)
            assert wrapper.send_user_message_and_get_response("next") == "After."
        at += 1
    assert at > 60, f"only {at} boundaries were tried"
    assert_no_effect_twice(tmp_path / "ledger")


def test_a1_killed_at_random(prompt, tmp_path):
    """A1: at random times of a turn, as often as CHAOS_KILLS says, a kill loses nothing and repeats nothing."""
    generator = random.Random(20261121)
    usual = min(duration_of_a_turn(prompt) for _ in range(5))
    acknowledged = 0
    for _ in range(KILLS):
        chat_id = new_chat(prompt)
        # Most of the times are counted from the acknowledgement: before it there is little to lose.
        acked = finish(
            *victim.fork_turn(chat_id),
            kill_after=generator.uniform(0, usual),
            from_acknowledgement=generator.random() < 0.8,
        )
        recover(chat_id)
        assert_whole(chat_id, acked)
        acknowledged += acked
    unknown = ToolCall.objects.filter(status="unknown").count()
    lost = LLMCall.objects.filter(status="lost").count()
    assert_no_effect_twice(tmp_path / "ledger")
    assert acknowledged > KILLS / 2, "the kills came too early to say anything"
    counts = f"{acknowledged} acknowledged, 0 lost, 0 repeated, {unknown} tool outcomes unknown, {lost} calls lost"
    print(f"{KILLS} kills, {counts}")  # noqa: T201
