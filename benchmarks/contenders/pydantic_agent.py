"""A pydantic-ai agent on its OpenAI model, one agent for all calls."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from .. import workload
from . import Call, Case


class Contender:
    distribution = "pydantic-ai-slim"
    variants = ("",)

    def __init__(self, base_url: str) -> None:
        client = AsyncOpenAI(base_url=f"{base_url}/v1", api_key=workload.KEY, max_retries=0)
        model = OpenAIChatModel(workload.MODEL, provider=OpenAIProvider(openai_client=client))
        system = workload.system_text()
        self.agent: Any = Agent(model, system_prompt=system)
        self.with_tools: Any = Agent(model, system_prompt=system)
        self.with_tools.tool_plain(workload.find_order)
        # One loop for all calls: a new one each time would cost it a new connection.
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def prepare(self, case: Case) -> Call:
        def plain() -> str:
            return str(self.agent.run_sync(workload.MESSAGE).output)

        def tool() -> str:
            return str(self.with_tools.run_sync(workload.MESSAGE).output)

        async def streamed() -> str:
            async with self.agent.run_stream(workload.MESSAGE) as result:
                return "".join([piece async for piece in result.stream_text(delta=True, debounce_by=None)])

        def stream() -> str:
            return self.loop.run_until_complete(streamed())

        return {"plain": plain, "tool": tool, "stream": stream}[case.kind]
