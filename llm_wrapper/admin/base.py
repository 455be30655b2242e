"""What the admin pages share: the base class, the read-only rule, links and badges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin
else:
    from django.contrib.admin import ModelAdmin


class BaseAdmin(ModelAdmin):
    """The package's ModelAdmin: unfold's where that is installed, else Django's."""

    show_full_result_count = False  # counting a large table twice makes its list slow
    list_per_page = 50
    compressed_fields = False  # unfold: label above the field, so that editors get the whole width

    class Media:
        css = {"all": ["llm_wrapper/admin.css"]}

    def page_context(self, request: HttpRequest, **context: Any) -> dict[str, Any]:
        """The context that an own page of this admin needs to look like the others."""
        return {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media, **context}


class ReadOnlyAdmin(BaseAdmin):
    """Rows that the runtime writes: they may be read with the view permission, and nothing else."""

    actions: Sequence[Any] | None = None
    change_form_template = "admin/llm_wrapper/row.html"

    def shown(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the page of a row shows: the context of its template."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        # Django calls this after it has checked the permission, so what is shown is read no earlier.
        context.update(self.shown(request, obj))
        return super().render_change_form(request, context, add, change, form_url, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def row_url(obj: Model, page: str = "change") -> str:
    """URL of a row's admin page."""
    meta = obj._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{page}", args=[obj.pk])


def row_link(obj: Model | None, label: Any = None, *, anchor: str = "") -> SafeString | str:
    """A link to a row's admin page; a dash where there is no row, plain text where it has no page."""
    if obj is None:
        return "-"
    text = str(obj) if label is None else label
    if not admin.site.is_registered(type(obj)):
        return str(text)
    return format_html('<a class="llmw-link" href="{}{}">{}</a>', row_url(obj), anchor, text)


TONES = {
    "done": "good",
    "active": "good",
    "cached": "good",
    "ready": "good",
    "running": "busy",
    "pending": "busy",
    "cooling": "warn",
    "cancelled": "warn",
    "refused": "warn",
    "unknown": "warn",
    "lost": "warn",
    "thumb up": "good",
    "thumb down": "bad",
    "failed": "bad",
    "broken": "bad",
    "no file": "bad",
}


def badge(status: str, *, title: str = "") -> SafeString | str:
    """A status as a coloured label."""
    if not status:
        return "-"
    tone = TONES.get(status, "plain")
    return format_html('<span class="llmw-badge llmw-{}" title="{}">{}</span>', tone, title, status)
