"""What a summary is asked for, and what stays on record of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llm_wrapper.history import summaries
from llm_wrapper.history.windowing import Budget, window
from llm_wrapper.models import LLMCall, Message
from llm_wrapper.models.journal import SUMMARY_INSTRUCTIONS
from llm_wrapper.types import Completion, ConfigChoice, Credentials, Usage

from .talks import Talk, a_talk
from .test_windowing import count

pytestmark = pytest.mark.django_db

CHOICE = ConfigChoice(name="demo", model="demo/demo", params={"temperature": 0.5}, credentials=Credentials({}))


def asked(state: Any, positions: tuple[int, int], room: int = 100_000, **values: Any) -> Any:
    return summaries.to_sum_up(state, positions, **{"instructions": "", **values}, room=Budget(room, count))


def summed_up(state: Any, request: Any, text: str = "They spoke.") -> LLMCall:
    call = summaries.start_summary(state, CHOICE, request, prompt_version=None, timeout=7.0)
    completion = Completion(text=text, usage=Usage(input_tokens=9, output_tokens=3))
    summaries.save_summary(state, call, completion, request, latency=0.5)
    return LLMCall.objects.get(pk=call.pk)


def test_what_was_said_is_asked_to_be_summed_up() -> None:
    """User, assistant and tool steps of the context in order, with who spoke; no system steps, no widgets, nothing that
    has left the context."""
    talk = Talk(random.Random(1))
    talk.step("system", "Be brief.")
    turn = talk.turn()
    talk.step("user", "Where is it?", turn=turn)
    talk.step("assistant", "", turn=turn, payload={"tool_calls": []})
    talk.step("tool", '{"state": "sent"}', turn=turn, payload={"name": "look", "tool_call_id": "1"})
    talk.step("widget", "a map", turn=turn)
    talk.step("assistant", "On its way.", turn=turn)
    talk.step("user", "never answered", turn=turn, left_context_at=8)
    state = talk.run()
    request = asked(state, (1, 7))
    assert request.messages == [
        {"role": "system", "content": SUMMARY_INSTRUCTIONS},
        {
            "role": "user",
            "content": 'User: Where is it?\n\nResult of look: {"state": "sent"}\n\nAssistant: On its way.',
        },
    ]
    assert asked(state, (1, 7), instructions="In French.").messages[0]["content"] == "In French."


def test_nothing_is_asked_where_nothing_was_said() -> None:
    """Positions that hold only what left the context need no summary, and no call is made for one."""
    talk = Talk(random.Random(1))
    talk.step("system")
    talk.add("failed")
    state = talk.run()
    assert asked(state, (1, talk.position - 1)) is None


def test_a_summary_goes_on_from_the_one_before() -> None:
    """The next summary is asked for with the last one and what was said since; it takes that one's place."""
    talk = a_talk(random.Random(5), turns=4, pinned=False)
    state = talk.run()
    half = talk.position // 2
    first = summed_up(state, asked(state, (1, half)), "First summary.")
    request = asked(state, (half + 1, talk.position - 1))
    assert request.messages[1]["content"].startswith("Summary so far: First summary.\n\n")
    second = summed_up(state, request, "Second summary.")
    in_force = Message.objects.filter(type="summary", left_context_at=None)
    assert [step.text for step in in_force] == ["Second summary."]
    assert (first.purpose, first.status, first.output_tokens) == ("summary", "done", 3)
    assert (second.request_params["temperature"], second.request_params["timeout"]) == (0.5, 7.0)
    contents = [message["content"] for message in window(state, summarise=True).messages]
    assert any("Second summary." in content for content in contents)
    assert not any("First summary." in content for content in contents)


@pytest.mark.parametrize("seed", range(15))
def test_a_request_for_a_summary_fits_and_can_be_seen_later(seed: int) -> None:
    """However long the chat and its single steps are, what is sent has room; the call's row gives exactly that, also
    when the summary has been replaced by the next one and steps have left the context since."""
    chance = random.Random(seed)
    talk = a_talk(chance, turns=chance.choice([3, 20]))
    talk.longest = chance.choice([5, 3000])
    for _ in range(3):
        talk.add(chance.choice(["plain", "tools"]))
    state = talk.run()
    room, last = chance.choice([250, 600, 50_000]), talk.position - 1
    request = asked(state, (1, last), room)
    assert sum(count(message["content"]) for message in request.messages) <= room
    assert request.last == last
    calls = [(summed_up(state, request), request)]
    in_context = Message.objects.filter(position__lte=last, type="user", left_context_at=None)
    in_context.update(left_context_at=state.position + 1)
    further = asked(state, (request.first, last), room)
    if further is not None:
        calls.append((summed_up(state, further), further))
    for call, sent in calls:
        assert LLMCall.objects.get(pk=call.pk).sent_messages() == sent.messages


def test_a_very_long_step_is_shown_with_its_beginning() -> None:
    """One step that alone is more than there is room for is cut, and not the reason for no summary at all."""
    talk = Talk(random.Random(1))
    turn = talk.turn()
    talk.step("user", "a lot, please", turn=turn)
    talk.step("assistant", "漢" * 50_000, turn=turn)
    state = talk.run()
    by_bytes = Budget(2_000, lambda text: len(text.encode()))
    request = summaries.to_sum_up(state, (1, 2), instructions="Sum up.", room=by_bytes)
    assert request is not None
    assert "…" in request.messages[1]["content"]
    assert sum(len(message["content"].encode()) for message in request.messages) <= 2_000
    assert request.messages == summed_up(state, request).sent_messages()
