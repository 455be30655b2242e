"""LangChain's ChatOpenAI, one instance for all calls, without retries."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from .. import workload
from . import Call, Case


class Contender:
    distribution = "langchain-openai"
    variants = ("",)

    def __init__(self, base_url: str) -> None:
        self.chat: Any = ChatOpenAI(
            model=workload.MODEL,
            base_url=f"{base_url}/v1",
            api_key=workload.KEY,
            max_retries=0,
            stream_usage=True,
        )
        self.with_tools = self.chat.bind_tools([workload.TOOL_SPEC])
        self.system = workload.system_text()

    def prepare(self, case: Case) -> Call:
        kinds: dict[str, Any] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
        messages = [
            kinds[message["role"]](content=message["content"])
            for message in workload.messages(self.system, case.history)
        ]

        def plain() -> str:
            return str(self.chat.invoke(messages).content)

        def tool() -> str:
            answer = self.with_tools.invoke(messages)
            messages.append(answer)
            for call in answer.tool_calls:
                result = workload.find_order(**call["args"])
                messages.append(ToolMessage(content=json.dumps(result), tool_call_id=call["id"]))
            return str(self.with_tools.invoke(messages).content)

        def stream() -> str:
            return "".join(str(chunk.content) for chunk in self.chat.stream(messages))

        return {"plain": plain, "tool": tool, "stream": stream}[case.kind]
