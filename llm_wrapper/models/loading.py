"""Prompt templates as turns use them: read anew each time, built anew only where they changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections

from llm_wrapper.types import PromptSpec

from .prompts import LLMConfigName, PromptTemplate, PromptVersion, Tool


class LoadedPrompt(NamedTuple):
    """A prompt row with its current version. Shared between turns: do not change it."""

    prompt: PromptTemplate
    version: PromptVersion
    spec: PromptSpec
    config_names: tuple[str, ...]


# By database and name: the rows as they were, and what was built from them.
_loaded: dict[tuple[str, str], tuple[Any, LoadedPrompt]] = {}


def load_prompt(name: str) -> LoadedPrompt:
    """The prompt of that name and its current version. Raises PromptTemplate.DoesNotExist.

    What the rows say is read in one statement and compared as it stands, so it does not matter by which path they
    were changed (admin, fixture, `update()`, an edit of a tool).
    """
    database = PromptTemplate.objects.db
    key = (database, name)
    rows = _rows(database, name)
    known = _loaded.get(key)
    if known is not None and rows is not None and known[0] == rows:
        return known[1]
    prompt = PromptTemplate.objects.prefetch_related("tools", "llm_config_names").filter(name=name).first()
    if prompt is None:
        _loaded.pop(key, None)
        names = list(PromptTemplate.objects.values_list("name", flat=True)[:20])
        raise PromptTemplate.DoesNotExist(
            f"There is no prompt template named {name!r}. "
            + (f"Known ones: {', '.join(names)}." if names else "The table is empty: add one in the admin.")
        )
    loaded = loaded_prompt(prompt)
    # Only if nothing was changed, or made, while it was built.
    if rows is not None and rows == _rows(database, name):
        _loaded[key] = rows, loaded
    return loaded


def loaded_prompt(prompt: PromptTemplate) -> LoadedPrompt:
    """A prompt row that is at hand, with its current version."""
    version = prompt.current_version()
    return LoadedPrompt(prompt, version, version.spec(), tuple(row.name for row in prompt.llm_config_names.all()))


def _rows(database: str, name: str) -> Any:
    """The prompt's row with its tools, its configs and its newest version, as the database holds them; None where
    there is no such prompt, or this cannot be asked of the database."""
    connection = connections[database]
    statement = _statement(connection.vendor)
    if not statement:
        return None
    with connection.cursor() as cursor:
        cursor.execute(statement, [name])
        return cursor.fetchone()


@lru_cache(maxsize=8)
def _statement(vendor: str) -> str:
    functions = {"sqlite": ("json_group_array", "json_array"), "postgresql": ("json_agg", "json_build_array")}
    if vendor not in functions:
        return ""
    gathered, listed = functions[vendor]

    def columns(model: Any, table: str) -> str:
        return ", ".join(f'{table}."{field.column}"' for field in model._meta.concrete_fields)

    prompts, versions = PromptTemplate._meta.db_table, PromptVersion._meta.db_table
    tools, configs = PromptTemplate.tools.through._meta.db_table, PromptTemplate.llm_config_names.through._meta.db_table
    # Names of tables and columns only; the prompt's name is a parameter.
    return f"""
        SELECT {columns(PromptTemplate, "p")},
          (SELECT CAST({gathered}({listed}({columns(Tool, "t")})) AS text) FROM "{tools}" j
             JOIN "{Tool._meta.db_table}" t ON t.id = j.tool_id WHERE j.prompttemplate_id = p.id),
          (SELECT CAST({gathered}(c.{LLMConfigName._meta.model_name}_id) AS text) FROM "{configs}" c
             WHERE c.prompttemplate_id = p.id),
          (SELECT CAST({listed}(v.id, v.number, v.digest) AS text) FROM "{versions}" v
             WHERE v.prompt_template_id = p.id ORDER BY v.number DESC LIMIT 1)
        FROM "{prompts}" p WHERE p.name = %s
    """  # noqa: S608
