"""What `manage.py check` says of the config files. `llm_wrapper.checks` registers these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Warning

from ..conf import conf
from .load import get_configs


def check_files(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Every problem of the folder and its files, and keys that stand where too many can read them.

    E001 a file cannot be used, E002 the folder cannot be read, W001 a key in clear text outside DEBUG, W002
    such a file is readable by every user of the machine, W004 LLM_CONFIGS_PATH is not set.
    """
    if not conf.configs_path:
        hint = "Set it to the folder that holds one YAML file per config."
        return [Warning("LLM_CONFIGS_PATH is not set.", hint=hint, id="llm_wrapper.W004")]
    configs = get_configs()
    messages: list[CheckMessage] = []
    for problem in configs.problems():
        if problem.file:
            hint = "docs/configs.md lists the keys of each class."
            messages.append(Error(f"LLM config file {problem}.", hint=hint, id="llm_wrapper.E001"))
        else:
            hint = f"Make the folder, or correct the setting: it is {str(conf.configs_path)!r}."
            messages.append(Error(f"{problem}.", hint=hint, id="llm_wrapper.E002"))
    for name in configs:
        clear = ", ".join(configs[name].clear_secrets())
        if clear and not settings.DEBUG:
            text = f"LLM config {name!r} holds {clear} in clear text."
            hint = "Write ${NAME}, and set that environment variable."
            messages.append(Warning(text, hint=hint, id="llm_wrapper.W001"))
        if clear and name in configs.world_readable:
            text = f"LLM config {name!r} holds {clear} in a file that every user of this machine may read."
            hint = "Take the permission away (chmod o-r), or write ${NAME} instead."
            messages.append(Warning(text, hint=hint, id="llm_wrapper.W002"))
    return messages


def check_cache(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether workers can share which configs are cooling. W003 they cannot, E003 there is no such cache."""
    hint = "Set LLM_WRAPPER_CACHE to the alias of a Redis, memcached, database or file-based cache in CACHES."
    try:
        cache = caches[conf.cache_alias]
    except InvalidCacheBackendError:
        text = f"LLM_WRAPPER_CACHE is {conf.cache_alias!r}, and CACHES has no such cache that can be made."
        return [Error(text, hint=hint, id="llm_wrapper.E003")]
    if not settings.DEBUG and isinstance(cache, (LocMemCache, DummyCache)):
        text = f"The cache {conf.cache_alias!r} is not shared: each worker finds out alone what is limited."
        return [Warning(text, hint=hint, id="llm_wrapper.W003")]
    return []


CHECKS: tuple[Callable[..., list[CheckMessage]], ...] = (check_files, check_cache)
"""All checks of this package, for `django.core.checks.register`."""
