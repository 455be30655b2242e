"""Which messages a call sends, held against a plain description of it, on random chats."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llm_wrapper.history import windowing
from llm_wrapper.history.windowing import FIRST_READ, TOKENS_PER_MESSAGE, Budget, window
from llm_wrapper.models import Message
from tests.scenarios.test_recovery import assert_tool_calls_are_paired

from .talks import Talk, a_talk, recorded

pytestmark = pytest.mark.django_db


def count(text: str) -> int:
    """Any function will do that gives a text no more tokens than it has bytes."""
    return len(text.split())


def tokens_of(message: dict[str, Any]) -> int:
    calls = message.get("tool_calls")
    return count((message["content"] or "") + (json.dumps(calls) if calls else "")) + TOKENS_PER_MESSAGE


def tokens(messages: list[dict[str, Any]]) -> int:
    return sum(tokens_of(message) for message in messages)


class Described:
    """The rule of the window, as a person would apply it to the whole chat."""

    def __init__(self, talk: Talk, state: Any, *, replay_rendered: bool = False) -> None:
        self.own = state.user_message.position
        self.system = [step for step in talk.steps if step is talk.system]
        context = [
            step
            for step in talk.steps
            if step.type not in ("system", "widget")
            and (step.left_context_at is None or step.left_context_at > talk.position)
        ]
        self.pinned = [step for step in context if step.pinned]
        self.others = [step for step in context if not step.pinned]
        self.turn_id, self.replay = state.turn_id, replay_rendered

    def messages(self, first: int) -> list[dict[str, Any]]:
        steps = [step for step in self.pinned + self.others if step.pinned or step.position >= first]
        ordered = self.system + sorted(steps, key=lambda step: step.position)
        return [step.provider_message(rendered=self.replay or step.turn_id == self.turn_id) for step in ordered]

    def best(self, limit: int | None, budget: int | None) -> int:
        """The first position of the longest window that keeps the limits, else that of the running turn."""
        starts = [
            step.position
            for step in self.others
            if step.type == "user" and (step.turn_id is None or "system_generated" not in step.payload)
        ]
        for first in sorted({1, *starts}):
            many = sum(step.position >= first for step in self.others)
            fits = budget is None or tokens(self.messages(first)) <= budget
            if first <= self.own and fits and (limit is None or many <= limit):
                return first
        return self.own

    def left_out(self, first: int) -> int:
        return sum(step.position < first for step in self.others)


@pytest.mark.parametrize("seed", range(30))
def test_a_window_is_the_longest_that_fits_and_parts_no_turn(seed: int) -> None:
    """On any chat (failed, replaced, repaired and tool turns, pinned and system steps), with any limit and budget: the
    window is the longest that fits, whole turns only, each tool call with its result, the system step first; what it
    leaves out is counted; and the call's row says later exactly what was sent."""
    chance = random.Random(seed)
    template, replay = chance.random() < 0.4, chance.random() < 0.3
    talk = a_talk(chance, turns=chance.choice([0, 1, 5, 12, 45]), template=template)
    state = talk.run(template=template, rounds=chance.choice([0, 0, 1, 2]))
    described = Described(talk, state, replay_rendered=replay)
    everything = tokens(described.messages(1))
    for _ in range(6):
        limit = chance.choice([None, None, 0, 1, 3, 7, 20, 200])
        budget = chance.choice(
            [None, 0, everything, everything - 1, *(chance.randint(20, everything) for _ in range(5))]
        )
        state.window = None
        found = window(
            state,
            limit=limit,
            budget=None if budget is None else Budget(budget, count),
            replay_rendered=replay,
        )
        best = described.best(limit, budget)
        assert found.messages == described.messages(best), (limit, budget)
        assert_tool_calls_are_paired(found.messages)
        assert [message["role"] for message in found.messages].count("system") == len(described.system)
        call = recorded(state, found, replay_rendered=replay)
        assert call.sent_messages() == found.messages
        assert call.left_out == described.left_out(best)
        assert [step.position for step in call.messages if step.type == "system"] == [
            step.position for step in described.system
        ]


@pytest.mark.parametrize("seed", range(20))
def test_a_window_with_summaries_is_cut_in_half(seed: int) -> None:
    """Where a summary is wanted, the window is whole as long as it fits, and else filled to half at most, unless what
    is always sent is more; what it leaves out is what is to be summed up, up to the last position before it."""
    chance = random.Random(seed)
    talk = a_talk(chance, turns=chance.choice([5, 12, 45]))
    state = talk.run(rounds=chance.choice([0, 1]))
    described = Described(talk, state)
    everything, always = tokens(described.messages(1)), tokens(described.messages(described.own))
    for budget in (everything, everything - 1, *(chance.randint(20, everything) for _ in range(5))):
        state.window = None
        found = window(state, budget=Budget(budget, count), summarise=True)
        if budget == everything:
            assert found.unsummed is None
            assert found.messages == described.messages(1)
            continue
        best = described.best(None, budget // 2)
        assert found.messages == described.messages(best)
        assert tokens(found.messages) <= max(budget // 2, always)
        assert found.unsummed == (1, found.first_position - 1)


@pytest.mark.parametrize("seed", range(10))
def test_a_window_begins_behind_the_summary(seed: int) -> None:
    """A summary stands for all before it: system step, summary and pinned steps first, then what came after; an older
    summary is not sent any more."""
    chance = random.Random(seed)
    talk = a_talk(chance, turns=8)
    for _ in range(2):
        until = talk.position
        talk.add("plain")
        for step in talk.steps:
            if step.type == "summary":
                step.left_context_at = talk.position + 1
        talk.step("summary", "What was said.", pinned=True, payload={"until": until}, turn=talk.steps[-1].turn)
        for _ in range(3):
            talk.add("plain")
    state = talk.run()
    found = window(state, summarise=True)
    assert found.first_position == until + 1
    assert found.unsummed is None
    roles = [message["role"] for message in found.messages]
    system = len([step for step in talk.steps if step is talk.system])
    assert roles[:system] == ["system"] * system
    told = [message for message in found.messages if "What was said." in message["content"]]
    assert told == [found.messages[system]]
    assert recorded(state, found).sent_messages() == found.messages


def test_what_a_running_turn_adds_is_taken_in_until_it_no_longer_fits() -> None:
    """Steps of the running turn join the window without a look at the database as long as there is room; then it is
    cut anew, and the oldest turns make way."""
    talk = a_talk(random.Random(1), turns=10, pinned=False)
    state = talk.run()
    whole = window(state, budget=Budget(10_000, count))
    room = tokens(whole.messages) + 100
    state.window = None
    first = window(state, budget=Budget(room, count))
    for number in range(12):
        step = talk.step("assistant", "word " * 5 * (number + 1), turn=state.turn)
        step.save()
        state.wrote(step)
        found = window(state, budget=Budget(room, count))
        assert found.messages[-1]["content"] == step.text
        assert tokens(found.messages) <= room
        assert recorded(state, found).sent_messages() == found.messages
    assert found.first_position > first.first_position


def test_another_budget_cuts_anew() -> None:
    """A window that was cut for one model is not sent to one with less room, or more."""
    talk = a_talk(random.Random(2), turns=20)
    state = talk.run()
    large = window(state, budget=Budget(10_000, count))
    small = window(state, budget=Budget(120, count))
    assert len(small.messages) < len(large.messages)
    assert window(state, budget=Budget(10_000, count)) == large
    halved = window(state, budget=Budget(120, count), summarise=True)
    assert window(state, budget=Budget(120, count)) == small != halved


def test_each_message_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are kept with the steps, in either wording of a user template; where bytes alone tell that all fits,
    nothing is counted; and what lies far behind the budget is not counted at all."""
    counted: list[str] = []

    def noted(text: str) -> int:
        counted.append(text)
        return count(text)

    talk = a_talk(random.Random(3), turns=200, template=True)
    state = talk.run(template=True)
    window(state, budget=Budget(10_000_000, noted))
    assert counted == []
    for replay in (False, True):
        state.window = None
        window(state, budget=Budget(300, noted), replay_rendered=replay)
        assert 0 < len(counted) < FIRST_READ
        counted.clear()
        state.window = None
        window(state, budget=Budget(300, noted), replay_rendered=replay)
        assert counted == []


def test_the_words_of_the_user_template_count() -> None:
    """This turn's message counts as the template rendered it, an earlier one as it is sent."""
    talk = Talk(random.Random(4))
    earlier, own = talk.turn(), talk.turn(status="running")
    talk.step("user", "hi", turn=earlier, rendered_text="hi " + "padding " * 300)
    talk.step("assistant", "hello", turn=earlier)
    asked = talk.step("user", "hi", turn=own, rendered_text="short")
    Message.objects.bulk_create(talk.steps)
    state = windowing.TurnState(
        turn=own, fence=1, chat_id=talk.chat.pk, position=3, system_message_id=None, user_message=asked
    )
    assert len(window(state, budget=Budget(60, count)).messages) == 3
    state.window = None
    assert len(window(state, budget=Budget(60, count), replay_rendered=True).messages) == 1
    Message.objects.filter(pk=asked.pk).update(rendered_text="padding " * 300, token_counts={})
    state.window = None
    assert [len(message["content"]) for message in window(state, budget=Budget(60, count)).messages] == [2400]
