"""Reading config files from a folder: only regular files inside it, of bounded size, never half of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from .parse import MAX_BYTES

SUFFIXES = (".yml", ".yaml")
Signature = tuple[int, ...]


class Unreadable(Exception):
    """A file cannot be read as a config file; the message says why and holds none of it."""


def signature(status: os.stat_result) -> Signature:
    """What changes whenever the file, its permissions, or the file behind a link changes."""
    return (
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_ino,
        status.st_dev,
        status.st_mode,
    )


def scan(folder: str, known: Iterable[str] = ()) -> dict[str, os.stat_result | None]:
    """The YAML files of a folder in the order of their names; None for a link that leads nowhere.

    Raises OSError where the folder cannot be listed. Hidden files are left out: editors make them. Files
    that were `known` are looked up by name too, since a listing may miss a file that is being replaced by a
    rename.
    """
    names = {name for name in os.listdir(folder) if name.endswith(SUFFIXES) and not name.startswith(".")}
    found: dict[str, os.stat_result | None] = {}
    for name in sorted(names.union(known)):
        path = os.path.join(folder, name)
        try:
            found[name] = os.stat(path)
        except OSError:
            if os.path.islink(path):
                found[name] = None
            # else: it was removed since the folder was listed
    return found


def read(folder: str, name: str) -> tuple[bytes, os.stat_result]:
    """The bytes of one file and its stat while it held them. Raises Unreadable."""
    home = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(folder, name))
    # Kubernetes mounts files as links within the folder, so a link as such is fine.
    if os.path.commonpath([home, path]) != home:
        raise Unreadable("is a link to a place outside the folder")
    # O_NONBLOCK: a pipe would wait for its writer. O_NOFOLLOW: a link put here since the check above.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None


def _read(descriptor: int) -> tuple[bytes, os.stat_result]:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise Unreadable("is not a regular file")
    if before.st_size > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES // 1024} KiB")
    pieces, left = [], MAX_BYTES + 1
    while left and (piece := os.read(descriptor, left)):
        pieces.append(piece)
        left -= len(piece)
    after = os.fstat(descriptor)
    if signature(before) != signature(after):
        raise Unreadable("was written while it was read")
    return b"".join(pieces), after
