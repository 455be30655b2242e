"""System checks: the YAML files, the rows that depend on them, and logs that would hold conversations."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from django.conf import settings
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
def litellm_log(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Outside DEBUG, a litellm that writes every prompt and answer into the log."""
    told_by = [] if settings.DEBUG else _told_to_be_verbose()
    return [
        Warning(
            f"litellm is told to be verbose ({how}), which writes prompts and answers into the log.",
            hint=hint,
            id="llm_wrapper.W012",
        )
        for how, hint in told_by
    ]


def _told_to_be_verbose() -> list[tuple[str, str]]:
    """How, and what to do about it. litellm itself is not imported for this, since that takes seconds."""
    found = []
    if os.environ.get("LITELLM_LOG", "").strip().upper() == "DEBUG":
        found.append(("LITELLM_LOG is DEBUG", "Take LITELLM_LOG out of the environment, or set it to WARNING."))
    if getattr(sys.modules.get("litellm"), "set_verbose", False) is True:
        found.append(("litellm.set_verbose is True", "Take the line out that sets it."))
    if logging.getLogger("LiteLLM").isEnabledFor(logging.DEBUG):
        found.append(
            ("its logger 'LiteLLM' is at DEBUG", "Give 'LiteLLM', or the root logger, a higher level in LOGGING.")
        )
    return found


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
