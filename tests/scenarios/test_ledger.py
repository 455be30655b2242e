"""Many turns of all kinds against a provider that keeps its own books: its sums are those of the database.

The provider speaks HTTP on loopback and writes down what each answer took, in whole tokens, and whether it told the
caller. Prices are from YAML, with digits that floats do not hold.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone

from llm_wrapper import configs, costs, errors, events
from llm_wrapper.chat import Chat
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, PromptTemplate, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from tests.transport.provider import endless, fails, message, sends, streams, text_chunks, tool_call

from .upstream import Upstream

pytestmark = pytest.mark.django_db

PRICE = {"input": "0.1234567891", "output": "7.3", "cached_input": "0.0123"}
MILLION = 1_000_000


@dataclass
class Ledger:
    """What the provider took for each of its answers; `told` those whose usage it reported."""

    told: list[tuple[int, int, int]] = field(default_factory=list)
    untold: int = 0

    @property
    def tokens(self) -> tuple[int, int]:
        return sum(sent for sent, _, _ in self.told), sum(out for _, _, out in self.told)

    @property
    def cost(self) -> Decimal:
        price = {name: Decimal(value) for name, value in PRICE.items()}
        total = Decimal(0)
        for sent, cached, out in self.told:
            cost = price["input"] * (sent - cached) + price["cached_input"] * cached + price["output"] * out
            total += (cost / MILLION).quantize(Decimal("1e-10"))
        return total


class Books:
    """A provider that answers as the test says next, and writes down who took what."""

    def __init__(self, upstream: Upstream, chance: random.Random) -> None:
        self.upstream, self.chance = upstream, chance
        self.of: dict[str, Ledger] = {}
        self.who = ""
        self.number = 0

    def took(self) -> dict[str, Any]:
        """Usage for one answer, entered into the books."""
        sent, out = self.chance.randint(20, 90_000), self.chance.randint(1, 4_000)
        cached = self.chance.choice([0, 0, self.chance.randint(0, sent)])
        self.ledger.told.append((sent, cached, out))
        return {
            "prompt_tokens": sent,
            "completion_tokens": out,
            "total_tokens": sent + out,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    @property
    def ledger(self) -> Ledger:
        return self.of.setdefault(self.who, Ledger())

    def words(self) -> str:
        self.number += 1
        return f"answer number {self.number} with some words"

    def says(self) -> Any:
        words = self.words()
        return self._either(words, usage=self.took())

    def keeps_quiet(self) -> Any:
        """An answer without usage."""
        self.ledger.untold += 1
        return self._either(self.words(), usage=None)

    def _either(self, words: str, usage: Any) -> Any:
        def answer(handler: Any) -> None:
            if handler.server.requests[-1]["body"].get("stream"):
                pieces = [piece + " " for piece in words.split(" ")]
                streams(*text_chunks(*pieces, usage=usage))(handler)
            else:
                handler.whole(message(words, usage=usage))

        return answer

    def asks_for_tool(self) -> Any:
        self.number += 1
        call = tool_call("order_state", '{"order": 1}', id=f"call_{self.number}")
        return sends(message(None, finish="tool_calls", tool_calls=[call], usage=self.took()))

    def empty(self) -> Any:
        """An answer that cannot be used, and is billed."""
        return sends(message("", usage=self.took()))


class Turns:
    """Turns of every kind by several users, each in chats of its own."""

    def __init__(self, upstream: Upstream, chance: random.Random, make_prompt: Any, make_tool: Any) -> None:
        self.books, self.upstream, self.chance = Books(upstream, chance), upstream, chance
        upstream.add("priced", price=PRICE)
        upstream.add("no price", model_name="unheard-of")
        tool = make_tool("tests.host_tools.order_state")
        make_prompt("plain", configs=["priced"])
        make_prompt("tools", configs=["priced"], tools=[tool])
        make_prompt("summed", configs=["priced"], history_window=4, summarise_left_out=True)
        make_prompt("unpriced", configs=["no price"])
        users = get_user_model().objects
        self.users = [users.create(username=name) for name in ("ada", "bob", "eve")]
        self.wrappers: dict[tuple[Any, str], LLMCommunicationWrapper] = {}
        self.chats: dict[Any, Chat] = {}
        self.done: Counter[str] = Counter()
        self.free: list[tuple[int, int, int]] = []
        self.unpriced_calls = 0

    def wrapper(self, user: Any, prompt: str) -> LLMCommunicationWrapper:
        if (user, prompt) not in self.wrappers or self.chance.random() < 0.05:
            self.wrappers[user, prompt] = LLMCommunicationWrapper(prompt_name=prompt, user=user)
        return self.wrappers[user, prompt]

    def answers(self, *answers: Any, model: str = "priced") -> None:
        self.upstream.answers[model] = list(answers)

    def run(self, number: int) -> None:
        kinds = [name.removeprefix("turn_") for name in dir(self) if name.startswith("turn_")]
        for turn in range(number):
            kind = kinds[turn % len(kinds)] if turn < len(kinds) else self.chance.choice(kinds)
            user = self.chance.choice(self.users)
            self.books.who = user.username
            getattr(self, f"turn_{kind}")(user)
            configs.warm_up("priced")  # some turns fail in ways that let a config rest
            self.done[kind] += 1
        assert set(self.done) == set(kinds)

    # -- kinds -------------------------------------------------------------------------------------------

    def turn_plain(self, user: Any) -> None:
        self.answers(self.books.says())
        self.wrapper(user, "plain").send_user_message_and_get_response("hi")

    def turn_streamed(self, user: Any) -> None:
        self.answers(self.books.says())
        list(self.wrapper(user, "plain").stream_user_message("hi"))

    def turn_tool(self, user: Any) -> None:
        rounds = self.chance.randint(1, 3)
        self.answers(*[self.books.asks_for_tool() for _ in range(rounds)], self.books.says())
        reply = self.wrapper(user, "tools").send_user_message_and_get_response("hi", {"user_id": 1})
        assert reply.usage.input_tokens == sum(sent for sent, _, _ in self.books.ledger.told[-rounds - 1 :])

    def turn_refused(self, user: Any) -> None:
        self.answers(fails(400, "No."))
        with pytest.raises(errors.ProviderError):
            self.wrapper(user, "plain").send_user_message_and_get_response("hi")
        self.books.ledger.untold += 1

    def turn_failed_with_usage(self, user: Any) -> None:
        self.answers(self.books.empty())
        with pytest.raises(errors.InvalidProviderResponse):
            self.wrapper(user, "plain").send_user_message_and_get_response("hi")

    def turn_without_usage(self, user: Any) -> None:
        self.answers(self.books.keeps_quiet())
        reply = self.wrapper(user, "plain").send_user_message_and_get_response("hi")
        assert reply.cost is None
        self.unpriced_calls += 1

    def turn_cut_off(self, user: Any) -> None:
        """The connection breaks before the usage comes."""
        self.answers(streams(*text_chunks("one ", "two ", usage=None)[:-1], cut=True))
        with pytest.raises(errors.ProviderError):
            list(self.wrapper(user, "plain").stream_user_message("hi"))
        self.books.ledger.untold += 1

    def turn_cancelled(self, user: Any) -> None:
        """The caller goes away in the middle; what the provider has taken by then it tells nobody."""
        self.answers(endless())
        stream = self.wrapper(user, "plain").stream_user_message("hi")
        for event in stream:
            if isinstance(event, events.TextDelta) and event.number == 3:
                break
        stream.close()
        self.books.ledger.untold += 1

    def turn_cached(self, user: Any) -> None:
        """The same request twice, which is made and billed once."""
        words = f"question {self.books.number}"
        self.answers(self.books.says())
        for _ in range(2):
            chat = Chat.create(user=user)
            answer = chat.call_llm("priced", words, user=user, use_cache=True)
        assert answer.llm_call.cache_hit

    def turn_summed_up(self, user: Any) -> None:
        """Each answer comes with usage; so does a summary where the chat is full."""
        calls, waiting = LLMCall.objects.count(), [self.books.says() for _ in range(2)]
        self.answers(*waiting)
        self.wrapper(user, "summed").send_user_message_and_get_response("hi")
        if LLMCall.objects.count() - calls == 1:
            self.books.ledger.told.pop()  # no summary was needed

    def turn_without_price(self, user: Any) -> None:
        """Tokens are known, and what they cost is not."""
        told = self.books.ledger.told
        self.answers(self.books.says(), model="unheard-of")
        self.wrapper(user, "unpriced").send_user_message_and_get_response("hi")
        self.free.append(told.pop())
        self.unpriced_calls += 1

    # -- proof -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Chats, users, the day and the calls say what the provider's books say, to the last digit."""
        books = self.books.of
        cost = sum((ledger.cost for ledger in books.values()), Decimal(0))
        told = [ledger.tokens for ledger in books.values()]
        tokens_in = sum(sent for sent, _ in told) + sum(sent for sent, _, _ in self.free)
        tokens_out = sum(out for _, out in told) + sum(out for _, _, out in self.free)

        calls = list(LLMCall.objects.select_related("user", "turn"))
        assert sum(call.input_tokens or 0 for call in calls) == tokens_in
        assert sum(call.output_tokens or 0 for call in calls) == tokens_out
        assert sum((call.cost for call in calls if call.cost is not None), Decimal(0)) == cost
        unknown = [call for call in calls if call.input_tokens is None or call.output_tokens is None]
        assert len(unknown) == sum(ledger.untold for ledger in books.values())
        assert all(call.cost is None for call in unknown)
        assert Counter(call.status for call in unknown) == {
            "failed": self.done["refused"] + self.done["cut_off"],
            "cancelled": self.done["cancelled"],
            "done": self.done["without_usage"],
        }
        assert not [call for call in calls if call.cost == 0 and not call.cache_hit]
        assert sum(call.cache_hit for call in calls) == self.done["cached"]

        for user in self.users:
            own = [call for call in calls if call.user == user]
            assert sum((call.cost for call in own if call.cost is not None), Decimal(0)) == books[user.username].cost
        assert all(call.user is not None for call in calls)

        chats = list(ChatHistory.objects.all())
        assert sum((chat.cost for chat in chats), Decimal(0)) == cost
        assert sum(chat.input_tokens_count for chat in chats) == tokens_in
        assert sum(chat.output_tokens_count for chat in chats) == tokens_out
        assert sum(chat.unpriced_calls for chat in chats) == self.unpriced_calls
        for chat in chats:
            assert not list(audit.differences(chat))
        call_command("llm_check_history", verbosity=0)

        today = timezone.localdate()
        by_day = costs.report(today - timedelta(days=1), today, by=("day",))  # two, where midnight was in between
        assert sum((row.cost for row in by_day), Decimal(0)) == cost
        assert sum(row.input_tokens for row in by_day) == tokens_in
        assert sum(row.calls for row in by_day) == len(calls)
        by_user = costs.report(today - timedelta(days=1), today, by=("user",))
        assert {row.user: row.cost for row in by_user} == {name: ledger.cost for name, ledger in books.items()}
        assert not Turn.objects.filter(status="running").exists()
        assert not LLMCall.objects.filter(status="running").exists()


def run(number: int, seed: int, upstream: Upstream, make_prompt: Any, make_tool: Any) -> Turns:
    turns = Turns(upstream, random.Random(seed), make_prompt, make_tool)
    turns.run(number)
    turns.check()
    return turns


def test_150_turns_agree_with_the_providers_books(upstream: Upstream, make_prompt: Any, make_tool: Any) -> None:
    """Plain, streamed, tool, failed (billed or not), cancelled, cached, summed up and unpriced turns of three users:
    tokens and costs are the provider's own, and what it did not tell is unknown, never 0."""
    turns = run(150, 1, upstream, make_prompt, make_tool)
    assert LLMCall.objects.filter(purpose="summary").exists()
    assert PromptTemplate.objects.count() == 4
    assert turns.done.total() == 150


@pytest.mark.chaos
def test_1000_turns_agree_with_the_providers_books(upstream: Upstream, make_prompt: Any, make_tool: Any) -> None:
    """The same for long."""
    run(1000, 2, upstream, make_prompt, make_tool)
