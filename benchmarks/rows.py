"""What the workers with a database need: Django set up, and counts of what is sent to it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock


def setup_django() -> None:
    """Django with the tables of its apps; one process at a time makes them."""
    import django
    from django.core.management import call_command

    django.setup()
    with open(Path(os.environ["BENCH_FOLDER"]) / "migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call_command("migrate", verbosity=0, interactive=False)


def add_messages(chat: Any, messages: Sequence[Mapping[str, str]]) -> None:
    """Put messages into a chat at once, and leave it as it is after so many single ones: all of them as rows, the
    newest in the transcript."""
    from llm_wrapper.conf import conf
    from llm_wrapper.models import Message

    rows = [
        Message(chat=chat, position=position, type=message["role"], text=message["content"])
        for position, message in enumerate(messages, start=chat.last_position + 1)
    ]
    Message.objects.bulk_create(rows, batch_size=500)
    chat.last_position = rows[-1].position
    entries = [*chat.chat_history, *(row.entry() for row in rows)]
    chat.chat_history = entries if conf.transcript_limit is None else entries[-conf.transcript_limit :]
    chat.transcript_start = chat.last_position - len(chat.chat_history) + 1
    chat.save()


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
