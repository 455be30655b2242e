"""The YAML files of a run: the two kinds of config that are compared, and two for the storms."""

from __future__ import annotations

from pathlib import Path

from .workload import KEY, MODEL

PRICE = "price: {input: 0.15, output: 0.6}\n"


def write(folder: Path, base_url: str) -> None:
    """Write them; `steady` answers, `limited` answers every call with 429."""
    folder.mkdir()
    files = {
        "OpenAIConfig": ("OpenAIConfig", "/v1", f"api_key: {KEY}\n"),
        "OpenAICompatibleConfig": ("OpenAICompatibleConfig", "/v1", PRICE),
        "steady": ("OpenAICompatibleConfig", "/v1", PRICE),
        "limited": ("OpenAICompatibleConfig", "/limited/v1", PRICE),
    }
    for name, (kind, path, more) in files.items():
        text = f"name: {name}\nllm_config_class: {kind}\nmodel_name: {MODEL}\nendpoint: {base_url}{path}\n{more}"
        (folder / f"{name}.yml").write_text(text)
