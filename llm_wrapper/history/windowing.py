"""Which messages the next call sends: what fits, cut so that no tool call is parted from its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet

from llm_wrapper.models import ChatHistory, Message
from llm_wrapper.models.journal import SentStep, provider_messages, sent_steps

from . import prepared
from .database import stage
from .state import TurnState

# Steps that are read at first where only the newest may fit; each further read takes so many times more.
FIRST_READ = 64
READ_GROWTH = 8
# What a message takes besides its words: role and separators, in every chat format that we know.
TOKENS_PER_MESSAGE = 8
# After a summary, so much of the budget is filled: the next turns fit without another one.
FILL_AFTER_SUMMARY = 0.5
# Counts are kept under the name of what counted.
TOKENIZER = "cl100k_base"


@dataclass(frozen=True)
class Budget:
    """How many tokens the messages of a call may have, and what counts those of a text."""

    tokens: int
    count: Callable[[str], int]


@dataclass(frozen=True)
class Window:
    """The messages of one call, in OpenAI's format.

    `first_position` is the position of the first of them that is not pinned, `left_out` the number of earlier steps
    that are not sent, `unsummed` the positions (first, last) of those that no summary covers yet, where one is wanted.
    `spare` is how many tokens more it has room for, None where it has no bounds.
    """

    first_position: int
    messages: list[dict[str, Any]]
    left_out: int = 0
    unsummed: tuple[int, int] | None = None
    spare: int | None = None

    def with_message(self, message: dict[str, Any]) -> Window | None:
        """The window with one more message; None where it may no longer fit, and must be cut anew."""
        spare = None if self.spare is None else self.spare - _most_tokens(message)
        if spare is not None and spare < 0:
            return None
        # A new list: a call that is being made holds on to this one's.
        return replace(self, messages=[*self.messages, message], spare=spare)


def window(
    state: TurnState,
    *,
    limit: int | None = None,
    budget: Budget | None = None,
    summarise: bool = False,
    replay_rendered: bool = False,
) -> Window:
    """The messages of the next call.

    With a `limit` these are the newest so many, with a `budget` what has room in it. System step, summary and pinned
    steps are always among them, and so is all of the running turn, even where that alone is too much: whether it is,
    the provider knows better. Earlier turns come whole or not at all. With `summarise` the window begins behind the
    last summary, and where it must be cut, half of it is, so that not every turn needs a new summary.
    """
    bounds = (limit, budget.tokens if budget is not None else None)
    if state.window is not None and state.window_bounds == bounds:
        return state.window
    own = state.user_message.position
    lowest = 1 if limit is None else min(max(state.position - limit + 1, 1), own)
    read = state.position if budget is None else FIRST_READ
    while True:
        start = min(max(state.position - read + 1, lowest), own)
        steps = _read(state, start)
        summed = max((step.payload.get("until", 0) for step in steps if step.type == Message.Type.SUMMARY), default=0)
        floor = max(start, summed + 1)  # a summary stands for what is before it
        if summarise and limit is not None and summed + 1 < start == lowest:
            floor = min(state.position - limit // 2 + 1, own)
        whole = _first_user(steps, floor, own)
        first, spare = whole, None
        if budget is not None:
            first, spare = _fitted(_as_sent(steps, state.turn_id, replay_rendered), whole, own, budget, summarise)
        if start == lowest or first > whole or floor > start:
            break
        read *= READ_GROWTH
    sent_now = [step for step in steps if step.position >= first or not _in_range(step)]
    always = sum(1 for step in sent_now if step.position < first)
    state.window_bounds = bounds
    state.window = Window(
        first_position=first,
        messages=provider_messages(sent_now, state.turn_id, replay_rendered),
        left_out=max(first - 1 - always, 0),
        unsummed=(summed + 1, first - 1) if summarise and first - 1 > summed else None,
        spare=spare,
    )
    return state.window


def _in_range(step: SentStep) -> bool:
    """Whether the step is sent only because it lies in the range."""
    return not step.pinned and step.type not in (Message.Type.SYSTEM, Message.Type.SUMMARY)


def _first_user(steps: Sequence[SentStep], floor: int, own: int) -> int:
    """The first user message at or behind `floor`, at most that of the running turn."""
    if floor == 1:
        return 1
    starts = (s.position for s in steps if s.type == Message.Type.USER and _in_range(s) and floor <= s.position <= own)
    return min(starts, default=own)


def _fitted(
    sent: Sequence[tuple[SentStep, dict[str, Any]]], whole: int, own: int, budget: Budget, summarise: bool
) -> tuple[int, int]:
    """The first position from which all has room, at least `whole`, at most `own`; and the tokens that are left."""
    wanted = [(step, message) for step, message in sent if step.position >= whole or not _in_range(step)]
    most = sum(_most_tokens(message) for _, message in wanted)
    if most <= budget.tokens:
        return whole, budget.tokens - most
    counts = _counted(wanted, budget)
    if sum(counts.values()) <= budget.tokens:
        return whole, budget.tokens - sum(counts.values())
    used = sum(counts[step.pk] for step, _ in wanted if step.position >= own or not _in_range(step))
    room = budget.tokens * (FILL_AFTER_SUMMARY if summarise else 1)
    first, tried = own, used
    for step, _ in reversed(wanted):
        if step.position >= own or not _in_range(step):
            continue
        tried += counts[step.pk]
        if tried > room:
            break
        if step.type == Message.Type.USER:
            first, used = step.position, tried
    return first, max(budget.tokens - used, 0)


def _as_sent(steps: Sequence[SentStep], turn_id: int, replay_rendered: bool) -> list[tuple[SentStep, dict[str, Any]]]:
    return [(step, step.provider_message(rendered=replay_rendered or step.turn_id == turn_id)) for step in steps]


def _most_tokens(message: dict[str, Any]) -> int:
    """More tokens than this a message cannot have, since each has at least one byte: most need no counting."""
    return len(_words(message).encode()) + TOKENS_PER_MESSAGE


def _words(message: dict[str, Any]) -> str:
    """What of a message is counted."""
    calls = message.get("tool_calls")
    return (message["content"] or "") + (json.dumps(calls) if calls else "")


def _counted(sent: Sequence[tuple[SentStep, dict[str, Any]]], budget: Budget) -> dict[int, int]:
    """Tokens of each step by its primary key. They are counted once and kept with the step."""
    counts, news = {}, {}
    for step, message in sent:
        # A user template may show this turn's message in other words than later turns do.
        tokens = step.token_counts.get(TOKENIZER) if step.rendered_text is None else None
        if tokens is None:
            tokens = budget.count(_words(message)) + TOKENS_PER_MESSAGE
            if step.rendered_text is None:
                news[step.pk] = {**step.token_counts, TOKENIZER: tokens}
        counts[step.pk] = tokens
    if news:
        _keep(news)
    return counts


@stage
def _keep(counts: dict[int, dict[str, int]]) -> None:
    prepared.update_many(Message, [({"pk": pk}, {"token_counts": tokens}) for pk, tokens in counts.items()])


def _read(state: TurnState, start: int) -> list[SentStep]:
    rows = prepared.select(
        _steps,
        chat=state.chat_id,
        first=start,
        last=state.position,
        system=state.system_message_id,
    )
    return [SentStep(*row) for row in rows]


def _steps() -> QuerySet[Any, Any]:
    position = Message._meta.get_field("position")
    return sent_steps(
        prepared.Given("chat", ChatHistory._meta.pk),
        first=prepared.Given("first", position),
        last=prepared.Given("last", position),
        system_id=prepared.Given("system", Message._meta.pk),
    ).values_list(*SentStep._fields)
