import asyncio

import pytest

from llm_wrapper import transport
from llm_wrapper.transport.library import litellm
from llm_wrapper.types import Completion, ConfigChoice, Credentials, ModelRequest, TextChunk

from .provider import Provider

KEY = "sk-canary-0123456789abcdef"
DOORS = ("complete", "stream", "acomplete", "astream")
STREAMED = ("stream", "astream")


@pytest.fixture(scope="session", autouse=True)
def _loaded():
    """litellm is there before a test looks at the clock."""
    litellm()


@pytest.fixture
def provider():
    server = Provider()
    yield server
    server.stop()


@pytest.fixture
def make_request(provider):
    """A request to the provider of the test."""

    def make(model="openai/gpt-4o-mini", *, params=None, timeout=10.0, base=None, price=None, price_model=None, **more):
        versions = {"api_version": "2024-10-21"} if model.startswith("azure/") else {}
        config = ConfigChoice(
            name="main",
            model=model,
            params=params or {},
            credentials=Credentials({"api_base": base or provider.base, "api_key": KEY, **versions}),
            price=price,
            price_model=price_model,
        )
        messages = [{"role": "user", "content": "Hi"}]
        return ModelRequest(**{"config": config, "messages": messages, "timeout": timeout, **more})

    return make


@pytest.fixture
def ask(make_request):
    """Make one call through a door of the transport; gives the texts that streamed and the completion."""

    def call(door="complete", *args, **kwargs):
        return send(door, make_request(*args, stream=door in STREAMED, **kwargs))

    return call


def send(door, request):
    items = []
    listen(door, request, items)
    *chunks, completion = items
    assert isinstance(completion, Completion)
    assert all(isinstance(chunk, TextChunk) for chunk in chunks)
    return [chunk.text for chunk in chunks], completion


def listen(door, request, arrived):
    """Make the call and put what comes into `arrived`, where it stays also if the call fails."""
    method = getattr(transport.current(), door)
    if door == "complete":
        arrived.append(method(request))
    elif door == "stream":
        for item in method(request):
            arrived.append(item)
    elif door == "acomplete":
        arrived.append(asyncio.run(method(request)))
    else:
        asyncio.run(_gather(method(request), arrived))


async def _gather(items, arrived):
    async for item in items:
        arrived.append(item)
