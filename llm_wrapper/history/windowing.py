"""Which messages the next call sends: what fits, cut so that no tool call is parted from its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet

from llm_wrapper.models import ChatHistory, Message
from llm_wrapper.models.journal import SentStep, provider_messages, window_steps

from . import prepared
from .database import stage
from .state import TurnState

# Steps that are read at first where only the newest may fit; each further read takes so many times more.
FIRST_READ = 64
READ_GROWTH = 8
# Where a number of messages is wanted, so many steps more are read: some, such as a system step, do not count.
READ_BESIDES = 8
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

    `first_position` is the position of the first of them that is not pinned, `unsummed` the positions (first, last)
    that no summary covers yet, where one is wanted. `spare` is how many tokens more it has room for, None where it has
    no bounds.
    """

    first_position: int
    messages: list[dict[str, Any]]
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
    bounds = (limit, budget.tokens if budget is not None else None, summarise)
    if state.window is not None and state.window_bounds == bounds:
        return state.window
    own = state.user_message.position
    reads = [limit + READ_BESIDES] if limit is not None else []
    reads += [FIRST_READ] if budget is not None else []
    read = min(reads, default=state.position)
    while True:
        start = min(max(state.position - read + 1, 1), own)
        steps = _read(state, start)
        summed = max((step.payload.get("until", 0) for step in steps if step.type == Message.Type.SUMMARY), default=0)
        floor = max(start, summed + 1)  # a summary stands for what is before it
        newest = [step.position for step in steps if _in_range(step) and step.position >= floor]
        too_many = limit is not None and len(newest) > limit
        if limit is not None and too_many:
            kept = limit // 2 if summarise else limit
            floor = newest[-kept] if kept else own
        whole = _first_start(steps, floor, own)
        first, spare = whole, None
        if budget is not None:
            first, spare = _fitted(_as_sent(steps, state.turn_id, replay_rendered), whole, own, budget, summarise)
        if start == 1 or start <= summed + 1 or too_many or first > whole:
            break
        read *= READ_GROWTH
    sent_now = [step for step in steps if step.position >= first or not _in_range(step)]
    state.window_bounds = bounds
    state.window = Window(
        first_position=first,
        messages=provider_messages(sent_now, state.turn_id, replay_rendered),
        unsummed=(summed + 1, first - 1) if summarise and first - 1 > summed else None,
        spare=spare,
    )
    return state.window


def _in_range(step: SentStep) -> bool:
    """Whether the step is sent only because it lies in the range."""
    return not step.pinned and step.type not in (Message.Type.SYSTEM, Message.Type.SUMMARY)


def _is_start(step: SentStep) -> bool:
    """Whether a window may begin with the step: a message to be answered, and not what a turn asks by itself, such as
    the repair of an answer."""
    if step.type != Message.Type.USER or not _in_range(step):
        return False
    return step.turn_id is None or "system_generated" not in step.payload


def _first_start(steps: Sequence[SentStep], floor: int, own: int) -> int:
    """The first position at or behind `floor` with which a window may begin, at most that of the running turn."""
    if floor == 1:
        return 1
    starts = (step.position for step in steps if _is_start(step) and floor <= step.position <= own)
    return min(starts, default=own)


def _fitted(
    sent: Sequence[tuple[SentStep, dict[str, Any], bool]], whole: int, own: int, budget: Budget, summarise: bool
) -> tuple[int, int]:
    """The first position from which all has room, at least `whole`, at most `own`; and the tokens that are left."""
    wanted = [entry for entry in sent if entry[0].position >= whole or not _in_range(entry[0])]
    most = sum(_most_tokens(message) for _, message, _ in wanted)
    if most <= budget.tokens:
        return whole, budget.tokens - most
    counts = _Counts(budget)
    earlier = [entry for entry in wanted if entry[0].position < own and _in_range(entry[0])]
    used = sum(counts.of(*entry) for entry in wanted if entry[0].position >= own or not _in_range(entry[0]))
    room = budget.tokens * (FILL_AFTER_SUMMARY if summarise else 1)
    first, tried = own, used
    # Newest first, so that what lies too far back need not be counted.
    for step, message, rendered in reversed(earlier):
        tried += counts.of(step, message, rendered)
        if tried > budget.tokens:
            break
        if _is_start(step) and tried <= room:
            first, used = step.position, tried
    else:
        first, used = whole, tried
    counts.keep()
    return first, max(budget.tokens - used, 0)


def _as_sent(
    steps: Sequence[SentStep], turn_id: int, replay_rendered: bool
) -> list[tuple[SentStep, dict[str, Any], bool]]:
    """Each step with its message, and whether that is in the user template's words."""
    shown = [(step, replay_rendered or step.turn_id == turn_id) for step in steps]
    return [
        (step, step.provider_message(rendered=rendered), rendered and step.rendered_text is not None)
        for step, rendered in shown
    ]


def _most_tokens(message: dict[str, Any]) -> int:
    """More tokens than this a message cannot have, since each has at least one byte: most need no counting."""
    return len(_words(message).encode()) + TOKENS_PER_MESSAGE


def _words(message: dict[str, Any]) -> str:
    """What of a message is counted."""
    calls = message.get("tool_calls")
    return (message["content"] or "") + (json.dumps(calls) if calls else "")


class _Counts:
    """Tokens of steps. They are counted once and kept with the step."""

    def __init__(self, budget: Budget) -> None:
        self._count = budget.count
        self._news: dict[int, dict[str, int]] = {}

    def of(self, step: SentStep, message: dict[str, Any], rendered: bool) -> int:
        # A user template may show this turn's message in other words than later turns do.
        name = f"{TOKENIZER} rendered" if rendered else TOKENIZER
        tokens = step.token_counts.get(name)
        if tokens is None:
            tokens = self._count(_words(message)) + TOKENS_PER_MESSAGE
            self._news[step.pk] = {**step.token_counts, name: tokens}
        return tokens

    def keep(self) -> None:
        if self._news:
            _keep(self._news)


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
    return window_steps(
        prepared.Given("chat", ChatHistory._meta.pk),
        first=prepared.Given("first", position),
        last=prepared.Given("last", position),
        system_id=prepared.Given("system", Message._meta.pk),
        columns=SentStep._fields,
    )
