"""The folder of YAML files, read again where it changed.

Each access looks at the folder and at every file's stat; only changed files are read. A file that cannot be
used leaves its last good version in force, and a problem that says so.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..conf import conf
from ..errors import LLMConfigsNotAvailable
from .build import Problem, build
from .classes import LLMConfig
from .files import SUFFIXES, Signature, Unreadable, read, scan, signature

logger = logging.getLogger("llm_wrapper.configs")

# Two writes within one tick of the file system's clock may leave the same stat: a file this young is read
# again.
SETTLED_AFTER = 2.0


class Configs:
    """What the folder held at one moment: a read-only mapping of names to configs."""

    def __init__(
        self,
        configs: Mapping[str, LLMConfig],
        problems: tuple[Problem, ...] = (),
        world_readable: frozenset[str] = frozenset(),
    ) -> None:
        self._configs = dict(configs)
        self._problems = problems
        self.world_readable = world_readable
        """Names of the configs whose file every user of the machine may read."""

    def names(self) -> list[str]:
        return list(self._configs)

    def problems(self) -> list[Problem]:
        """All that is wrong with the folder and its files, in the order of file names."""
        return list(self._problems)

    def get(self, name: str) -> LLMConfig:
        """The config of that name. Raises LLMConfigsNotAvailable, saying why, where it is not loaded."""
        if name in self._configs:
            return self._configs[name]
        raise LLMConfigsNotAvailable(f"LLM config {name[:100]!r} is {self.why_missing(name)}.")

    __getitem__ = get

    def why_missing(self, name: str) -> str:
        """Why that name is not loaded, in a few words."""
        files = [name + suffix for suffix in SUFFIXES]
        reasons = [str(problem) for problem in self._problems if problem.file in files]
        reasons = reasons or [str(problem) for problem in self._problems if not problem.file]
        return "not loaded: " + ("; ".join(reasons) or "no file of that name in LLM_CONFIGS_PATH")

    def with_problem(self, problem: Problem) -> Configs:
        return Configs(self._configs, (problem, *self._problems), self.world_readable)

    def __contains__(self, name: object) -> bool:
        return name in self._configs

    def __iter__(self) -> Iterator[str]:
        return iter(self._configs)

    def __len__(self) -> int:
        return len(self._configs)

    def __repr__(self) -> str:
        return f"<Configs {', '.join(self._configs)}; {len(self._problems)} problems>"


_lock = threading.Lock()
_folder: _Folder | None = None


def get_configs() -> Configs:
    """The configs of LLM_CONFIGS_PATH as its files are now.

    Costs one stat per file and may be called from any thread. The result does not change any more: ask again
    for each use.
    """
    global _folder
    if not conf.configs_path:
        return Configs({}, (Problem("", "", "LLM_CONFIGS_PATH is not set"),))
    key = (os.fspath(conf.configs_path), tuple(sorted(conf.config_classes.items())))
    with _lock:
        if _folder is None or _folder.key != key:
            _folder = _Folder(key)
        folder = _folder
    return folder.look()


@dataclass(frozen=True)
class _File:
    """A file as it was last read, and the last good config that came of it."""

    signature: Signature | None
    digest: bytes
    settled: bool
    config: LLMConfig | None
    problems: tuple[Problem, ...]
    world_readable: bool


class _Folder:
    def __init__(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> None:
        self.key = key
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._configs = Configs({})

    def look(self) -> Configs:
        with self._lock:
            try:
                found = scan(self.key[0], self._files)
            except OSError as error:
                # A mount that is away for a moment must not take every model with it.
                stale = "; the last good versions stay in force" if self._configs else ""
                reason = f"LLM_CONFIGS_PATH cannot be read: {error.strerror}{stale}"
                return self._configs.with_problem(Problem("", "", reason))
            files = {name: self._look_at(name, status) for name, status in found.items()}
            if files != self._files:
                self._files, self._configs = files, _assemble(files)
            return self._configs

    def _look_at(self, name: str, status: os.stat_result | None) -> _File:
        known = self._files.get(name)
        if known and known.settled and known.signature == (signature(status) if status else None):
            return known
        try:
            if status is None:
                raise Unreadable("is a link that leads nowhere")
            raw, status = read(self.key[0], name)
        except Unreadable as error:
            return _settle(known, status, b"", [Problem(name, "", str(error))])
        digest = hashlib.sha256(raw).digest()
        if known and known.digest == digest:
            return replace(known, **_stamp(status))
        return _settle(known, status, digest, build(name, raw))


def _stamp(status: os.stat_result | None) -> dict[str, Any]:
    if status is None:
        return {"signature": None, "settled": True, "world_readable": False}
    return {
        "signature": signature(status),
        "settled": abs(time.time() - status.st_mtime) > SETTLED_AFTER,
        "world_readable": bool(status.st_mode & stat.S_IROTH),
    }


def _settle(
    known: _File | None, status: os.stat_result | None, digest: bytes, result: LLMConfig | list[Problem]
) -> _File:
    if isinstance(result, LLMConfig):
        return _File(digest=digest, config=result, problems=(), **_stamp(status))
    good = known.config if known else None
    if good:
        result = [replace(item, reason=f"{item.reason}; the last good version stays in force") for item in result]
    if not known or known.problems != tuple(result):
        for problem in result:
            logger.warning("LLM config file not loaded: %s", problem)
    return _File(digest=digest, config=good, problems=tuple(result), **_stamp(status))


def _assemble(files: Mapping[str, _File]) -> Configs:
    configs: dict[str, LLMConfig] = {}
    problems: list[Problem] = []
    readable: set[str] = set()
    for name, file in files.items():
        problems += file.problems
        if file.config is None:
            continue
        if file.config.name in configs:
            problems.append(Problem(name, "name", "is already used by the file with the other ending"))
            continue
        configs[file.config.name] = file.config
        if file.world_readable:
            readable.add(file.config.name)
    return Configs(configs, tuple(problems), frozenset(readable))
