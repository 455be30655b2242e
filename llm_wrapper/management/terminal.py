"""What commands write to a terminal: text that cannot steer it, colours where they are wanted, and lines typed in."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TextIO

from django.core.management import BaseCommand, CommandError
from django.core.management.color import no_style
from django.db import OperationalError, ProgrammingError

from llm_wrapper.models import ChatHistory
from llm_wrapper.types import Usage

# They turn the direction of what follows, so that a line reads as something that it is not.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CODES = {"dim": "2", "bold": "1", "error": "31", "you": "1;32", "model": "1;36"}


def shown(text: str) -> str:
    """Text from elsewhere as a terminal may show it: line breaks and tabs stay, other control characters, which could
    move the cursor or change its colours, become U+FFFD. One character at a time, so that pieces of a stream may be
    given as they come."""
    return "".join(
        char if char in "\n\t" or not _steers(char) else "\N{REPLACEMENT CHARACTER}"
        for char in text.replace("\r\n", "\n")
    )


def one_line(text: str, most: int | None = None) -> str:
    """Text from elsewhere on one line, of at most so many characters."""
    line = " ".join(shown(text).split())
    return line if most is None or len(line) <= most else line[: max(most - 1, 0)] + "…"


def _steers(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in _TURNING


@contextmanager
def closed_pipe_ends_it() -> Iterator[None]:
    """Let a reader that has seen enough, as `head` has, end the command without a complaint."""
    try:
        yield
    except BrokenPipeError:
        # What Python would still write at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextmanager
def clear_database_errors() -> Iterator[None]:
    """Let a database that cannot be used end the command with one line that says what to do."""
    try:
        yield
    except (OperationalError, ProgrammingError) as error:
        raise CommandError(
            f"The database cannot be used: {one_line(str(error))}. If it is new, run `manage.py migrate` first."
        ) from error


def wants_colours(stream: Any, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours to the stream: to terminals only, and not with NO_COLOR (https://no-color.org)."""
    return bool(stream.isatty()) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def tokens(usage: Usage) -> str:
    if usage.input_tokens is None and usage.output_tokens is None:
        return "tokens unknown"
    counts = ("?" if count is None else f"{count:,}" for count in (usage.input_tokens, usage.output_tokens))
    return "{} tokens in, {} out".format(*counts)


def money(cost: Decimal | None) -> str:
    """A cost, which has no currency of its own: that of the prices."""
    return "unknown" if cost is None else f"{cost:,.6f}"


def cost_of(chat: ChatHistory) -> str:
    """What a chat cost. It is a lower bound where the cost of some calls is not known."""
    if not chat.unpriced_calls:
        return money(chat.cost)
    return f"at least {money(chat.cost)}" if chat.cost else money(None)


class Terminal:
    """Where a person and a command talk: `say` writes, `ask` reads a line.

    `interactive` says whether a person is typing; else the input is a file or a pipe.
    """

    def __init__(self, command: BaseCommand, source: TextIO | None = None, *, colours: bool | None = None) -> None:
        self.source: TextIO = source or sys.stdin
        self.target, self.errors = command.stdout, command.stderr
        self.colours = wants_colours(self.target) if colours is None else colours
        if not self.colours:
            # Django's own colours do not know NO_COLOR.
            command.style, command.stderr.style_func = no_style(), None
        self.interactive = bool(self.source.isatty()) and bool(self.target.isatty())
        self._readline = _readline() if self.interactive and self.source is sys.stdin else None

    def say(self, text: str = "", style: str = "", *, end: str = "\n") -> None:
        """Write text of our own; what comes from elsewhere goes through `shown` first."""
        self.target.write(self._fitting(self._styled(text, style)) + end, ending="")
        self.target.flush()

    def complain(self, text: str) -> None:
        """Write one line of what went wrong."""
        self.target.flush()
        line = self._fitting(one_line(text))
        self.errors.write(self._styled(line, "error") if self.errors.isatty() else line, style_func=str)
        self.errors.flush()

    def ask(self, prompt: str) -> str:
        """A line that was typed, which a backslash at its end continues on the next. Raises EOFError at the end of the
        input."""
        lines = [self._line(prompt)]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line("… "))
        return "\n".join(lines)

    def remember(self, line: str) -> None:
        """Offer a line again when the arrow key is pressed."""
        if self._readline is not None and line and "\n" not in line:
            self._readline.add_history(line)

    def _line(self, prompt: str) -> str:
        if not self.interactive:
            line = self.source.readline()
            if not line:
                raise EOFError
            return line.rstrip("\r\n")
        if self._readline is None:
            self.say(prompt, "you", end="")
            line = self.source.readline()
            if not line:
                raise EOFError
            return line.rstrip("\r\n")
        self.target.flush()
        return input(self._styled(prompt, "you", start="\001", stop="\002"))

    def _styled(self, text: str, style: str, *, start: str = "", stop: str = "") -> str:
        """The text in a style. `start` and `stop` go around the codes: so readline knows what has no width."""
        if not self.colours or not style or not text:
            return text
        return f"{start}\033[{_CODES[style]}m{stop}{text}{start}\033[0m{stop}"

    def _fitting(self, text: str) -> str:
        """The text in the characters that the target can write."""
        encoding = getattr(self.target, "encoding", None) or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)


def _readline() -> Any:
    """The module that lets a person edit the line, where Python has it."""
    try:
        import readline
    except ImportError:
        return None
    return readline
