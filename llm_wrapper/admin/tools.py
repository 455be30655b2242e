"""Tools: edited as code, shown as the model will see them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse

from llm_wrapper import tools
from llm_wrapper.models import Tool
from llm_wrapper.validation import tool_errors

from . import formats
from .base import row_link
from .forms import ToolForm, ToolPreviewForm
from .previews import PreviewAdmin


@admin.register(Tool)
class ToolAdmin(PreviewAdmin):
    """Tools. Their code is read when it is saved, and never run."""

    form = ToolForm
    preview_form = ToolPreviewForm
    preview_template = "admin/llm_wrapper/parts/tool_preview.html"
    change_form_template = "admin/llm_wrapper/tool.html"
    list_display = ("name", "function", "context", "idempotent", "prompts", "updated_at")
    list_filter = ("idempotent", "updated_at")
    search_fields = ("name", "tool_code")
    fieldsets = (
        (None, {"fields": ("name", "tool_code", "derive")}),
        (
            "What the model sees",
            {"fields": ("tool_json_spec", "context_params", "default_values_for_non_llm_params")},
        ),
        ("Limits", {"fields": ("idempotent", ("timeout", "max_memory", "max_output"))}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tool]:
        return super().get_queryset(request).annotate(prompt_count=Count("prompt_templates"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        # Without a form there is nothing to derive, and Django would look for a field of that name.
        return [(None, {"fields": ("name", "tool_code")}), *fieldsets[1:]]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context["visible"] = _visible(obj)
            context["prompts"] = [row_link(prompt) for prompt in obj.prompt_templates.order_by("name")]
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description="function")
    def function(self, tool: Tool) -> str:
        spec = tool.tool_json_spec
        return str(spec.get("name", "-")) if isinstance(spec, dict) else "-"

    @admin.display(description="context params")
    def context(self, tool: Tool) -> str:
        params = tool.context_params
        return ", ".join(map(str, params)) or "-" if isinstance(params, list) else "-"

    @admin.display(description="prompts", ordering="prompt_count")
    def prompts(self, tool: Any) -> str:
        return formats.count(tool.prompt_count)


def _visible(tool: Tool) -> str:
    """The tool as the model sees it; '' for a row that came by another way than this form and cannot work."""
    if not isinstance(tool.context_params, list) or tool_errors(tool.spec()):
        return ""
    return formats.pretty(tools.visible_spec(tool.spec()))
