"""Reads the Markdown pages: their code blocks, links, commands and tables, and runs the code."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asgiref.sync import async_to_sync
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "llm_configs").glob("*.md")),
]

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w/.-]+)\n")
# Commands that a page may run: they neither ask nor change anything outside the test.
HARMLESS = ("llm_configs", "check")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where its content starts, `file` the path in its first line's comment."""

    info: str
    body: str
    line: int

    @property
    def file(self) -> str:
        found = FILE_NAME.match(self.body)
        return found[1] if found else ""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [
        Block(found["info"].strip(), found["body"], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
    ]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def code_lines(text: str) -> Iterator[str]:
    """Every line of a shell block and every inline code span: where commands are named."""
    for block in blocks(text):
        if block.info == "sh":
            yield from block.body.splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(text))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row whose first cell is code, without the backticks."""
    found = []
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip().strip("`") for cell in cells])
    return found


def anchors(text: str) -> set[str]:
    """The anchors that headings get on the usual Markdown sites."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


class Runner:
    """Runs the blocks of one page in order, in one namespace, as a reader would.

    YAML that names its file goes into `folder`; Python that names its file becomes a module; commands of
    shell blocks run where they are harmless; a text block right after Python is what it must have printed.
    """

    def __init__(self, page: str, folder: Path, modules: dict[str, types.ModuleType]) -> None:
        self.page, self.folder, self.modules = page, folder, modules
        self.namespace: dict[str, object] = {"__name__": "page"}
        self.printed = ""

    def run(self) -> int:
        """Run the page; gives the number of Python blocks that ran."""
        ran = 0
        found = blocks(text_of(self.page))
        for block, before in zip(found, [None, *found], strict=False):
            if block.info == "python":
                self.printed = self.python(block)
                ran += 1
            elif block.info == "text" and before is not None and before.info == "python":
                said, printed = block.body.strip(), self.printed.strip()
                assert printed == said, f"{self.page}:{block.line}: it prints:\n{printed}"
            elif block.info == "yaml" and block.file.startswith("llm_configs/"):
                (self.folder / Path(block.file).name).write_text(block.body, encoding="utf-8")
            elif block.info == "sh":
                self.shell(block)
        return ran

    def python(self, block: Block) -> str:
        # Padded, so that a traceback shows the line of the page.
        source = "\n" * (block.line - 1) + block.body
        code = compile(source, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        namespace = self.module(block.file) if block.file else self.namespace
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:
                # async_to_sync keeps the ORM on this thread, whose connection the test's transaction is on.
                async_to_sync(self.awaited)(code, namespace)
            else:
                exec(code, namespace)  # noqa: S102 (the project's own pages)
        return printed.getvalue()

    @staticmethod
    async def awaited(code: types.CodeType, namespace: dict[str, object]) -> None:
        await eval(code, namespace)  # noqa: S307 (as above)

    def module(self, file: str) -> dict[str, object]:
        name = file.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        self.modules[name] = sys.modules[name] = module
        return module.__dict__

    def shell(self, block: Block) -> None:
        for line in block.body.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "manage.py"] and words[2] in HARMLESS:
                with contextlib.redirect_stdout(io.StringIO()):
                    call_command(*words[2:])
