"""Prompt versions: each readable, compared with the one before it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from llm_wrapper.models import PromptVersion, Tool

from . import formats
from .base import ReadOnlyAdmin, row_link

LABELS = {
    "system": "System prompt template",
    "user": "User prompt template",
    "initial_messages": "Initial messages",
    "required_kwargs": "Required variables",
    "logged_context_vars": "Logged variables",
    "model_params": "Model parameters",
    "history_window": "Messages at most",
    "history_tokens": "Tokens at most",
    "summarise_left_out": "Sum up what is left out",
    "summary_instructions": "Instructions for the summary",
    "replay_rendered": "Replay rendered messages",
}
# difflib's time grows with the square of the size.
MAX_DIFF_LINES = 4000


@admin.register(PromptVersion)
class PromptVersionAdmin(ReadOnlyAdmin):
    """Versions may be seen by whoever may see prompt templates. They outlive their template."""

    change_form_template = "admin/llm_wrapper/version.html"
    list_display = ("__str__", "number", "created_at")
    list_filter = (("prompt_template", admin.RelatedOnlyFieldListFilter), "created_at")
    search_fields = ("name",)
    ordering = ("-created_at", "-id")

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        template_permissions = ("llm_wrapper.view_prompttemplate", "llm_wrapper.change_prompttemplate")
        return super().has_view_permission(request, obj) or any(
            request.user.has_perm(permission) for permission in template_permissions
        )

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptVersion]:
        queryset = super().get_queryset(request)
        match = request.resolver_match
        on_list = match is not None and (match.url_name or "").endswith("_changelist")
        return queryset.defer("content") if on_list else queryset

    def shown(self, request: HttpRequest, obj: PromptVersion) -> dict[str, Any]:
        previous = self._previous(obj)
        return {
            "facts": [
                ("Prompt", row_link(obj.prompt_template) if obj.prompt_template else f"{obj.name} (deleted)"),
                ("Version", obj.number),
                ("Saved", obj.created_at),
                ("LLM calls", formats.count(obj.llm_calls.count())),
                ("Digest", obj.digest[:12]),
            ],
            "fields": list(readable(obj.content).items()),
            "previous": previous,
            "changes": changes(previous.content, obj.content) if previous else [],
            "restore_url": self._restore_url(request, obj),
        }

    def _previous(self, version: PromptVersion) -> PromptVersion | None:
        if version.prompt_template_id is None:
            return None
        older = PromptVersion.objects.filter(prompt_template=version.prompt_template_id, number__lt=version.number)
        return older.order_by("-number").first()

    def _restore_url(self, request: HttpRequest, version: PromptVersion) -> str:
        may_restore = request.user.has_perm("llm_wrapper.change_prompttemplate")
        if version.prompt_template_id is None or not may_restore:
            return ""
        page = reverse("admin:llm_wrapper_prompttemplate_change", args=[version.prompt_template_id])
        return f"{page}?restore={version.number}"


def readable(content: dict[str, Any]) -> dict[str, str]:
    """A version's content as text, by label; what is empty is left out. A tool is one entry."""
    texts = {label: _text(content.get(key)) for key, label in LABELS.items()}
    for tool in content.get("tools", ()):
        rest = {key: value for key, value in tool.items() if key not in ("name", "code")}
        texts[f"Tool {tool['name']}"] = f"{tool['code'].rstrip()}\n\n{formats.pretty(rest)}"
    return {label: text for label, text in texts.items() if text}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value in (None, [], {}, False) else formats.pretty(value)


@dataclass(frozen=True)
class Change:
    """What differs in one field. `lines` are pairs of a kind (add, drop, same, gap) and a line of text."""

    label: str
    lines: list[tuple[str, str]]


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The fields in which two contents differ, line by line."""
    before, after = readable(old), readable(new)
    return [
        Change(label, diff_lines(before.get(label, ""), after.get(label, "")))
        for label in dict.fromkeys([*after, *before])
        if before.get(label, "") != after.get(label, "")
    ]


KINDS = {"+": "add", "-": "drop", " ": "same", "@": "gap"}


def diff_lines(old: str, new: str) -> list[tuple[str, str]]:
    """A unified diff as pairs of kind and line, without its head."""
    before, after = old.splitlines(), new.splitlines()
    if len(before) + len(after) > MAX_DIFF_LINES:
        return [("gap", f"Too long to compare: {len(before)} lines before, {len(after)} now.")]
    lines = list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]
    found = [(KINDS[line[0]], "…" if line[0] == "@" else line[1:]) for line in lines]
    found = found[1:] if found and found[0][0] == "gap" else found
    return found or [("gap", "Only blanks or line ends differ.")]


def changed_tools(version: PromptVersion) -> list[str]:
    """Tools of a version that are not now what they were then: restoring the prompt does not restore them."""
    names = [tool["name"] for tool in version.content["tools"]]
    rows = {tool.name: tool.spec() for tool in Tool.objects.filter(name__in=names)}
    then = {tool.name: tool for tool in version.spec().tools}
    return [name for name in names if rows.get(name) != then[name]]
