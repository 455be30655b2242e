"""Prompt templates: edited with a preview beside them, every saved state kept and restorable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from llm_wrapper import prompts
from llm_wrapper.errors import PromptError
from llm_wrapper.models import PromptTemplate, PromptVersion
from llm_wrapper.validation import prompt_spec

from . import formats
from .forms import PreviewForm, PromptTemplateForm
from .previews import PreviewAdmin
from .versions import changed_tools

VERSIONS_SHOWN = 8


@admin.register(PromptTemplate)
class PromptTemplateAdmin(PreviewAdmin):
    """Prompt templates. `?restore=<number>` opens the form with the content of that version, unsaved."""

    form = PromptTemplateForm
    preview_form = PreviewForm
    preview_template = "admin/llm_wrapper/parts/prompt_preview.html"
    change_form_template = "admin/llm_wrapper/prompt.html"
    list_display = ("name", "configs", "tool_names", "version", "updated_at")
    list_filter = ("llm_config_names", "tools", "updated_at")
    search_fields = ("name", "system_prompt_template", "user_prompt_template")
    autocomplete_fields = ("llm_config_names", "tools")
    fieldsets = (
        (None, {"fields": ("name", "llm_config_names")}),
        (
            "Templates",
            {"fields": ("system_prompt_template", "user_prompt_template", "initial_messages_templates")},
        ),
        ("Context variables", {"fields": (("required_kwargs", "logged_context_vars"),)}),
        ("Tools", {"fields": ("tools",)}),
        ("Call", {"fields": ("model_params", "replay_rendered")}),
        (
            "Context budget",
            {
                "fields": (
                    ("history_window", "history_tokens"),
                    "summarise_left_out",
                    "summary_instructions",
                ),
                "description": "How much of a long chat is sent. The system prompt, the initial messages and the turn "
                "under way always are; earlier turns come whole or not at all, the newest first.",
            },
        ),
        (
            "REST API",
            {
                "fields": ("api_access", "api_context_vars"),
                "description": "Who may start a session on this prompt, and which of its variables they may set.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromptTemplate]:
        return super().get_queryset(request).annotate(newest_version=Max("versions__number"))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        changelist.result_list = changelist.result_list.prefetch_related("llm_config_names", "tools")
        return changelist

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        version = self._restored(request, obj)
        return type(form.__name__, (form,), {"restored": version}) if version else form

    def _restored(self, request: HttpRequest, obj: Any) -> PromptVersion | None:
        number = request.GET.get("restore", "")
        if obj is None or not number.isdecimal() or len(number) > 9 or request.method != "GET":
            return None
        if not self.has_change_permission(request, obj):
            return None
        return obj.versions.filter(number=int(number)).first()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        form.instance.current_version()  # the tools are known only now

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context["example_context"] = formats.pretty(example_context(obj)) if obj else "{}"
        if obj is not None:
            context["versions"] = obj.versions.defer("content")[:VERSIONS_SHOWN]
            versions = reverse("admin:llm_wrapper_promptversion_changelist")
            context["versions_url"] = f"{versions}?prompt_template__id__exact={obj.pk}"
            context["restored"] = version = self._restored(request, obj)
            context["changed_tools"] = changed_tools(version) if version else []
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description="configs")
    def configs(self, prompt: PromptTemplate) -> str:
        return ", ".join(config.name for config in prompt.llm_config_names.all()) or "-"

    @admin.display(description="tools")
    def tool_names(self, prompt: PromptTemplate) -> str:
        return ", ".join(tool.name for tool in prompt.tools.all()) or "-"

    @admin.display(description="version", ordering="newest_version")
    def version(self, prompt: Any) -> str:
        return f"v{prompt.newest_version}" if prompt.newest_version else "-"


def example_context(prompt: PromptTemplate) -> dict[str, str]:
    """A value for each context variable that the prompt needs, to start a preview with."""
    fields = {field.name: field.value_from_object(prompt) for field in prompt._meta.fields}
    try:
        names: Iterable[str] = prompts.required(prompt_spec(fields))
    except PromptError:
        names = prompt.required_kwargs  # the templates do not parse; the preview says where
    return {str(name): f"example {name}" for name in sorted(names)}
