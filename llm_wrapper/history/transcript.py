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

from .prepared import Marker, Part

# SQLite's functions take 127 arguments at most, two for each entry.
GROUP = 60
# Statements are kept for so many entries or keys at once; more than that are rare and built when they come.
KEPT = 8


class TranscriptFunc(Part, Func):
    """A JSON expression over a column; each database has its own words for it.

    `given` are the values that it takes: by themselves it can stand in any query of the ORM, and in a prepared
    statement markers take their places.
    """

    output_field = JSONField()

    def __init__(self, source: Any, given: Sequence[Any]) -> None:
        self.given = list(given)
        super().__init__(source)

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **extra: Any) -> Any:
        raise NotSupportedError(
            f"llm_wrapper keeps transcripts on SQLite and PostgreSQL; {connection.vendor} is not supported."
        )

    def source(self, compiler: Any) -> tuple[str, list[Any]]:
        """The SQL of the column, or of what was made of it so far."""
        sql, params = compiler.compile(self.source_expressions[0])
        return sql, list(params)

    # What a prepared statement needs to know.

    def shape(self) -> Any:
        if len(self.given) > KEPT:
            return None
        inner = self.source_expressions[0]
        return type(self), len(self.given), inner.shape() if isinstance(inner, Part) else None

    def expression(self, name: str, field: Any) -> Any:
        prepared = self.copy()
        prepared.given = [Marker(f"{name} {type(self).__name__} {number}") for number in range(len(self.given))]
        inner = self.source_expressions[0]
        if isinstance(inner, Part):
            prepared.set_source_expressions([inner.expression(name, field)])
        return prepared

    def values(self, name: str) -> dict[str, Any]:
        inner = self.source_expressions[0]
        values = inner.values(name) if isinstance(inner, Part) else {}
        return values | {f"{name} {type(self).__name__} {number}": value for number, value in enumerate(self.given)}


class Append(TranscriptFunc):
    """The transcript with entries added at its end."""

    def __init__(self, entries: Sequence[dict[str, Any]], source: Any = None) -> None:
        super().__init__(source or F("chat_history"), [json.dumps(entry) for entry in entries])

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        for start in range(0, len(self.given), GROUP):
            pairs = ", ".join(["'$[#]', json(%s)"] * len(self.given[start : start + GROUP]))
            sql = f"json_insert({sql}, {pairs})"
        return sql, [*params, *self.given]

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        for _ in self.given:
            sql = f"({sql} || jsonb_build_array(%s::jsonb))"
        return sql, [*params, *self.given]


class DropOldest(TranscriptFunc):
    """The transcript without its `count` oldest entries."""

    def __init__(self, count: int) -> None:
        super().__init__(F("chat_history"), [int(count)])

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        rows = f"json_each({sql}) WHERE key >= %s ORDER BY key"
        return f"(SELECT json_group_array(json(value)) FROM (SELECT value FROM {rows}))", [*params, *self.given]  # noqa: S608 - {rows} names a column

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        return f"jsonb_path_query_array({sql}, ('$[' || %s || ' to last]')::jsonpath)", [*params, *self.given]


class SetInEntry(TranscriptFunc):
    """The transcript with one key of one entry set. `from_end` is 1 for the newest entry; an entry that the
    transcript no longer holds is left alone."""

    def __init__(self, from_end: int, key: str, value: Any) -> None:
        self.from_end, self.key, self.value = int(from_end), key, value
        super().__init__(F("chat_history"), [])

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        path = f"$[#-{self.from_end}].{self.key}"
        return f"json_set({sql}, %s, json(%s))", [*params, path, json.dumps(self.value)]

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        path = "{" + f"-{self.from_end},{self.key}" + "}"
        return f"jsonb_set({sql}, %s::text[], %s::jsonb)", [*params, path, json.dumps(self.value)]


class MergeObject(TranscriptFunc):
    """A JSON object column with `values` laid over it. Keys are identifiers."""

    def __init__(self, column: str, values: dict[str, Any]) -> None:
        # json_patch would drop keys whose new value is null, so each key is set by itself.
        super().__init__(F(column), [part for key, value in values.items() for part in (key, json.dumps(value))])

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        keys = len(self.given) // 2
        for start in range(0, keys, GROUP):
            pairs = ", ".join(["'$.\"' || %s || '\"', json(%s)"] * len(range(start, min(start + GROUP, keys))))
            sql = f"json_set({sql}, {pairs})"
        return sql, [*params, *self.given]

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = self.source(compiler)
        for _ in range(len(self.given) // 2):
            sql = f"({sql} || jsonb_build_object(%s::text, %s::jsonb))"
        return sql, [*params, *self.given]
