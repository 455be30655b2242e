"""`make demo`: one conversation in the terminal, without key or network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command

from llm_wrapper import configs, events
from llm_wrapper.models import ChatHistory, PromptTemplate
from llm_wrapper.repositories import LLMCommunicationWrapper

QUESTION = "Why was I charged twice for order 1042?"


class Command(BaseCommand):
    # The tables are made by the command itself, so there is nothing to check yet.
    requires_system_checks = ()
    help = "Prepare the demo database and run one conversation that uses a tool and survives a rate limit."

    def handle(self, *args: Any, **options: Any) -> None:
        self.step("Preparing the SQLite database and the demo rows")
        call_command("migrate", verbosity=0)
        if not PromptTemplate.objects.filter(name="support").exists():
            call_command("loaddata", Path(settings.BASE_DIR) / "fixtures" / "demo.json", verbosity=0)
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", "admin@example.com", "admin")
        for name in ("demo-limited", "demo-steady"):
            configs.warm_up(name)  # an earlier demo may have left it cooling

        self.step("Starting a chat on the prompt template 'support' (loading the LLM client takes some seconds)")
        wrapper = LLMCommunicationWrapper(
            prompt_name="support", initializing_context_vars={"plan": "pro", "name": "Ada"}
        )
        self.stdout.write(f"\n  you > {QUESTION}\n")
        stream = wrapper.stream_user_message(QUESTION, {"user_id": 7}, retry_on_openai_time_limit=True)
        for event in stream:
            self.show(event)
        self.transcript(wrapper.get_chat_history_object())
        self.next_steps(wrapper.chat_history_id)

    def step(self, text: str) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(f"== {text} ..."))
        self.stdout.flush()

    def show(self, event: events.Event) -> None:
        match event:
            case events.LLMCallStarted():
                why = event.route["why"]
                self.stdout.write(f"  call {event.attempt}: config {event.config_name} ({why})")
            case events.LLMCallFinished(error_code=code) if code:
                self.stdout.write(self.style.WARNING(f"  call failed: {code}; the turn moves to another config"))
            case events.ToolCallStarted():
                self.stdout.write(f"  tool {event.name}({event.arguments})")
            case events.ToolCallFinished():
                self.stdout.write(f"  tool result ({event.status}): {event.content}")
            case events.TextDelta():
                prefix = "\n  bot > " if not getattr(self, "_speaking", False) else ""
                self._speaking = True
                self.stdout.write(prefix + event.text, ending="")
            case events.TurnFinished():
                self.stdout.write("\n")

    def transcript(self, chat: ChatHistory) -> None:
        self.step(f"What is on record of chat {chat.pk}")
        for entry in chat.chat_history:
            text = entry["content"] or json.dumps(entry.get("tool_calls", ""))
            self.stdout.write(f"  {entry['role']:<9} | {text}".replace("\n", "\n            | "))
        self.stdout.write("")
        for turn in chat.turns.all():
            for call in turn.llm_calls.order_by("attempt"):
                cost = "unknown" if call.cost is None else f"{call.cost:.6f}"
                tokens = "-" if call.input_tokens is None else f"{call.input_tokens} in, {call.output_tokens} out"
                self.stdout.write(
                    f"  call {call.attempt}  {call.config_name:<13} {call.status:<7} {call.error_code or 'ok':<13}"
                    f" tokens {tokens:<14} cost {cost}\n          route: {call.route['why']}; "
                    f"skipped: {json.dumps(call.route['skipped'])}"
                )
        cost = "0" if not chat.cost else f"{chat.cost:.6f}"
        self.stdout.write(
            f"  sum     {chat.input_tokens_count} tokens in, {chat.output_tokens_count} out, cost {cost} "
            "(at the demo's made-up prices)\n"
        )

    def next_steps(self, chat_id: int) -> None:
        self.stdout.write(
            self.style.SUCCESS("The demo provider answered; it is not a language model.\n")
            + "Next:\n"
            + f"  make run     then open http://127.0.0.1:8000/admin/llm_wrapper/chathistory/{chat_id}/change/ "
            "(user admin, password admin)\n"
            "  a real model: copy llm_configs/openai.yml.example to llm_configs/openai.yml, export OPENAI_API_KEY,\n"
            "               run `.venv/bin/python manage.py llm_configs sync`, and choose the config in the prompt\n"
        )
