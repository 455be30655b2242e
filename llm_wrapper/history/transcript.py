"""The transcript `ChatHistory.chat_history`: a JSON array that only the database changes.

It is never read, changed and saved back, so that two writers cannot lose each other's entries and a step does
not carry the whole chat over the wire. Entry `position - transcript_start` of the array is step `position`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.db import NotSupportedError
from django.db.models import F, Func, JSONField

# SQLite's functions take 127 arguments at most, two for each entry.
GROUP = 60


class TranscriptFunc(Func):
    """A JSON expression over the transcript; each database has its own words for it."""

    output_field = JSONField()

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **extra: Any) -> Any:
        raise NotSupportedError(
            f"llm_wrapper keeps transcripts on SQLite and PostgreSQL; {connection.vendor} is not supported."
        )


class Append(TranscriptFunc):
    """The transcript with entries added at its end."""

    def __init__(self, entries: Sequence[dict[str, Any]], source: Any = "chat_history") -> None:
        self.entries = list(entries)
        super().__init__(source)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        params = [*params, *(json.dumps(entry) for entry in self.entries)]
        for start in range(0, len(self.entries), GROUP):
            pairs = ", ".join(["'$[#]', json(%s)"] * len(self.entries[start : start + GROUP]))
            sql = f"json_insert({sql}, {pairs})"
        return sql, params

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        return f"({sql} || %s::jsonb)", [*params, json.dumps(self.entries)]


class DropOldest(TranscriptFunc):
    """The transcript without its `count` oldest entries."""

    def __init__(self, count: int) -> None:
        self.count = int(count)
        super().__init__(F("chat_history"))

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        rows = f"json_each({sql}) WHERE key >= %s ORDER BY key"
        return f"(SELECT json_group_array(json(value)) FROM (SELECT value FROM {rows}))", [*params, self.count]  # noqa: S608 - {rows} names a column

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        return f"jsonb_path_query_array({sql}, %s::jsonpath)", [*params, f"$[{self.count} to last]"]


class SetInEntry(TranscriptFunc):
    """The transcript with one key of one entry set. `from_end` is 1 for the newest entry; an entry that the
    transcript no longer holds is left alone."""

    def __init__(self, from_end: int, key: str, value: Any) -> None:
        self.from_end, self.key, self.value = int(from_end), key, value
        super().__init__(F("chat_history"))

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        path = f"$[#-{self.from_end}].{self.key}"
        return f"json_set({sql}, %s, json(%s))", [*params, path, json.dumps(self.value)]

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        path = "{" + f"-{self.from_end},{self.key}" + "}"
        return f"jsonb_set({sql}, %s::text[], %s::jsonb)", [*params, path, json.dumps(self.value)]


class MergeObject(TranscriptFunc):
    """A JSON object column with `values` laid over it. Keys are identifiers."""

    def __init__(self, column: str, values: dict[str, Any]) -> None:
        self.overlay = values
        super().__init__(F(column))

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        # json_patch would drop keys whose new value is null, so each key is set by itself.
        items = list(self.overlay.items())
        for start in range(0, len(items), GROUP):
            group = items[start : start + GROUP]
            sql = f"json_set({sql}, {', '.join(['%s, json(%s)'] * len(group))})"
        flat = [part for key, value in items for part in (f'$."{key}"', json.dumps(value))]
        return sql, [*params, *flat]

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = compiler.compile(self.source_expressions[0])
        return f"({sql} || %s::jsonb)", [*params, json.dumps(self.overlay)]
