"""Proof that rows, transcript and counters of a chat agree."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Q, Sum

from llm_wrapper.models import ChatHistory, LLMCall, Message

COUNTERS = ("last_position", "turn_count", "input_tokens_count", "output_tokens_count", "cost", "unpriced_calls")


def differences(chat: ChatHistory) -> Iterator[str]:
    """What does not agree in a chat, in words; nothing where all is well."""
    positions = list(chat.messages.order_by("position").values_list("position", flat=True))
    if positions != list(range(1, len(positions) + 1)):
        yield f"the steps' positions have gaps: {len(positions)} steps up to position {max(positions, default=0)}"
    for name, value in counted(chat).items():
        if getattr(chat, name) != value:
            yield f"{name} is {getattr(chat, name)}, the rows say {value}"
    if chat.chat_history != transcript(chat):
        yield f"the transcript's {len(chat.chat_history)} entries are not those of the rows"


def counted(chat: ChatHistory) -> dict[str, Any]:
    """The counters as the rows say."""
    # A failed call counts where the provider said what it took.
    answered, reported = Q(status=LLMCall.Status.DONE), Q(input_tokens__isnull=False) | Q(output_tokens__isnull=False)
    counting = LLMCall.objects.filter(answered | reported, turn__chat=chat)
    sums = counting.aggregate(
        input_tokens_count=Sum("input_tokens"),
        output_tokens_count=Sum("output_tokens"),
    )
    costs = list(counting.values_list("cost", flat=True))  # summed here: SQLite would sum floats
    newest = chat.messages.order_by("-position").values_list("position", flat=True).first()
    return {
        "last_position": newest or 0,
        "turn_count": chat.turns.count(),
        "input_tokens_count": sums["input_tokens_count"] or 0,
        "output_tokens_count": sums["output_tokens_count"] or 0,
        "cost": sum((cost for cost in costs if cost is not None), Decimal(0)),
        "unpriced_calls": costs.count(None),
    }


def transcript(chat: ChatHistory) -> list[dict[str, Any]]:
    """The transcript that the rows make, from where the chat's own begins."""
    steps = Message.objects.filter(chat=chat, position__gte=chat.transcript_start).order_by("position")
    return [step.entry() for step in steps]


@transaction.atomic
def rebuild(chat_id: int) -> None:
    """Write the transcript and the counters anew from the rows."""
    chat = ChatHistory.objects.select_for_update().get(pk=chat_id)
    for name, value in counted(chat).items():
        setattr(chat, name, value)
    chat.chat_history = transcript(chat)
    chat.save(update_fields=[*COUNTERS, "chat_history"])
