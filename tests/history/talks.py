"""Chats of many kinds of turns, written as the runtime leaves them, and a turn that runs on each."""

from __future__ import annotations

import json
from typing import Any

from llm_wrapper.history.state import TurnState
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptVersion, Turn

KINDS = ("plain", "plain", "tools", "repaired", "failed", "replaced", "cut off", "new system", "widget")
WORDS = ["order", "refund", "parcel", "Tuesday", "naïve", "漢字", "coffee", "invoice", "blue", "42", "customer"]


class Talk:
    """A chat that grows in memory; `save` writes it."""

    def __init__(self, random: Any, *, longest: int = 12) -> None:
        self.random, self.longest = random, longest
        self.chat = ChatHistory.objects.create()
        self.steps: list[Message] = []
        self.system: Message | None = None
        self.turns = 0

    @property
    def position(self) -> int:
        return len(self.steps)

    def words(self) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(self.random.randint(1, self.longest)))

    def step(self, type: str, text: str | None = None, **values: Any) -> Message:
        text = self.words() if text is None else text
        step = Message(chat=self.chat, position=self.position + 1, type=type, text=text, **values)
        self.steps.append(step)
        if type == "system":
            self.system = step
        return step

    def turn(self, **values: Any) -> Turn:
        self.turns += 1
        return Turn.objects.create(chat=self.chat, number=self.turns, **{"status": "done", **values})

    def asks(self, turn: Turn, *, template: bool = False) -> Message:
        text = self.words()
        return self.step("user", text, turn=turn, rendered_text=f"The customer says: {text}" if template else None)

    def calls_tools(self, turn: Turn) -> None:
        names = [f"call_{self.position}_{number}" for number in range(self.random.randint(1, 3))]
        calls = [
            {
                "id": name,
                "type": "function",
                "function": {"name": "look", "arguments": json.dumps({"for": self.words()})},
            }
            for name in names
        ]
        self.step("assistant", "", turn=turn, payload={"tool_calls": calls})
        for name in names:
            self.step("tool", turn=turn, payload={"tool_call_id": name, "name": "look"})

    def add(self, kind: str, *, template: bool = False) -> None:
        """One turn that has ended."""
        turn = self.turn()
        if kind == "new system":
            self.step("system", turn=turn)
        begun = self.position
        self.asks(turn, template=template)
        if kind == "failed":
            self.steps[-1].left_context_at = self.position + 1
            return
        if kind == "tools":
            for _ in range(self.random.randint(1, 2)):
                self.calls_tools(turn)
        if kind == "repaired":
            self.step("assistant", turn=turn)
            self.step("user", turn=turn, payload={"system_generated": True, "show_in_user_history": False})
        if kind == "widget":
            self.step("widget", turn=turn)
        self.step("assistant", turn=turn, payload={"incomplete": True} if kind == "cut off" else {})
        if kind == "replaced":
            again = self.turn(replaces=turn)
            asked = self.asks(again, template=template)
            for step in self.steps[begun : asked.position - 1]:
                step.left_context_at = asked.position
            self.step("assistant", turn=again)

    def run(self, *, template: bool = False, rounds: int = 0) -> TurnState:
        """Write all, with a running turn at the end that has made so many rounds of tool calls."""
        turn = self.turn(status="running")
        asked = self.asks(turn, template=template)
        for _ in range(rounds):
            self.calls_tools(turn)
        Message.objects.bulk_create(self.steps, batch_size=500)
        self.chat.system_message, self.chat.last_position = self.system, self.position
        self.chat.save()
        return TurnState(
            turn=turn,
            fence=1,
            chat_id=self.chat.pk,
            position=self.position,
            system_message_id=self.system.pk if self.system else None,
            user_message=asked,
        )


def a_talk(random: Any, *, turns: int, template: bool = False, pinned: bool = True) -> Talk:
    """A chat of so many turns that have ended, of all kinds."""
    talk = Talk(random)
    if random.random() < 0.8:
        talk.step("system")
    if pinned and random.random() < 0.5:
        for type in random.choice([["assistant"], ["user", "assistant"]]):
            talk.step(type, pinned=True, payload={"system_generated": True, "show_in_user_history": False})
    if random.random() < 0.3:
        talk.step("assistant")  # added by the project's own code, before any turn
    for _ in range(turns):
        talk.add(random.choice(KINDS), template=template)
    return talk


def recorded(state: TurnState, window: Any, *, replay_rendered: bool = False) -> LLMCall:
    """The row of a call that sends the window, read anew."""
    number = LLMCall.objects.count() + 1
    version = PromptVersion.objects.create(
        name="any", number=number, digest="", content={"replay_rendered": replay_rendered}
    )
    call = LLMCall.objects.create(
        turn=state.turn,
        attempt=number,
        config_name="demo",
        model="demo/demo",
        prompt_version=version,
        first_position=window.first_position,
        last_position=state.position,
        system_message_id=state.system_message_id,
    )
    return LLMCall.objects.get(pk=call.pk)
