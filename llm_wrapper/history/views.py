"""Conversations as people and callers see them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q
from django.db.models.functions import Now

from llm_wrapper.errors import CannotRegenerate, TurnFailedBefore
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.models.journal import provider_messages, sent_steps
from llm_wrapper.types import LLMReply, Usage

from .database import stage
from .transcript import SetInEntry


def processed_messages(chat: ChatHistory, *, with_tools: bool = False) -> list[dict[str, Any]]:
    """The chat as a chat window shows it: `{"message", "type": "user" | "bot", "tool_data", "id", "thumb"}`.

    System steps, tool steps and what was not meant for the user are left out. A JSON answer with a `message` key
    shows that key. `tool_data` lists the tool calls before the answer, only with `with_tools` (for staff: arguments
    and results may be internal).
    """
    shown: list[dict[str, Any]] = []
    used: list[dict[str, Any]] = []
    for step in chat.messages.order_by("position"):
        if step.type == Message.Type.USER:
            used = []
        if step.type == Message.Type.ASSISTANT and step.payload.get("tool_calls"):
            used += [{"id": call["id"], **call["function"], "result": None} for call in step.payload["tool_calls"]]
            if not step.text:
                continue
        if step.type == Message.Type.TOOL:
            for call in used:
                if call["id"] == step.payload.get("tool_call_id"):
                    call["result"] = step.text
        if step.type not in (Message.Type.USER, Message.Type.ASSISTANT):
            continue
        if step.payload.get("show_in_user_history") is False:
            continue
        is_bot = step.type == Message.Type.ASSISTANT
        shown.append(
            {
                "message": _shown_text(step.text) if is_bot else step.text,
                "type": "bot" if is_bot else "user",
                "tool_data": (used or None) if with_tools and is_bot else None,
                "id": step.pk,
                "thumb": step.thumb,
            }
        )
    return shown


def _shown_text(text: str) -> str:
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return value["message"]
    return text


def context_of(chat: ChatHistory) -> list[dict[str, Any]]:
    """The messages that a call made now would send, in OpenAI's format and without a window."""
    # A call covers its own message, too: one that left the context with the newest step is out of it by then.
    steps = sent_steps(chat.pk, first=1, last=chat.last_position + 1, system_id=chat.system_message_id)
    return provider_messages(steps, turn_id=0, replay_rendered=False)


@stage
def rate(chat_id: int, message_id: int, thumb: int | None) -> bool:
    """Set a thumb (1, -1, or None to take it back) on an answer; False where the chat has no such answer."""
    if thumb not in (1, -1, None):
        raise ValueError(f"thumb must be 1, -1 or None, not {thumb!r}.")
    # Written first, which takes the lock; the chat's row then, so that no step moves the transcript's end meanwhile.
    answers = Message.objects.filter(pk=message_id, chat_id=chat_id, type=Message.Type.ASSISTANT)
    if not answers.update(thumb=thumb, date_updated=Now()):
        return False
    last = ChatHistory.objects.select_for_update().values_list("last_position", flat=True).get(pk=chat_id)
    step = answers.only("position").get()
    ChatHistory.objects.filter(pk=chat_id).update(chat_history=SetInEntry(last - step.position + 1, "thumb", thumb))
    return True


def newest_question(chat_id: int) -> Message:
    """The user's message that was asked last. Raises CannotRegenerate where there is none."""
    asked = Message.objects.filter(chat=chat_id, type=Message.Type.USER, turn__isnull=False)
    # What a turn asks of the model by itself, like the repair of an answer, is a user message, too.
    asked = asked.exclude(payload__has_key="system_generated").select_related("turn")
    newest = asked.order_by("-position").first()
    if newest is None:
        raise CannotRegenerate("The chat has no message that could be answered anew. Send one.")
    # Where answering it anew failed, the question is the one whose answer came back.
    while newest.left_context_at is not None and newest.turn is not None and newest.turn.replaces_id is not None:
        newest = asked.filter(turn=newest.turn.replaces_id).earliest("position")
    return newest


def thumbs_counts(chat: ChatHistory) -> dict[str, int]:
    return chat.messages.aggregate(
        thumbs_up=Count("pk", filter=Q(thumb=1)), thumbs_down=Count("pk", filter=Q(thumb=-1))
    )


def stored_reply(turn: Turn) -> LLMReply:
    """The reply of a turn that has ended, as it was given then. Raises TurnFailedBefore for one without."""
    answer = turn.messages.filter(type=Message.Type.ASSISTANT).order_by("position").last()
    if turn.status != Turn.Status.DONE or answer is None:
        raise TurnFailedBefore(
            f"This message was sent before with the same idempotency key and failed ({turn.error_code}: "
            f"{turn.error_message}). Send it with a new key to try again."
        )
    calls = list(turn.llm_calls.filter(status=LLMCall.Status.DONE))
    counts = {
        name: _total(getattr(call, name) for call in calls)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    }
    costs = [call.cost for call in calls if call.cost is not None]
    return LLMReply(
        answer.text,
        id=answer.pk,
        turn=turn,
        chat_id=turn.chat_id,
        tool_calls=[
            {
                "id": row.provider_id,
                "name": row.tool,
                "arguments": row.arguments,
                "status": row.status,
                "content": row.result,
            }
            for row in turn.tool_calls.all()
        ],
        usage=Usage(**counts),
        cost=sum(costs, Decimal(0)) if len(costs) == len(calls) else None,
        config_name=answer.payload.get("llm_config_name", ""),
    )


def _total(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
