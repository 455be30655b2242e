"""Chats, turns and steps: read-only, and shown as the conversation that they are."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import F, Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn

from . import formats, transcript
from .base import ReadOnlyAdmin, badge, row_link, row_url


def _position(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 12 else None


@admin.register(ChatHistory)
class ChatHistoryAdmin(ReadOnlyAdmin):
    """Conversations. The delete permission allows to delete one with everything that belongs to it."""

    actions = ()
    change_form_template = "admin/llm_wrapper/chat.html"
    list_display = (
        "chat",
        "user",
        "prompt",
        "config",
        "last_turn",
        "steps",
        "tokens",
        "total_cost",
        "updated_at",
    )
    list_filter = ("status", "prompt_template", "llm_config_name", "updated_at")
    search_fields = ("title", "public_id", "user__username", "prompt_template__name")
    search_help_text = "Title, id, user or prompt"
    list_select_related = ("user", "prompt_template")
    ordering = ("-updated_at", "-id")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        codename = f"{self.opts.app_label}.delete_{self.opts.model_name}"
        return bool(request.user.has_perm(codename))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChatHistory]:
        last = Turn.objects.filter(chat=OuterRef("pk")).order_by("-number").values("status")[:1]
        # The transcript may be large, and no page here shows it: rows are the truth.
        return super().get_queryset(request).annotate(last_status=Subquery(last)).defer("chat_history")

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """What goes with a chat, counted: its rows have no delete permission of their own, and are many."""
        chats = [chat.pk for chat in objs]
        counts = {
            "chats": len(chats),
            "turns": Turn.objects.filter(chat__in=chats).count(),
            "steps": Message.objects.filter(chat__in=chats).count(),
            "LLM calls": LLMCall.objects.filter(turn__chat__in=chats).count(),
            "tool calls": ToolCall.objects.filter(turn__chat__in=chats).count(),
        }
        return [str(chat) for chat in objs], counts, set(), []

    def shown(self, request: HttpRequest, obj: ChatHistory) -> dict[str, Any]:
        variables = obj.current_context_variables
        return {
            "page": transcript.page(obj, _position(request.GET.get("before"))),
            "facts": chat_facts(obj),
            "variables": formats.pretty(variables) if variables else "",
        }

    @admin.display(description="chat", ordering="title")
    def chat(self, chat: ChatHistory) -> str:
        return str(chat)

    @admin.display(description="prompt", ordering="prompt_template__name")
    def prompt(self, chat: ChatHistory) -> str:
        return str(chat.prompt_template or "-")

    @admin.display(description="config", ordering="llm_config_name")
    def config(self, chat: ChatHistory) -> str:
        return chat.llm_config_name or "-"

    @admin.display(description="last turn")
    def last_turn(self, chat: ChatHistory) -> SafeString | str:
        return badge(getattr(chat, "last_status", None) or "")

    @admin.display(description="steps", ordering="last_position")
    def steps(self, chat: ChatHistory) -> str:
        return formats.count(chat.last_position)

    @admin.display(description="tokens in / out", ordering=F("input_tokens_count") + F("output_tokens_count"))
    def tokens(self, chat: ChatHistory) -> str:
        return f"{formats.count(chat.input_tokens_count)} / {formats.count(chat.output_tokens_count)}"

    @admin.display(description="cost", ordering="cost")
    def total_cost(self, chat: ChatHistory) -> str:
        return formats.cost(chat.cost, chat.unpriced_calls)


def chat_facts(chat: ChatHistory) -> list[tuple[str, Any]]:
    """The head of a chat's page: name and value of each fact."""
    tokens = f"{formats.count(chat.input_tokens_count)} in, {formats.count(chat.output_tokens_count)} out"
    return [
        ("User", str(chat.user) if chat.user else "anonymous"),
        ("Prompt", row_link(chat.prompt_template)),
        ("Config", chat.llm_config_name or "-"),
        ("Turns", formats.count(chat.turn_count)),
        ("LLM calls", calls_link(chat)),
        ("Steps", formats.count(chat.last_position)),
        ("Tokens", tokens),
        ("Cost", formats.cost(chat.cost, chat.unpriced_calls)),
        ("Started", chat.created_at),
        ("Last update", chat.updated_at),
        ("Public id", chat.public_id),
    ]


def calls_link(chat: ChatHistory) -> SafeString:
    calls = reverse("admin:llm_wrapper_llmcall_changelist")
    return format_html('<a class="llmw-link" href="{}?q={}">all of this chat</a>', calls, chat.public_id)


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    """Turns: where to look for those that failed."""

    change_form_template = "admin/llm_wrapper/turn.html"
    list_display = ("turn", "chat_link", "state", "error_code", "started_at", "took")
    list_filter = ("status", "error_code", "started_at")
    search_fields = ("chat__title", "chat__public_id", "error_message")
    search_help_text = "Chat, or text of the error"
    list_select_related = ("chat",)
    ordering = ("-started_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turn]:
        return super().get_queryset(request).defer("chat__chat_history")

    def shown(self, request: HttpRequest, obj: Turn) -> dict[str, Any]:
        steps = obj.messages.select_related("llm_call", "user").order_by("position")
        return {
            "blocks": transcript.blocks(list(steps)),
            "facts": [
                ("Chat", row_link(obj.chat, anchor=f"#turn-{obj.number}")),
                ("Turn", obj.number),
                ("Status", badge(obj.status)),
                ("Started", obj.started_at),
                ("Took", _took(obj)),
                ("Answers anew", row_link(obj.replaces)),
                ("Answered anew by", row_link(obj.replaced_by.order_by("number").last())),
                ("Idempotency key", obj.idempotency_key or "-"),
            ],
        }

    @admin.display(description="turn", ordering="number")
    def turn(self, turn: Turn) -> str:
        return f"Turn {turn.number}"

    @admin.display(description="chat", ordering="chat")
    def chat_link(self, turn: Turn) -> SafeString | str:
        return row_link(turn.chat, anchor=f"#turn-{turn.number}")

    @admin.display(description="status", ordering="status")
    def state(self, turn: Turn) -> SafeString | str:
        return badge(turn.status)

    @admin.display(description="took")
    def took(self, turn: Turn) -> str:
        return _took(turn)


def _took(turn: Turn) -> str:
    if turn.finished_at is None:
        return "-"
    return formats.seconds((turn.finished_at - turn.started_at).total_seconds())


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Steps of all chats: where to search for words and for thumbs. A step opens in its chat."""

    list_display = ("step", "type", "chat_link", "thumbs", "tokens", "price", "date_created")
    list_filter = ("type", "thumb", "date_created")
    search_fields = ("text",)
    search_help_text = "Text of a step"
    list_select_related = ("chat",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).defer("chat__chat_history", "payload", "rendered_text")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        step = self.get_object(request, object_id)
        if request.method != "GET" or step is None or not self.has_view_permission(request, step):
            return super().change_view(request, object_id, form_url, extra_context)
        return HttpResponseRedirect(step_url(step))

    @admin.display(description="step", ordering="position")
    def step(self, step: Message) -> str:
        text = " ".join(step.text[:200].split())
        return f"{text[:80]}…" if len(text) > 80 else text or f"({step.type})"

    @admin.display(description="chat", ordering="chat")
    def chat_link(self, step: Message) -> SafeString:
        return format_html('<a class="llmw-link" href="{}">{}</a>', step_url(step), step.chat)

    @admin.display(description="thumb", ordering="thumb")
    def thumbs(self, step: Message) -> SafeString | str:
        return badge(f"thumb {step.get_thumb_display()}") if step.thumb else ""

    @admin.display(description="cost", ordering="cost")
    def price(self, step: Message) -> str:
        return formats.cost(step.cost) if step.type == Message.Type.ASSISTANT else ""


def step_url(step: Message) -> str:
    """Where a step stands in its chat, with what was said before and after it."""
    before = step.position + transcript.PAGE_SIZE // 2
    return f"{row_url(step.chat)}?before={before}#step-{step.position}"
