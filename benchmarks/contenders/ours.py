"""The package through its public door, with everything on: template, rows, cost, route."""

from __future__ import annotations

import os
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

from .. import workload
from ..rows import add_messages, bytes_written, count_statements, setup_django
from . import AsyncCall, Call, Case

SMALL = 100
"""Chats up to this length are made anew for each turn, so that the turn stands at that very message."""


class Contender:
    """A variant is the name of a config; with ` + wrapper`, the wrapper is made anew on the stored chat within
    the measured time, as a web request does."""

    distribution = "llm_wrapper"
    variants = ("OpenAIConfig", "OpenAICompatibleConfig", "OpenAIConfig + wrapper", "OpenAICompatibleConfig + wrapper")

    def __init__(self, base_url: str) -> None:
        setup_django()
        self.wrappers: dict[tuple[str, int], Any] = {}

    def prompt(self, case: Case) -> str:
        """The name of the case's prompt; the rows are made where they are missing."""
        from llm_wrapper.models import LLMConfigName, PromptTemplate, Tool

        config = case.variant.partition(" ")[0]
        kind = "tool" if case.kind == "tool" else "text"
        prompt, new = PromptTemplate.objects.get_or_create(
            name=f"{kind} {config} {case.window or 'all'}",
            defaults={"system_prompt_template": workload.SYSTEM_TEMPLATE, "history_window": case.window},
        )
        if new:
            prompt.llm_config_names.add(LLMConfigName.objects.get_or_create(name=config)[0])
            if kind == "tool":
                tool = Tool.objects.get_or_create(
                    name=workload.TOOL_NAME,
                    defaults={
                        "tool_code": "benchmarks.tools.find_order",
                        "tool_json_spec": workload.TOOL_SPEC["function"],
                    },
                )[0]
                prompt.tools.add(tool)
        return str(prompt.name)

    def wrapper(self, case: Case) -> Any:
        """A wrapper on a chat of the case's length."""
        from llm_wrapper.repositories import LLMCommunicationWrapper

        name = self.prompt(case)
        found = self.wrappers.get((name, case.history))
        if found is not None:
            return found
        wrapper = LLMCommunicationWrapper(prompt_name=name, initializing_context_vars=workload.CONTEXT)
        if case.history:
            add_messages(wrapper.get_chat_history_object(), workload.history(case.history))
        if case.history > SMALL:
            self.wrappers[name, case.history] = wrapper
        return wrapper

    def prepare(self, case: Case) -> Call:
        from llm_wrapper.events import TextDelta
        from llm_wrapper.repositories import LLMCommunicationWrapper

        wrapper = self.wrapper(case)
        anew = case.variant.endswith("+ wrapper")

        def current() -> Any:
            if not anew:
                return wrapper
            return LLMCommunicationWrapper(
                prompt_name=wrapper.prompt_name,
                chat_history_id=wrapper.chat_history_id,
                initializing_context_vars=workload.CONTEXT,
            )

        def whole() -> str:
            return str(current().send_user_message_and_get_response(workload.MESSAGE))

        def stream() -> str:
            events = current().stream_user_message(workload.MESSAGE)
            return "".join([event.text for event in events if isinstance(event, TextDelta)])

        return stream if case.kind == "stream" else whole

    async def aprepare(self, case: Case) -> AsyncCall:
        from asgiref.sync import sync_to_async

        wrapper = await sync_to_async(self.wrapper)(case)

        async def whole() -> str:
            return str(await wrapper.asend_user_message_and_get_response(workload.MESSAGE))

        return whole

    def statements(self, call: Call) -> dict[str, int]:
        return count_statements(call)

    def bytes_written(self) -> int:
        return bytes_written()
