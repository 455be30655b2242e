"""A look at what a form holds before it is saved: posted by admin.js, answered with a piece of the page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from .base import BaseAdmin


class PreviewAdmin(BaseAdmin):
    """An admin whose form has a preview. Nothing is saved by it, and nothing is sent to a model."""

    preview_form: type[forms.Form]
    preview_template: str

    class Media:
        js = ["llm_wrapper/admin.js"]

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_preview"
        view = self.admin_site.admin_view(self.preview_view)
        own = [
            path("preview/", view, name=name),
            path("<int:pk>/preview/", view, name=name),
        ]
        return [*own, *super().get_urls()]

    @method_decorator(require_POST)
    def preview_view(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        """The preview of the posted form. Fields that were not posted, as for people who may only look, are
        those of the row."""
        obj = None if pk is None else self.get_object(request, str(pk))
        allowed = self.has_add_permission(request) if pk is None else self.has_view_permission(request, obj)
        if not allowed and not self.has_change_permission(request, obj):
            raise PermissionDenied
        if pk is not None and obj is None:
            raise Http404
        form = self.preview_form(self._posted(request, obj))
        form.is_valid()
        context = {"form": form, "errors": form_errors(form)}
        return render(request, self.preview_template, context)

    def _posted(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        data: dict[str, Any] = request.POST.dict()
        if obj is not None and not self.has_change_permission(request, obj):
            for name in self.preview_form.base_fields:
                if name not in data and hasattr(obj, name):
                    data[name] = self.preview_form.base_fields[name].prepare_value(getattr(obj, name))
        return data

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context["line_errors"] = form_errors(context["adminform"].form)
        return super().render_change_form(request, context, add, change, form_url, obj)


def form_errors(form: Any) -> list[dict[str, Any]]:
    """A form's errors as field, label, line and text."""
    found = []
    for name, errors in form.errors.as_data().items():
        label = form[name].label if name in form.fields else ""
        for error in errors:
            line = (error.params or {}).get("line")
            found += [{"field": name, "label": label, "line": line, "text": text} for text in error.messages]
    return found
