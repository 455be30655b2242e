"""Fixtures of the whole suite. No test reaches another machine, and none sees another's cooling configs."""

import ipaddress
import socket

import pytest
from django.core.cache import cache

from llm_wrapper.models import LLMConfigName, PromptTemplate, Tool

_connect = socket.socket.connect


def _loopback_only(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = address[0]
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise AssertionError(f"A test tried to connect to {host}.")
    return _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Tests reach this machine only."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _loopback_only)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()


@pytest.fixture
def make_tool(db):
    """Make a Tool row from source or a dotted path, with its spec derived from the code."""
    from llm_wrapper.tools import describe

    def make(code, *, context_params=(), name=None, **fields):
        described = describe(code, context_params=context_params)
        return Tool.objects.create(
            name=name or described.spec["name"],
            tool_code=code,
            tool_json_spec=described.spec,
            context_params=list(described.context_params),
            **fields,
        )

    return make


@pytest.fixture
def make_prompt(db):
    """Make a PromptTemplate row on the configs of tests/llm_configs."""

    def make(name="support", *, configs=("demo",), tools=(), **fields):
        prompt = PromptTemplate.objects.create(name=name, **fields)
        for config in configs:
            prompt.llm_config_names.add(LLMConfigName.objects.get_or_create(name=config)[0])
        prompt.tools.set(tools)
        return prompt

    return make
