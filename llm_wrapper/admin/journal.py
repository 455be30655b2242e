"""LLM calls and tool calls: for each answer, what exactly was sent, by which route, at what cost."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from llm_wrapper.models import LLMCall, ToolCall, Turn

from . import costs, formats, transcript
from .base import ReadOnlyAdmin, badge, row_link

SENT_PER_PAGE = 100


@admin.register(LLMCall)
class LLMCallAdmin(ReadOnlyAdmin):
    """Requests to models, failed ones too."""

    change_form_template = "admin/llm_wrapper/llm_call.html"
    list_display = (
        "call",
        "purpose",
        "state",
        "model",
        "chat",
        "tokens",
        "price",
        "took",
        "error_code",
        "started_at",
    )
    list_filter = (
        "status",
        "purpose",
        "cache_hit",
        "config_name",
        "model",
        "error_code",
        costs.UnpricedFilter,
        "started_at",
    )
    search_fields = (
        "config_name",
        "model",
        "response_id",
        "error_message",
        "turn__chat__public_id",
        f"user__{get_user_model().USERNAME_FIELD}",
    )
    search_help_text = "Config, model, response id, text of the error, user or public id of the chat"
    list_select_related = ("turn__chat",)
    date_hierarchy = "started_at"
    ordering = ("-started_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[LLMCall]:
        return super().get_queryset(request).defer("turn__chat__chat_history")

    def get_urls(self) -> list[URLPattern]:
        sent = self.admin_site.admin_view(self.sent_view)
        own = path("<int:pk>/sent.json", sent, name="llm_wrapper_llmcall_sent")
        return [own, *costs.urls(self), *super().get_urls()]

    def sent_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The messages that were sent, as JSON."""
        call = self.get_object(request, str(pk))
        if not self.has_view_permission(request, call):
            raise PermissionDenied
        if call is None:
            raise Http404
        return JsonResponse(call.sent_messages(), safe=False, json_dumps_params={"indent": 2})

    def shown(self, request: HttpRequest, obj: LLMCall) -> dict[str, Any]:
        sent = Paginator([SentMessage(message) for message in obj.sent_messages()], SENT_PER_PAGE)
        return {
            "facts": call_facts(obj),
            "sent": sent.get_page(request.GET.get("page")),
            "answers": [transcript.Step(step) for step in obj.answers.order_by("position")],
            "tool_calls": [(row_link(run), run) for run in obj.tool_calls.order_by("id")],
            "route": route_parts(obj.route),
            "request_params": formats.pretty(obj.request_params) if obj.request_params else "",
        }

    @admin.display(description="call", ordering="config_name")
    def call(self, call: LLMCall) -> str:
        return call.config_name

    @admin.display(description="status", ordering="status")
    def state(self, call: LLMCall) -> SafeString | str:
        return badge("cached", title="answered from the response cache") if call.cache_hit else badge(call.status)

    @admin.display(description="chat", ordering="turn__chat")
    def chat(self, call: LLMCall) -> SafeString | str:
        return turn_link(call.turn)

    @admin.display(description="tokens in / out", ordering="input_tokens")
    def tokens(self, call: LLMCall) -> str:
        if call.input_tokens is None and call.output_tokens is None:
            return formats.UNKNOWN
        return f"{formats.count(call.input_tokens)} / {formats.count(call.output_tokens)}"

    @admin.display(description="cost", ordering="cost")
    def price(self, call: LLMCall) -> str:
        return formats.cost(call.cost)

    @admin.display(description="latency", ordering="latency")
    def took(self, call: LLMCall) -> str:
        return formats.seconds(call.latency)


def turn_link(turn: Turn | None) -> SafeString | str:
    """The link to a turn on the page of its chat."""
    if turn is None:
        return "chat deleted"
    return row_link(turn.chat, f"{turn.chat} · turn {turn.number}", anchor=f"#turn-{turn.number}")


class SentMessage:
    """One message as it was sent, made readable; the page links to the exact JSON."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.role = str(message.get("role", ""))
        self.title = str(message.get("name") or self.role) if self.role == "tool" else self.role
        content = message.get("content")
        self.text = content if isinstance(content, str) else formats.pretty(content) if content else ""
        self.result = formats.pretty_text(self.text) if self.role == "tool" else ""
        self.requests = [request for _, request in transcript.requested(message)]


def call_facts(call: LLMCall) -> list[tuple[str, Any]]:
    """The head of a call's page: name and value of each fact."""
    price = formats.cost(call.cost)
    facts = [
        ("Status", badge(call.status)),
        ("Purpose", f"{call.purpose}, from the response cache" if call.cache_hit else call.purpose),
        ("Chat", turn_link(call.turn)),
        ("User", str(call.user) if call.user else "anonymous"),
        ("Call of the turn", call.attempt),
        ("Left out", left_out(call)),
        ("Sums up", summed_up(call)),
        ("Config", call.config_name),
        ("Model", call.model),
        ("Prompt", row_link(call.prompt_version)),
        ("Tokens in", _tokens(call.input_tokens, call.cached_tokens, "cached")),
        ("Tokens out", _tokens(call.output_tokens, call.reasoning_tokens, "for reasoning")),
        ("Cost", f"{price} ({call.price_source})" if call.price_source else price),
        ("Latency", formats.seconds(call.latency)),
        ("First token", formats.seconds(call.time_to_first_token) if call.streamed else "not streamed"),
        ("Finish reason", call.finish_reason),
        ("Response id", call.response_id),
        ("Started", call.started_at),
    ]
    return [(name, value) for name, value in facts if value != ""]


def left_out(call: LLMCall) -> SafeString | str:
    """How many messages had no room, linked to where they stand in the chat; nothing where all had."""
    if not call.left_out:
        return ""
    messages = "message" if call.left_out == 1 else "messages"
    return _earlier(call, f"{formats.count(call.left_out)} {messages} before step {call.first_position}")


def summed_up(call: LLMCall) -> SafeString | str:
    if call.purpose != LLMCall.Purpose.SUMMARY:
        return ""
    return _earlier(call, f"steps {call.first_position} to {call.last_position}", call.last_position + 1)


def _earlier(call: LLMCall, text: str, before: int | None = None) -> SafeString | str:
    """A link to the steps of the call's chat before a position."""
    if call.turn is None:
        return text
    return row_link(call.turn.chat, text, anchor=f"?before={before or call.first_position}")


def _tokens(value: int | None, part: int | None, what: str) -> str:
    text = formats.count(value)
    return f"{text}, {formats.count(part)} of them {what}" if part else text


def route_parts(route: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Why a call went where it went: headings, each with names and values. Plain values come first."""
    if not isinstance(route, dict):
        return []
    plain = [(_words(key), _text(value)) for key, value in route.items() if not isinstance(value, dict)]
    mappings = [
        (_words(key), [(str(name), _text(item)) for name, item in value.items()])
        for key, value in route.items()
        if isinstance(value, dict) and value
    ]
    return [("", plain), *mappings] if plain else mappings


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else formats.pretty(value)


@admin.register(ToolCall)
class ToolCallAdmin(ReadOnlyAdmin):
    """Runs of tools."""

    change_form_template = "admin/llm_wrapper/tool_call.html"
    list_display = ("tool", "state", "chat", "took", "error_code", "created_at")
    list_filter = ("status", "tool", "error_code", "created_at")
    search_fields = ("tool", "arguments", "result", "turn__chat__public_id")
    search_help_text = "Tool, arguments, result or public id of the chat"
    list_select_related = ("turn__chat",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ToolCall]:
        return super().get_queryset(request).defer("turn__chat__chat_history")

    def shown(self, request: HttpRequest, obj: ToolCall) -> dict[str, Any]:
        return {
            "arguments": formats.pretty_text(obj.arguments),
            "result": formats.pretty_text(obj.result),
            "facts": [
                ("Tool", obj.tool),
                ("Status", badge(obj.status)),
                ("Chat", turn_link(obj.turn)),
                ("Asked for by", row_link(obj.llm_call)),
                ("Took", formats.seconds(obj.duration)),
                ("Error", obj.error_code or "-"),
                ("Provider id", obj.provider_id),
                ("Started", obj.created_at),
            ],
        }

    @admin.display(description="status", ordering="status")
    def state(self, run: ToolCall) -> SafeString | str:
        return badge(run.status)

    @admin.display(description="chat", ordering="turn__chat")
    def chat(self, run: ToolCall) -> SafeString | str:
        return turn_link(run.turn)

    @admin.display(description="took", ordering="duration")
    def took(self, run: ToolCall) -> str:
        return formats.seconds(run.duration)
