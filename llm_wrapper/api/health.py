"""For load balancers: whether the process is up, and whether it can answer. Nothing here needs a login or tells why."""

from __future__ import annotations

import logging
import secrets

from django.core.cache import caches
from django.db import DatabaseError, connections
from django.http import HttpRequest
from ninja import Status

from llm_wrapper import configs
from llm_wrapper.conf import conf
from llm_wrapper.models import ChatHistory

from .routing import router
from .schemas import ErrorOut, Health, Ready

log = logging.getLogger("llm_wrapper.api")
TAGS = ["health"]


@router.get("/health", auth=None, response={200: Health, 500: ErrorOut}, tags=TAGS, summary="The process is up")
def health(request: HttpRequest) -> Health:
    return Health(status="ok")


@router.get("/ready", auth=None, response={200: Ready, 503: Ready, 500: ErrorOut}, tags=TAGS, summary="It can answer")
def ready(request: HttpRequest) -> Status[Ready]:
    """Whether the database and the cache answer and a model can be used; 503 where one cannot."""
    database, cache = _database(), _cache()
    found = {"database": database, "cache": cache, "models": cache and _models()}
    good = all(found.values())
    return Status(200 if good else 503, Ready(status="ready" if good else "not ready", **found))


def _database() -> bool:
    try:
        with connections[ChatHistory.objects.db].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        log.exception("Not ready: the database does not answer")
        return False
    return True


def _cache() -> bool:
    value = secrets.token_hex(8)
    key = f"llm_wrapper:ready:{value}"
    try:
        cache = caches[conf.cache_alias]
        cache.set(key, value, 10)
        found: bool = cache.get(key) == value
        cache.delete(key)
    except Exception:
        # Each cache has exceptions of its own.
        log.exception("Not ready: the cache does not answer")
        return False
    return found


def _models() -> bool:
    names = configs.get_configs().names()
    return len(configs.cooling(names)) < len(names)
