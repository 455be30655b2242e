import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.cache import cache

from llm_wrapper.configs import cooldown

CANARY = "sk-CANARY-8f3a1c"


@pytest.fixture(autouse=True)
def _no_memory_of_other_tests(settings):
    # These tests move the clock and break the cache, which only a cache inside this process follows.
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()
    yield
    cache.clear()
    cooldown._outage_logged = False


@pytest.fixture
def folder(tmp_path, settings) -> Path:
    path = tmp_path / "llm_configs"
    path.mkdir()
    settings.LLM_CONFIGS_PATH = path
    return path


@pytest.fixture
def write(folder) -> Callable[..., Path]:
    """Write one file and make it look old, so that its stat alone says whether it changed."""

    def write(name: str, text: str | bytes = "llm_config_class: DemoConfig\n", age: float = 60.0) -> Path:
        path = folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(age * 1e9)))
        return path

    return write
