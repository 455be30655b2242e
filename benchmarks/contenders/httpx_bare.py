"""The floor: one POST and one parse, without any library for models."""

from __future__ import annotations

import json
from typing import Any

import httpx

from .. import workload
from . import AsyncCall, Call, Case


class Contender:
    distribution = "httpx"
    variants = ("",)

    def __init__(self, base_url: str) -> None:
        self.url = f"{base_url}/v1/chat/completions"
        self.headers = {"Authorization": f"Bearer {workload.KEY}"}
        self.client = httpx.Client(headers=self.headers, timeout=60)
        self.system = workload.system_text()
        self.aclient: httpx.AsyncClient | None = None

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        response = self.client.post(self.url, json=body)
        response.raise_for_status()
        message: dict[str, Any] = response.json()["choices"][0]["message"]
        return message

    def prepare(self, case: Case) -> Call:
        messages = workload.messages(self.system, case.history)
        body: dict[str, Any] = {"model": workload.MODEL, "messages": messages}

        def plain() -> str:
            return str(self._post(body)["content"])

        def tool() -> str:
            body["tools"] = [workload.TOOL_SPEC]
            message = self._post(body)
            messages.append(message)
            for call in message["tool_calls"]:
                result = workload.find_order(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})
            return str(self._post(body)["content"])

        def stream() -> str:
            body.update(stream=True, stream_options={"include_usage": True})
            pieces = []
            with self.client.stream("POST", self.url, json=body) as response:
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        for choice in json.loads(line[6:])["choices"]:
                            pieces.append(choice["delta"].get("content") or "")
            return "".join(pieces)

        return {"plain": plain, "tool": tool, "stream": stream}[case.kind]

    async def aprepare(self, case: Case) -> AsyncCall:
        if self.aclient is None:
            self.aclient = httpx.AsyncClient(headers=self.headers, timeout=60)
        client = self.aclient
        body = {"model": workload.MODEL, "messages": workload.messages(self.system, case.history)}

        async def plain() -> str:
            response = await client.post(self.url, json=body)
            return str(response.json()["choices"][0]["message"]["content"])

        return plain
