"""django-ai-assistant: an assistant whose thread lives in the same kind of SQLite file as the package's chats."""

from __future__ import annotations

import asyncio
import os
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
os.environ["BENCH_EXTRA_APP"] = "django_ai_assistant"
os.environ["BENCH_SQLITE"] = "assistant.sqlite3"

import django_ai_assistant  # noqa: F401  (missing: say so before anything is set up)

from .. import workload
from ..rows import count_statements, setup_django
from . import Call, Case


class Contender:
    distribution = "django-ai-assistant"
    variants = ("",)

    def __init__(self, base_url: str) -> None:
        os.environ.update(OPENAI_BASE_URL=f"{base_url}/v1", OPENAI_API_KEY=workload.KEY)
        setup_django()
        from django_ai_assistant import AIAssistant, method_tool

        class Plain(AIAssistant):
            id = "plain"
            name = "Plain"
            instructions = workload.system_text()
            model = workload.MODEL

        class WithTool(AIAssistant):
            id = "with_tool"
            name = "With a tool"
            instructions = workload.system_text()
            model = workload.MODEL

            @method_tool
            def find_order(self, order_number: int) -> dict:  # type: ignore[type-arg]
                """Look up one of the customer's own orders."""
                return workload.find_order(order_number)

        self.classes: dict[str, Any] = {"plain": Plain, "tool": WithTool, "stream": Plain}
        self.loop = asyncio.new_event_loop()

    def prepare(self, case: Case) -> Call:
        from django_ai_assistant.models import Thread

        thread = Thread.objects.create(name="bench", assistant_id=case.kind)
        assistant = self.classes[case.kind]()

        def whole() -> str:
            return str(assistant.run(workload.MESSAGE, thread_id=thread.pk))

        async def streamed() -> str:
            pieces: list[str] = []
            async for piece in assistant.astream(workload.MESSAGE, thread=thread):
                pieces.append(piece)
            return "".join(pieces)

        def stream() -> str:
            return self.loop.run_until_complete(streamed())

        return stream if case.kind == "stream" else whole

    def statements(self, call: Call) -> dict[str, int]:
        return count_statements(call)
