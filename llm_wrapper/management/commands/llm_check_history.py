"""`manage.py llm_check_history [--repair]`: prove that rows, transcripts and counters agree."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory


class Command(BaseCommand):
    help = "Compare each chat's rows with its transcript and counters; exit 1 if any differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("chat_id", nargs="*", type=int, help="Chats to look at; none: all.")
        parser.add_argument("--repair", action="store_true", help="Write transcript and counters anew from the rows.")

    def handle(self, *args: Any, chat_id: list[int], repair: bool, **options: Any) -> None:
        chats = ChatHistory.objects.filter(pk__in=chat_id) if chat_id else ChatHistory.objects.all()
        # A chat that is answering now may be read between two of its steps.
        idle = chats.exclude(turns__status="running").order_by("pk")
        checked = wrong = 0
        for chat in idle.iterator(chunk_size=50):
            checked += 1
            found = list(audit.differences(chat))
            for difference in found:
                self.stderr.write(f"chat {chat.pk}: {difference}")
            if found and repair:
                audit.rebuild(chat.pk)
                self.stdout.write(f"chat {chat.pk}: transcript and counters written anew")
            wrong += bool(found)
        self.stdout.write(f"{checked} chat(s) checked, {wrong} with differences.")
        if wrong and not repair:
            raise CommandError("Rows are the truth; --repair writes transcript and counters anew from them.")
