from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from . import rows

AZURE = """
name: azure-gpt
llm_config_class: AzureOpenAILLMConfig
endpoint: https://northwind.example.com
deployment_name: gpt-4.1-mini
api_key: sk-canary-4711
api_version: "2025-01-01"
weight: 2
"""


@pytest.fixture(autouse=True)
def config_files(settings: Any, tmp_path: Path) -> Path:
    """A folder of configs that the test may write to; it holds azure-gpt."""
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    (folder / "azure-gpt.yml").write_text(AZURE)
    settings.LLM_CONFIGS_PATH = folder
    return folder


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """A client logged in as a member of staff with these model permissions."""

    def login(*codenames: str) -> Client:
        client = Client()
        client.force_login(rows.make_user("-".join(codenames) or "nobody", *codenames))
        return client

    return login


@pytest.fixture
def boss(db: None) -> Client:
    """A client logged in as a superuser."""
    client = Client()
    client.force_login(rows.make_user("boss", superuser=True))
    return client
