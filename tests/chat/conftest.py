import time

import pytest
import yaml

from llm_wrapper.chat import Chat
from tests.transport.provider import Provider


@pytest.fixture
def chat(db):
    return Chat.create()


@pytest.fixture
def provider(tmp_path, settings):
    """A provider on loopback behind the config `main`, which is the only one there is."""
    server = Provider()
    keys = {
        "name": "main",
        "llm_config_class": "OpenAICompatibleConfig",
        "model_name": "m",
        "endpoint": server.base,
        "price": {"input": 1, "output": 2},
    }
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    (folder / "main.yml").write_text(yaml.safe_dump(keys))
    settings.LLM_CONFIGS_PATH = folder
    yield server
    server.stop()


@pytest.fixture
def later(monkeypatch, settings):
    """Let seconds pass for the cache: one inside this process, since a server has a clock of its own."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    real, passed = time.time, [0.0]
    monkeypatch.setattr("time.time", lambda: real() + passed[0])

    def pass_(seconds):
        passed[0] += seconds

    return pass_
