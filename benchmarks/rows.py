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


def count_statements(call: Callable[[], Any]) -> int:
    """How many statements the call sends through Django's cursors, from whichever thread. On SQLite that
    includes each BEGIN, which on PostgreSQL the driver sends by itself."""
    from django.db.backends.utils import CursorWrapper

    sent: list[str] = []

    def counted(method: str) -> Any:
        original = getattr(CursorWrapper, method)

        def run(self: Any, sql: str, *args: Any, **kwargs: Any) -> Any:
            sent.append(sql)
            return original(self, sql, *args, **kwargs)

        return mock.patch.object(CursorWrapper, method, run)

    with counted("execute"), counted("executemany"):
        call()
    return len(sent)


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
