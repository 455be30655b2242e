"""What is kept of conversations: chats, turns and steps. Rows are the truth, the transcript is made of them."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models

from .prompts import PromptTemplate


class ChatHistory(models.Model):
    """One conversation."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        COMPLETED = "completed"
        ARCHIVED = "archived"

    public_id = models.UUIDField(
        default=uuid.uuid4, unique=True, editable=False, help_text="The id used in URLs; cannot be guessed."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="llm_chats"
    )
    prompt_template = models.ForeignKey(
        PromptTemplate, null=True, blank=True, on_delete=models.SET_NULL, related_name="chats"
    )
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    title = models.CharField(max_length=200, blank=True, default="")
    chat_history = models.JSONField(
        default=list, blank=True, help_text="The transcript: its newest entries, one per step."
    )
    current_context_variables = models.JSONField(
        default=dict, blank=True, help_text="Remembered context variables: those that the templates use."
    )
    llm_config_name = models.CharField(
        max_length=100, blank=True, default="", help_text="The config that this chat stays with while it can."
    )
    last_position = models.PositiveIntegerField(default=0, help_text="Position of the newest step.")
    transcript_start = models.PositiveIntegerField(
        default=1, help_text="Position of the oldest step that the transcript still holds."
    )
    system_message = models.ForeignKey(
        "Message",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The one in force.",
    )
    turn_count = models.PositiveIntegerField(default=0)
    input_tokens_count = models.PositiveBigIntegerField(default=0)
    output_tokens_count = models.PositiveBigIntegerField(default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=10, default=0, help_text="Sum of the known costs.")
    unpriced_calls = models.PositiveIntegerField(
        default=0, help_text="Answered calls whose cost is unknown, so that `cost` is a lower bound."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "chat"
        ordering = ["-updated_at", "-id"]
        indexes = [models.Index(fields=["user", "-updated_at"], name="llmw_chat_user")]

    def __str__(self) -> str:
        return self.title or f"Chat {self.pk}"

    def full_history(self) -> list[dict[str, Any]]:
        """Every step of the chat as transcript entries, also those the transcript no longer holds."""
        return [message.entry() for message in self.messages.order_by("position").select_related("llm_call")]


class Turn(models.Model):
    """One user message up to the final answer."""

    class Status(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    chat = models.ForeignKey(ChatHistory, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.RUNNING)
    idempotency_key = models.CharField(max_length=200, null=True, blank=True)
    fence = models.PositiveIntegerField(
        default=1, help_text="Number of the worker that runs the turn; one that was replaced cannot write any more."
    )
    lease_expires_at = models.DateTimeField(null=True, help_text="A running turn past this time counts as crashed.")
    stop_requested_at = models.DateTimeField(
        null=True, blank=True, help_text="Somebody asked to stop the turn; its worker ends it at its next write."
    )
    replaces = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="replaced_by",
        help_text="The turn whose answer this one gives anew.",
    )
    error_code = models.CharField(max_length=50, blank=True, default="")
    error_message = models.TextField(blank=True, default="")
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["chat", "number"]
        constraints = [
            models.UniqueConstraint(fields=["chat", "number"], name="llmw_turn_number"),
            models.UniqueConstraint(fields=["chat", "idempotency_key"], name="llmw_turn_idempotency_key"),
            # The database itself refuses a second running turn on a chat.
            models.UniqueConstraint(
                fields=["chat"], condition=models.Q(status="running"), name="llmw_one_running_turn"
            ),
        ]

    def __str__(self) -> str:
        return f"Turn {self.number} of chat {self.chat_id}"


class Message(models.Model):
    """One step of a conversation."""

    class Type(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"
        SYSTEM = "system"
        TOOL = "tool"
        WIDGET = "widget"
        SUMMARY = "summary"

    chat = models.ForeignKey(ChatHistory, on_delete=models.CASCADE, related_name="messages")
    turn = models.ForeignKey(Turn, null=True, blank=True, on_delete=models.CASCADE, related_name="messages")
    position = models.PositiveIntegerField()
    type = models.CharField(max_length=10, choices=Type.choices)
    text = models.TextField(blank=True, default="")
    rendered_text = models.TextField(
        null=True, blank=True, help_text="A user message as the user template rendered it, where it has one."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="llm_messages",
    )
    payload = models.JSONField(
        default=dict,
        blank=True,
        help_text="What a step holds besides its text: tool_calls, tool_call_id, name, context_vars, "
        "system_generated, show_in_user_history, incomplete.",
    )
    llm_call = models.ForeignKey("LLMCall", null=True, blank=True, on_delete=models.SET_NULL, related_name="answers")
    tokens = models.PositiveIntegerField(null=True, blank=True)
    cost = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)
    thumb = models.SmallIntegerField(null=True, blank=True, choices=[(1, "up"), (-1, "down")])
    comment = models.TextField(blank=True, default="", help_text="What the user wrote about the answer.")
    token_counts = models.JSONField(
        default=dict, blank=True, editable=False, help_text="Tokens of the step as counted here, by tokenizer."
    )
    pinned = models.BooleanField(default=False, help_text="Sent with every call, whatever the window.")
    left_context_at = models.PositiveIntegerField(
        null=True, blank=True, help_text="Calls at or after this position no longer send the step."
    )
    date_created = models.DateTimeField(auto_now_add=True)
    date_updated = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "step"
        ordering = ["chat", "position"]
        constraints = [models.UniqueConstraint(fields=["chat", "position"], name="llmw_message_position")]
        indexes = [
            models.Index(fields=["chat", "position"], condition=models.Q(pinned=True), name="llmw_message_pinned")
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.position}: {self.text[:60]}"

    def entry(self) -> dict[str, Any]:
        """The step as the transcript shows it; keys that do not apply are absent."""
        entry: dict[str, Any] = {
            "id": self.pk,
            "role": self.type,
            "content": self.text,
            "timestamp": round(self.date_created.timestamp(), 1),
            **self.payload,
        }
        if self.thumb is not None:
            entry["thumb"] = self.thumb
        return entry

    def provider_message(self, *, rendered: bool) -> dict[str, Any]:
        """The step in OpenAI's format, as it is sent to a model."""
        return provider_message(self, rendered=rendered)


def provider_message(step: Any, *, rendered: bool) -> dict[str, Any]:
    """A step, given as a row or as its columns, in OpenAI's format."""
    text = step.rendered_text if rendered and step.rendered_text is not None else step.text
    if step.type == Message.Type.SUMMARY:
        # The user's words went into it, so it must not speak with the authority of the system prompt.
        return {"role": "user", "content": f"Summary of the earlier part of this conversation:\n{text}"}
    message: dict[str, Any] = {"role": step.type, "content": text}
    for key in ("tool_calls", "tool_call_id", "name"):
        if key in step.payload:
            message[key] = step.payload[key]
    if message.get("tool_calls") and not text:
        message["content"] = None
    return message
