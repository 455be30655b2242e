"""The OpenAI SDK, one client for all calls, without retries."""

from __future__ import annotations

import json
from typing import Any

import openai

from .. import workload
from . import Call, Case


class Contender:
    distribution = "openai"
    variants = ("",)

    def __init__(self, base_url: str) -> None:
        self.client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=workload.KEY, max_retries=0)
        self.system = workload.system_text()

    def prepare(self, case: Case) -> Call:
        messages: list[Any] = list(workload.messages(self.system, case.history))
        create: Any = self.client.chat.completions.create

        def plain() -> str:
            return str(create(model=workload.MODEL, messages=messages).choices[0].message.content)

        def tool() -> str:
            tools = [workload.TOOL_SPEC]
            message = create(model=workload.MODEL, messages=messages, tools=tools).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                result = workload.find_order(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
            return str(create(model=workload.MODEL, messages=messages, tools=tools).choices[0].message.content)

        def stream() -> str:
            pieces = []
            options = {"include_usage": True}
            for chunk in create(model=workload.MODEL, messages=messages, stream=True, stream_options=options):
                if chunk.choices:
                    pieces.append(chunk.choices[0].delta.content or "")
            return "".join(pieces)

        return {"plain": plain, "tool": tool, "stream": stream}[case.kind]
