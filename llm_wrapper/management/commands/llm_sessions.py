"""`manage.py llm_sessions`: which sessions there are, and what was said in one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Exists, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from llm_wrapper.history.text import storable
from llm_wrapper.management.conversation import find_session, find_user
from llm_wrapper.management.terminal import (
    Terminal,
    clear_database_errors,
    closed_pipe_ends_it,
    cost_of,
    one_line,
    wants_colours,
)
from llm_wrapper.management.transcript import write_steps
from llm_wrapper.models import ChatHistory, Message

HEADINGS = ("session", "title", "user", "prompt", "messages", "tokens in", "out", "cost", "updated")
NUMBERS = {"messages", "tokens in", "out", "cost"}
# Narrower than this a title tells nothing.
NARROWEST_TITLE, WIDEST_TITLE = 16, 60
# What a model asks of tools has no text.
SAID = Q(type__in=[Message.Type.USER, Message.Type.ASSISTANT]) & ~Q(text="")


class Command(BaseCommand):
    help = "List the sessions, the last used first, or show one: llm_sessions show ID."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=("list", "show"), default="list")
        parser.add_argument("id", nargs="?", help="The session to show.")
        parser.add_argument("--user", metavar="NAME", help="Only sessions of this user.")
        parser.add_argument("--search", metavar="TEXT", help="Only those with this in their title or messages.")
        parser.add_argument("--limit", type=int, default=20, help="At most so many (20).")
        parser.add_argument("--archived", action="store_true", help="Archived ones instead of the others.")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        colours = wants_colours(self.stdout) and not options["no_color"]
        self.terminal = Terminal(self, colours=colours or bool(options["force_color"]))
        with clear_database_errors(), closed_pipe_ends_it():
            self.run(action, options)

    def run(self, action: str, options: dict[str, Any]) -> None:
        if action == "show":
            if not options["id"]:
                raise CommandError("Say which session: llm_sessions show ID.")
            self.show(find_session(options["id"]))
            return
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        self.list(**{name: options[name] for name in ("user", "search", "limit", "archived")})

    def show(self, chat: ChatHistory) -> None:
        about = [f"Session {chat.public_id}", one_line(chat.title), f"{chat.status}"]
        if chat.user is not None:
            about.append(f"user {one_line(chat.user.get_username())}")
        if chat.prompt_template is not None:
            about.append(f"prompt {one_line(chat.prompt_template.name)}")
        self.terminal.say(", ".join(part for part in about if part), "bold")
        self.terminal.say(
            f"{chat.turn_count} turn(s), {chat.input_tokens_count:,} tokens in, {chat.output_tokens_count:,} out, "
            f"cost {cost_of(chat)}, begun {_moment(chat.created_at)}, updated {_moment(chat.updated_at)}",
            "dim",
        )
        write_steps(self.terminal, chat.messages.select_related("user").order_by("position"))

    def list(self, *, user: str | None, search: str | None, limit: int, archived: bool) -> None:
        chats = ChatHistory.objects.all()
        wanted = Q(status=ChatHistory.Status.ARCHIVED)
        chats = chats.filter(wanted if archived else ~wanted)
        if user is not None:
            chats = chats.filter(user=find_user(user))
        if search:
            words = storable(search)
            said = Message.objects.filter(SAID, chat=OuterRef("pk"), text__icontains=words)
            chats = chats.filter(Q(title__icontains=words) | Exists(said))
        found = list(_listed(chats)[: limit + 1])
        if not found:
            self.terminal.say("No sessions.")
            return
        self.table([_cells(chat) for chat in found[:limit]])
        if len(found) > limit:
            self.terminal.say(f"There are more than {limit}: see --limit and --search.", "dim")

    def table(self, lines: Sequence[dict[str, str]]) -> None:
        widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in HEADINGS}
        if self.terminal.interactive:
            others = sum(widths.values()) - widths["title"] + 2 * (len(HEADINGS) - 1)
            left = shutil.get_terminal_size().columns - others
            widths["title"] = min(widths["title"], max(left, NARROWEST_TITLE))

        def row(cells: dict[str, str]) -> str:
            cut = {name: one_line(cells[name], widths[name]) for name in HEADINGS}
            return "  ".join(
                cut[name].rjust(widths[name]) if name in NUMBERS else cut[name].ljust(widths[name]) for name in HEADINGS
            ).rstrip()

        self.terminal.say(row({name: name for name in HEADINGS}), "bold")
        for line in lines:
            self.terminal.say(row(line))


def _listed(chats: QuerySet[ChatHistory]) -> QuerySet[Any]:
    """The chats, the last used first, with what the list shows of their messages."""
    said = Message.objects.filter(SAID, chat=OuterRef("pk"), left_context_at=None).order_by()
    count = said.values("chat").annotate(number=Count("pk")).values("number")
    first = Message.objects.filter(chat=OuterRef("pk"), type=Message.Type.USER).order_by("position").values("text")
    return (
        chats.select_related("prompt_template", "user")
        .defer("chat_history", "current_context_variables")
        .annotate(
            said=Coalesce(Subquery(count, output_field=IntegerField()), 0),
            first_words=Subquery(first[:1]),
        )
        .order_by("-updated_at", "-pk")
    )


def _cells(chat: Any) -> dict[str, str]:
    # A session without a title goes by its first words.
    title = chat.title or chat.first_words or ""
    cells = (
        str(chat.public_id),
        one_line(title, WIDEST_TITLE),
        one_line(chat.user.get_username()) if chat.user is not None else "",
        one_line(chat.prompt_template.name) if chat.prompt_template is not None else "",
        f"{chat.said:,}",
        f"{chat.input_tokens_count:,}",
        f"{chat.output_tokens_count:,}",
        cost_of(chat),
        _moment(chat.updated_at),
    )
    return dict(zip(HEADINGS, cells, strict=True))


def _moment(when: Any) -> str:
    return timezone.localtime(when).strftime("%Y-%m-%d %H:%M")
