"""System checks: the YAML files, and the rows that depend on them."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.db import Error as DatabaseError
from django.db import connection

from llm_wrapper import configs
from llm_wrapper.models import LLMConfigName, PromptTemplate


@register("llm_wrapper")
def config_files(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What is wrong with the files in LLM_CONFIGS_PATH."""
    return [message for check in configs.CHECKS for message in check()]


@register("llm_wrapper")
def rows(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Rows that the files contradict: names without a file, and prompts whose tools no config can use."""
    try:
        if PromptTemplate._meta.db_table not in connection.introspection.table_names():
            return []  # before the first migrate
        return [*_names_without_file(), *_prompts_that_cannot_run()]
    except DatabaseError as exc:
        # `check` must work without a database too.
        return [Info(f"The rows of llm_wrapper were not checked: {exc}".strip(), id="llm_wrapper.I001")]


def _names_without_file() -> list[CheckMessage]:
    loaded = set(configs.get_configs().names())
    return [
        Error(
            f"LLMConfigName {name!r} has no usable YAML file in LLM_CONFIGS_PATH.",
            hint="Add the file, mend it, or delete the row: manage.py llm_configs sync --prune.",
            id="llm_wrapper.E010",
        )
        for name in LLMConfigName.objects.values_list("name", flat=True)
        if name not in loaded
    ]


def _prompts_that_cannot_run() -> list[CheckMessage]:
    store = configs.get_configs()
    found: list[CheckMessage] = []
    for prompt in PromptTemplate.objects.prefetch_related("llm_config_names", "tools"):
        names = [row.name for row in prompt.llm_config_names.all()]
        if not names:
            found.append(
                Warning(
                    f"Prompt {prompt.name!r} has no config, so it cannot be answered.",
                    hint="Choose at least one under 'LLM configs'.",
                    id="llm_wrapper.W010",
                )
            )
        without = [name for name in names if name in store and not store[name].tools_enabled]
        if without and prompt.tools.all():
            found.append(
                Warning(
                    f"Prompt {prompt.name!r} has tools, which its configs {', '.join(without)} do not allow; "
                    "they are never chosen for it.",
                    hint="Set tools_enabled: true in the YAML file, or take the config from the prompt.",
                    id="llm_wrapper.W011",
                )
            )
    return found
