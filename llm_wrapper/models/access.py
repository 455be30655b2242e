"""Who may use the API, and how often: tokens and throttles."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ApiToken(models.Model):
    """A key of the REST API. Only its digest is stored; the key itself is shown once, when it is made."""

    class Scope(models.TextChoices):
        READ = "read", "read sessions, messages and usage"
        WRITE = "write", "send, change and delete"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="llm_api_tokens")
    name = models.CharField(max_length=100, help_text="What the token is for.")
    prefix = models.CharField(max_length=16, editable=False, help_text="How the key begins, to recognise it by.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.JSONField(default=list, help_text='What the token may do, as a JSON list: ["read", "write"].')
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API token"
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Throttle(models.Model):
    """The requests of one caller within the last period, counted for all processes at once."""

    key = models.CharField(max_length=200, primary_key=True, help_text="Scope and caller.")
    hits = models.JSONField(default=list, help_text="Times of the requests that passed, in seconds since 1970.")
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.key
