import os
import subprocess
import sys
import warnings
from pathlib import Path

from llm_wrapper.transport.library import litellm

ROOT = Path(__file__).parent.parent.parent

SCRIPT = """
import socket, sys
from tests.transport.provider import Provider, says
allowed = set()
def connect(self, address, _connect=socket.socket.connect):
    if self.family != socket.AF_UNIX and address[:2] not in allowed:
        raise AssertionError(f"connects to {address}")
    return _connect(self, address)
def lookup(host, *args, _lookup=socket.getaddrinfo, **kwargs):
    if host != "127.0.0.1":
        raise AssertionError(f"looks up {host}")
    return _lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect, lookup

import django
django.setup()
import asyncio
from llm_wrapper import transport
from llm_wrapper.types import ConfigChoice, Credentials, ModelRequest
assert "litellm" not in sys.modules
provider = Provider()
provider.answers = [says("Hello.")]
allowed.add(("127.0.0.1", provider.server_port))
for model in ("openai/gpt-4o-mini", "hosted_vllm/x", "demo/x"):
    credentials = Credentials({"api_base": provider.base, "api_key": "x"})
    config = ConfigChoice(name="main", model=model, params={}, credentials=credentials)
    for stream in (False, True):
        request = ModelRequest(config=config, messages=[{"role": "user", "content": "Hi"}], stream=stream)
        via = transport.current()
        async def run():
            return [item async for item in via.astream(request)] if stream else await via.acomplete(request)
        list(via.stream(request)) if stream else via.complete(request)
        asyncio.run(run())
provider.stop()
print("requests:", len(provider.requests))
"""


def test_i6_a_process_reaches_only_the_model_and_leaves_nothing_open(tmp_path):
    """Import and calls look up and connect to nothing but the model's address, without a warning up to the exit."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "example.test_settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONDEVMODE": "1",
        "PYTHONASYNCIODEBUG": "0",
    }
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "requests: 8\n"
    assert "Warning" not in done.stderr, done.stderr
    assert "Error" not in done.stderr, done.stderr


def test_harmless_warnings_stay_filtered():
    """Where somebody reset the warning filters, litellm's own are put back, once."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        litellm()
        litellm()
        assert len(warnings.filters) == 4
        warnings.warn("Accessing the 'model_fields' attribute on the instance is deprecated.", stacklevel=1)


def test_nothing_is_sent_that_was_not_asked_for():
    """litellm's telemetry and its silent dropping of parameters are off."""
    module = litellm()
    assert (module.telemetry, module.drop_params) == (False, False)
