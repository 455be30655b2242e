"""A turn in the terminal: its events as they come, its error in one line, and Ctrl-C that stops it alone."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager

from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError

from llm_wrapper import events
from llm_wrapper.errors import LLMWrapperError, MissingContextVariables

from .conversation import Conversation
from .terminal import Terminal, money, one_line, shown, tokens
from .transcript import LONGEST_TOOL_LINE, asked_for

Turn = Generator[events.Event, None, None]


class Answering:
    """Shows turns of one conversation."""

    def __init__(self, terminal: Terminal, conversation: Conversation) -> None:
        self.terminal, self.conversation = terminal, conversation
        self.line_open = False
        self.text_came = False

    def run(self, begin: Callable[[], Turn]) -> bool:
        """Run a turn and show it; whether it was answered. Ctrl-C ends it as cancelled and keeps what had arrived."""
        newest, started = self.conversation.newest_turn(), time.monotonic()
        self.line_open = self.text_came = False
        turn: Turn | None = None
        try:
            turn = begin()
            with closing(turn):
                for event in turn:
                    self.show(event)
        except KeyboardInterrupt:
            with uninterrupted():
                if turn is not None:
                    turn.close()
                # The interrupt may have come where the turn could not take it.
                self.conversation.end_after(newest)
            self.end_line()
            self.terminal.say("Stopped; what had arrived is kept.", "dim")
            return False
        except (LLMWrapperError, ObjectDoesNotExist, DatabaseError) as error:
            self.end_line()
            self.terminal.complain(described(error))
            return False
        self.terminal.say(f", {time.monotonic() - started:.1f} s", "dim")
        return True

    def show(self, event: events.Event) -> None:
        say = self.terminal.say
        match event:
            case events.LLMCallStarted():
                self.begin_line(event.config_name)
            case events.TextDelta():
                say(shown(event.text), end="")
                self.text_came = True
            case events.StreamReset():
                self.text_came = False
            case events.LLMCallFinished(error_code=code) if code:
                say(f"({code})", "dim", end="")
            case events.ToolCallStarted():
                say(asked_for(event.name, event.arguments), "dim")
                self.line_open = False
            case events.ToolCallFinished():
                say(f"  {event.status}: {one_line(event.content, LONGEST_TOOL_LINE)}", "dim")
            case events.TurnFinished():
                if not self.line_open:
                    self.begin_line(event.reply.config_name)
                if not self.text_came:
                    say(shown(str(event.reply)), end="")
                self.end_line()
                say(f"  {tokens(event.usage)}, cost {money(event.cost)}", "dim", end="")

    def begin_line(self, config_name: str) -> None:
        self.end_line()
        self.text_came = False
        self.terminal.say(f"{one_line(config_name)} > ", "model", end="")
        self.line_open = True

    def end_line(self) -> None:
        if self.line_open:
            self.terminal.say()
        self.line_open = False


def described(error: Exception) -> str:
    """An error in one line, with what to do."""
    if isinstance(error, MissingContextVariables):
        wanted = " ".join(f"{name}=..." for name in error.names)
        return f"The prompt wants values: give them with /var {wanted}"
    code = f" ({error.code})" if isinstance(error, LLMWrapperError) else ""
    return f"{str(error).strip() or type(error).__name__}{code}"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which Ctrl-C does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
