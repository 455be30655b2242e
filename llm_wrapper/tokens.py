"""Keys of the REST API: made, recognised and revoked. A key is shown once; only its digest is stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from llm_wrapper.models import ApiToken

BEGINS_WITH = "llmw_"
RANDOM_BYTES = 32
SHOWN = len(BEGINS_WITH) + 5
# How often, in seconds, the use of a token is written down.
NOTE_USE_EVERY = 60


def make_token(
    user: Any, name: str, *, scopes: Iterable[str] | None = None, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """A new token of the user and its key, which cannot be read again. `scopes` are of ApiToken.Scope, all by default.

    Raises ValueError for an unknown scope, or none.
    """
    wanted = list(dict.fromkeys(ApiToken.Scope.values if scopes is None else scopes))
    unknown = sorted(set(wanted) - set(ApiToken.Scope.values))
    if unknown or not wanted:
        raise ValueError(
            f"A token needs scopes out of {', '.join(ApiToken.Scope.values)}; "
            + (f"{', '.join(unknown)} is none of them." if unknown else "none was given.")
        )
    token = ApiToken(user=user, name=name, scopes=wanted, expires_at=expires_at)
    key = give_key(token)
    token.save()
    return token, key


def give_key(token: ApiToken) -> str:
    """A new key for a token that is not saved yet, which gets its digest."""
    key = BEGINS_WITH + secrets.token_urlsafe(RANDOM_BYTES)
    token.prefix, token.digest = key[:SHOWN], digest_of(key)
    return key


def digest_of(key: str) -> str:
    """What is stored of a key. It holds 256 random bits, so a plain digest cannot be turned back."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def find_token(key: str) -> ApiToken | None:
    """The token of that key with its user; None where it is unknown, revoked or expired, or its user is inactive.

    Notes its use, at most once a minute.
    """
    digest = digest_of(key)
    alive = Q(expires_at__isnull=True) | Q(expires_at__gt=Now())
    unnoted = Q(last_used_at__isnull=True) | Q(last_used_at__lt=Now() - timedelta(seconds=NOTE_USE_EVERY))
    token = (
        ApiToken.objects.select_related("user")
        .filter(alive, digest=digest, revoked_at__isnull=True, user__is_active=True)
        .annotate(unnoted=unnoted)
        .first()
    )
    # The index found it by its digest, which says nothing of the key; this compares without telling how far it fits.
    if token is None or not hmac.compare_digest(token.digest, digest):
        return None
    if token.unnoted:
        ApiToken.objects.filter(unnoted, pk=token.pk).update(last_used_at=Now())
    return token


def revoke(tokens: Any) -> int:
    """Revoke the tokens of a queryset for good; gives how many were not revoked before."""
    changed: int = tokens.filter(revoked_at__isnull=True).update(revoked_at=Now())
    return changed


def state_of(token: ApiToken, now: datetime) -> str:
    """`active`, `expired` or `revoked`."""
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"
