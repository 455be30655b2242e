import time

import pytest

from llm_wrapper.models import PromptTemplate
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.transport.library import litellm

from .upstream import Upstream


@pytest.fixture
def upstream(tmp_path, settings):
    """A provider on loopback, and an empty folder for configs that lead to it."""
    litellm()  # its import takes seconds, which tests that look at the clock would count
    folder = tmp_path / "upstream_configs"
    folder.mkdir()
    settings.LLM_CONFIGS_PATH = folder
    server = Upstream(folder)
    yield server
    server.stop()


@pytest.fixture
def chat_on(upstream, make_prompt):
    """Open a chat on configs of the upstream. The first one is drawn while it can be used; the others are spares."""

    def make(*names, tools=(), **values):
        for number, name in enumerate(names):
            if name not in upstream.names:
                upstream.add(name, **{"weight": int(number == 0), **values})
        prompt = "on " + " ".join(names)
        if not PromptTemplate.objects.filter(name=prompt).exists():
            make_prompt(prompt, configs=names, tools=tools)
        return LLMCommunicationWrapper(prompt_name=prompt)

    return make


@pytest.fixture
def later(monkeypatch, settings):
    """Let time pass for the cache: one inside this process, since a server has a clock of its own."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    real, passed = time.time, [0.0]
    monkeypatch.setattr("time.time", lambda: real() + passed[0])

    def pass_(seconds):
        passed[0] += seconds

    return pass_
