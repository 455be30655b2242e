"""The commands of the API's pages run against the example site, and answer what the pages say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from llm_wrapper import configs
from tests.api.servers import asgi_server, environment

from .pages import ROOT, blocks, text_of

MARK = "--- end of block ---"
# What differs from run to run.
VOLATILE = {"session_id", "id", "created_at", "updated_at"}


def outline(value):
    """JSON with what differs from run to run left out."""
    if isinstance(value, dict):
        return {key: "…" if key in VOLATILE else outline(item) for key, item in value.items()}
    return [outline(item) for item in value] if isinstance(value, list) else value


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", ["docs/api.md", "docs/documents/4-chat-rest-api.md"])
def test_the_commands_of_a_page_run_and_print_what_it_says(page, settings):
    """Every shell block runs as it stands, in one shell, and prints the JSON or text that stands below it."""
    settings.LLM_CONFIGS_PATH = ROOT / "llm_configs"
    call_command("loaddata", ROOT / "fixtures" / "demo.json", verbosity=0)
    get_user_model().objects.create_superuser("admin")
    found = blocks(text_of(page))
    scripts = [block for block in found if block.info == "sh"]
    with asgi_server() as address:
        script = "set -euo pipefail\n" + f"echo; echo '{MARK}'\n".join(block.body for block in scripts)
        script = script.replace("http://127.0.0.1:8000", address).replace(".venv/bin/python", sys.executable)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    for name in configs.get_configs().names():
        configs.warm_up(name)
    assert done.returncode == 0, done.stderr
    printed = [part.strip() for part in done.stdout.split(MARK)]
    assert len(printed) == len(scripts)
    compared = 0
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.info != "sh":
            continue
        said = printed[scripts.index(block)]
        assert '"code"' not in said, said  # an error of the API
        if after is not None and after.info == "json":
            assert outline(json.loads(said)) == outline(json.loads(after.body)), f"{page}:{after.line}"
        elif after is not None and after.info == "text":
            assert said == after.body.strip(), f"{page}:{after.line}"
        compared += after is not None and after.info in ("json", "text")
    assert compared
