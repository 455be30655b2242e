"""A worker that is killed anywhere loses no message and repeats no effect. Run by `make chaos`."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from llm_wrapper import history
from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, ToolCall, Turn
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model
from llm_wrapper.turn import drive, run_turn
from tests.chaos import victim
from tests.chaos.lanes import LANES, in_lanes
from tests.scenarios.test_recovery import assert_tool_calls_are_paired

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]

KILLS = int(os.environ.get("CHAOS_KILLS", "1000"))
# Seconds that one test may take. All of them together are bounded by tests/chaos/__main__.py.
LIMIT = 400


@pytest.fixture
def prompt(make_tool, tmp_path, monkeypatch):
    monkeypatch.setenv(victim.LEDGER, str(tmp_path / "ledger"))
    row = PromptTemplate.objects.create(name="chaos", system_prompt_template="S")
    row.llm_config_names.add(LLMConfigName.objects.create(name="demo"))
    row.tools.add(make_tool("tests.chaos.victim.charge"), make_tool("tests.chaos.victim.look_up", idempotent=True))
    row.current_version()
    # Once in this process, so that the forked ones find all loaded that a first turn loads.
    with scripted_model(*victim.script()):
        list(drive(run_turn(victim.job_on(new_chat(row)), history)))
    return row


def new_chat(prompt):
    return history.create_chat(prompt_template_id=prompt.pk).pk


def abandoned(chat_id):
    """The turns of a chat whose worker is gone; its lease is over."""
    Turn.objects.filter(chat=chat_id, status="running").update(lease_expires_at=Now() - timedelta(seconds=1))
    return history.expired_turns().filter(chat=chat_id).select_related("chat__prompt_template")


def recover(chat_id):
    """End what the dead worker left, as `llm_resume` does."""
    for turn in abandoned(chat_id):
        with scripted_model("Recovered.") as model:
            try:
                resume(turn)
            except LLMWrapperError as error:
                pytest.fail(f"{turn} could not be resumed: {error}")
            assert len(model.requests) == 1, "more than one call of the model in recovery"


def kill_in_recovery(chat_id, generator, usual):
    """Kill whoever recovers the chat, up to three times; gives how many were killed."""
    kills = 0
    for _ in range(3):
        for turn in abandoned(chat_id):
            _, killed = victim.finish(*victim.fork_recovery(turn), kill_after=generator.uniform(0, usual))
            kills += killed
    return kills


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


def assert_effects_are_on_record(path):
    """No effect happened twice, and each is on record as done or, where nobody can know, as unknown. Gives how many
    unknown ones there are, and how many of those did happen."""
    charges = Counter(victim.ledger(path, "charge"))
    assert max(charges.values(), default=0) <= 1, "an effect happened twice"
    rows = ToolCall.objects.filter(tool="charge").values_list("turn", "pk", "status")
    statuses = {f"{turn}:{pk}": status for turn, pk, status in rows}
    assert {statuses[key] for key in charges} <= {"done", "unknown"}, "an effect is on record as not run"
    assert {key for key, status in statuses.items() if status == "done"} <= set(charges), "a result without its effect"
    unknown = [key for key, status in statuses.items() if status == "unknown"]
    return len(unknown), len([key for key in unknown if key in charges])


def say(text):
    print(f"\n{connection.vendor}: {text}")  # noqa: T201


@pytest.mark.parametrize("kind", ["effect", "statement"])
def test_a2_killed_at_every_boundary(prompt, tmp_path, kind):
    """A2, A3, A4: before and behind every effect of a turn, and every statement of its transactions, a kill loses no
    message and repeats no effect; one more call of the model at most ends the turn, and the next send works."""

    def sweep(lane):
        at, died, acknowledged = lane, True, 0
        while died:
            chat_id = new_chat(prompt)
            acked, died = victim.finish(*victim.fork_turn(chat_id, **{kind: at}))
            recover(chat_id)
            assert_whole(chat_id, acked)
            with scripted_model("After."):
                wrapper = LLMCommunicationWrapper(prompt_name="chaos", chat_history_id=chat_id)
                assert wrapper.send_user_message_and_get_response("next") == "After."
            acknowledged += acked and died
            at += LANES
        return {"points": len(range(lane, at - LANES, LANES)), "acknowledged": acknowledged}

    total = in_lanes(sweep, seconds=LIMIT)
    unknown, happened = assert_effects_are_on_record(tmp_path / "ledger")
    assert total["points"] > 60, f"only {total['points']} points were tried"
    assert unknown >= 2, "no kill came between an effect and its record"
    say(
        f"a kill at each of {total['points']} points around each {kind}, {total['acknowledged']} messages "
        f"acknowledged, 0 lost, 0 effects twice, 0 stuck; {unknown} outcomes unknown ({happened} had happened)"
    )


def test_a1_killed_at_random(prompt, tmp_path):
    """A1, A5: at random times of a turn, as often as CHAOS_KILLS says, and again and again while it is recovered, a
    kill loses nothing and repeats nothing."""
    started = time.monotonic()

    def lane(number):
        generator = random.Random(20261121 + number)
        whole, after_acknowledgement = map(min, zip(*[times_of_a_turn(prompt) for _ in range(5)], strict=True))
        counts = Counter(kills=0)
        while counts["kills"] < len(range(number, KILLS, LANES)) and time.monotonic() - started < LIMIT:
            chat_id = new_chat(prompt)
            # Most of the times are counted from the acknowledgement: before it there is little to lose.
            late = generator.random() < 0.8
            acked, killed = victim.finish(
                *victim.fork_turn(chat_id),
                kill_after=generator.uniform(0, after_acknowledgement if late else whole),
                from_acknowledgement=late,
            )
            if generator.random() < 0.25:
                counts["in_recovery"] += kill_in_recovery(chat_id, generator, whole / 2)
            recover(chat_id)
            assert_whole(chat_id, acked)
            counts += Counter(kills=killed, acknowledged=killed and acked)
        return counts

    total = in_lanes(lane, seconds=LIMIT + 60)
    unknown, happened = assert_effects_are_on_record(tmp_path / "ledger")
    lost = LLMCall.objects.filter(status="lost").count()
    assert total["kills"] == KILLS, f"only {total['kills']} of {KILLS} kills were made in {LIMIT} seconds"
    assert total["acknowledged"] > KILLS / 2, "the kills came too early to say anything"
    assert Message.objects.filter(type="user").count() >= total["acknowledged"]
    assert not Turn.objects.exclude(status="done").exists()
    say(
        f"{KILLS} kills at random and {total['in_recovery']} more in recovery, {total['acknowledged']} messages "
        f"acknowledged, 0 lost, 0 effects twice, 0 stuck; {unknown} outcomes unknown ({happened} had happened), "
        f"{lost} calls lost; {time.monotonic() - started:.0f} s in {LANES} lanes"
    )


def times_of_a_turn(prompt):
    """Seconds of a turn from the start of its process, and from its acknowledgement, to its end."""
    started = time.monotonic()
    pid, pipe = victim.fork_turn(new_chat(prompt))
    assert os.read(pipe, 1) == b"a"
    acknowledged = time.monotonic()
    victim.finish(pid, pipe)
    ended = time.monotonic()
    return ended - started, ended - acknowledged
