"""`litellm.completion` as its documentation shows it; the variant `tuned` is what costs it least."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices

import litellm

from .. import workload
from . import AsyncCall, Call, Case


class Contender:
    distribution = "litellm"
    variants = ("", "tuned")

    def __init__(self, base_url: str) -> None:
        litellm.suppress_debug_info = True
        litellm.disable_hf_tokenizer_download = True
        self.api_base = f"{base_url}/v1"
        self.system = workload.system_text()

    def _arguments(self, case: Case) -> dict[str, Any]:
        """`tuned`: the provider that does without the OpenAI SDK, and no logging of streams."""
        tuned = case.variant == "tuned"
        litellm.disable_streaming_logging = tuned
        return {
            "model": f"{'hosted_vllm' if tuned else 'openai'}/{workload.MODEL}",
            "api_base": self.api_base,
            "api_key": workload.KEY,
            "max_retries": 0,
            "messages": list(workload.messages(self.system, case.history)),
        }

    def prepare(self, case: Case) -> Call:
        arguments = self._arguments(case)
        messages, complete = arguments["messages"], litellm.completion

        def plain() -> str:
            return str(complete(**arguments).choices[0].message.content)

        def tool() -> str:
            tools = [workload.TOOL_SPEC]
            message = complete(**arguments, tools=tools).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                result = workload.find_order(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
            return str(complete(**arguments, tools=tools).choices[0].message.content)

        def stream() -> str:
            pieces = []
            for chunk in complete(**arguments, stream=True, stream_options={"include_usage": True}):
                if chunk.choices:
                    pieces.append(chunk.choices[0].delta.content or "")
            return "".join(pieces)

        return {"plain": plain, "tool": tool, "stream": stream}[case.kind]

    async def aprepare(self, case: Case) -> AsyncCall:
        arguments = self._arguments(case)

        async def plain() -> str:
            return str((await litellm.acompletion(**arguments)).choices[0].message.content)

        return plain
