"""Tokens of the REST API: made here with their key shown once, and revoked."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_variables

from llm_wrapper import tokens
from llm_wrapper.models import ApiToken

from .base import BaseAdmin, badge


class TokenForm(forms.ModelForm):
    """A new token; its digest comes with its key."""

    scopes = forms.MultipleChoiceField(
        choices=ApiToken.Scope.choices,
        initial=ApiToken.Scope.values,
        widget=forms.CheckboxSelectMultiple,
        help_text="What the token may do.",
    )

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scopes", "expires_at")

    def clean_user(self) -> Any:
        user = self.cleaned_data["user"]
        if not user.is_active:
            raise forms.ValidationError("This user is not active, so their token would be refused.")
        return user

    def clean_expires_at(self) -> Any:
        expires = self.cleaned_data["expires_at"]
        if expires is not None and expires <= timezone.now():
            raise forms.ValidationError("This is in the past.")
        return expires


@admin.register(ApiToken)
class ApiTokenAdmin(BaseAdmin):
    """Tokens act as their user. What was made is not changed any more, only revoked."""

    form = TokenForm
    list_display = ("name", "begins_with", "user", "may", "state", "created_at", "expires_at", "last_used_at")
    list_filter = ("created_at", "expires_at", "revoked_at")
    search_fields = ("name", "prefix", "user__username")
    search_help_text = "Name, beginning of the key, or user"
    list_select_related = ("user",)
    raw_id_fields = ("user",)
    readonly_fields = ("begins_with", "may", "state", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke_tokens",)

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> Any:
        if obj is not None:
            return ("user", "name", "expires_at", *self.readonly_fields)
        # A token acts as its user: only a superuser makes one for somebody else.
        return (*(("user",) if _is_boss(request) else ()), "name", "scopes", "expires_at")

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("llm_wrapper.change_apitoken"))

    @sensitive_variables("key")
    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        if not _is_boss(request):
            obj.user = cast(Any, request.user)
        key = tokens.give_key(obj)
        obj.save()
        request.llm_wrapper_key = key  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        """The page that shows the key. It is no redirect, so that the key is stored nowhere on its way."""
        key = request.llm_wrapper_key  # type: ignore[attr-defined]
        context = self.page_context(request, title="API token", original=obj, key=key)
        response = TemplateResponse(request, "admin/llm_wrapper/token.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke selected tokens", permissions=["revoke"])
    def revoke_tokens(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        count = tokens.revoke(queryset)
        self.message_user(request, f"{count} token(s) revoked.", messages.SUCCESS)

    @admin.display(description="key", ordering="prefix")
    def begins_with(self, token: ApiToken) -> str:
        return f"{token.prefix}…"

    @admin.display(description="scopes")
    def may(self, token: ApiToken) -> str:
        return ", ".join(token.scopes)

    @admin.display(description="state")
    def state(self, token: ApiToken) -> SafeString | str:
        return badge(tokens.state_of(token, timezone.now()))


def _is_boss(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))
