"""What the workers with a database need: Django set up, and counts of what is sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock


def setup_django() -> None:
    """Django with the tables of its apps."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, interactive=False)


TRANSACTION_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def count_statements(call: Callable[[], Any]) -> dict[str, int]:
    """How many statements the call sends through Django's cursors and how many transactions it commits, from
    whichever thread. What only begins or ends a transaction is no statement here: PostgreSQL's driver sends it by
    itself, SQLite's through a cursor."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    counts = {"statements": 0, "transactions": 0}

    def counted(method: str) -> Any:
        original = getattr(CursorWrapper, method)

        def run(self: Any, sql: str, *args: Any, **kwargs: Any) -> Any:
            counts["statements"] += not sql.lstrip().upper().startswith(TRANSACTION_CONTROL)
            return original(self, sql, *args, **kwargs)

        return mock.patch.object(CursorWrapper, method, run)

    def committed(self: Any) -> Any:
        counts["transactions"] += 1
        return commit(self)

    commit = BaseDatabaseWrapper._commit
    with counted("execute"), counted("executemany"), mock.patch.object(BaseDatabaseWrapper, "_commit", committed):
        call()
    return counts


def bytes_written() -> int:
    """A counter of bytes that grows with each write: on SQLite what this process handed to write() (database,
    write-ahead log), on PostgreSQL the position of the server's write-ahead log."""
    from django.db import connection

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            return int(cursor.fetchone()[0])
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])
