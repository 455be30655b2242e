"""The wire-level fake, and rows and YAML files that lead to it."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from llm_wrapper.models import LLMConfigName

HERE = Path(__file__).parent
SETUP = "Run `make wire-setup` (it needs node 20 or newer and npm)."


class Fake:
    """A running fake. `base` is its address; `script` says what it answers, `requests` what it was asked."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"

    def script(self, *fixtures):
        self._control("script", fixtures)

    @property
    def requests(self):
        return self._control("requests")

    def _control(self, name, data=None):
        body = None if data is None else json.dumps(data).encode()
        with urlopen(Request(f"{self.base}/__wire/{name}", data=body), timeout=10) as response:  # noqa: S310
            return json.load(response)


@pytest.fixture(scope="session")
def running_fake():
    node = shutil.which("node")
    if node is None:
        pytest.fail(f"The wire tests need node, and there is none on the PATH. {SETUP}")
    if not (HERE / "node_modules" / "@copilotkit" / "aimock").is_dir():
        pytest.fail(f"The wire tests need the npm packages of tests/wire/package.json. {SETUP}")
    pipe = subprocess.PIPE
    with subprocess.Popen([node, "fake.mjs"], cwd=HERE, stdin=pipe, stdout=pipe, text=True) as process:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"The wire-level fake did not start; its error is above. {SETUP}")
        yield Fake(json.loads(line)["port"])
        process.stdin.close()
        process.wait(10)


@pytest.fixture
def fake(running_fake):
    running_fake.script()
    return running_fake


@pytest.fixture
def write_config(tmp_path, settings, db):
    """Write a YAML file into the test's own LLM_CONFIGS_PATH, and its name into the table."""
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    settings.LLM_CONFIGS_PATH = folder

    def write(name, text=None, **keys):
        (folder / f"{name}.yml").write_text(text or yaml.safe_dump({"name": name, **keys}))
        return LLMConfigName.objects.get_or_create(name=name)[0]

    return write
