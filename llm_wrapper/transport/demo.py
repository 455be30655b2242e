"""The embedded demo provider: works without network or key, and says that it is a demo.

It is a litellm custom provider, so that a demo conversation takes the same way as a real one. It uses the
tools it is given, streams word by word, counts words as tokens, and follows a script where its config has one:
a list of steps, one per call (the last one repeats): {"rate_limit": seconds}, {"fail": code}, {"text": "…"}.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import litellm
from litellm.types.utils import (
    ChatCompletionMessageToolCall,
    Choices,
    Function,
    Message,
    ModelResponse,
    Usage,
)

FAILURES: dict[str, Any] = {
    "provider_timeout": litellm.Timeout,
    "provider_overloaded": litellm.ServiceUnavailableError,
    "provider_server_error": litellm.InternalServerError,
    "authentication_failed": litellm.AuthenticationError,
    "bad_provider_request": litellm.BadRequestError,
    "content_refused": litellm.ContentPolicyViolationError,
    "context_window_exceeded": litellm.ContextWindowExceededError,
}


class DemoProvider(litellm.CustomLLM):
    """Answers for model ids `demo/<name>`."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, int] = {}
        self._lock = threading.Lock()

    def completion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self._answer(kwargs)

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self._answer(kwargs)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from _chunks(self._answer(kwargs))

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in _chunks(self._answer(kwargs)):
            yield chunk

    def _answer(self, call: dict[str, Any]) -> ModelResponse:
        messages, options = call["messages"], call.get("optional_params") or {}
        step = self._next_step(call["model"], options.get("demo_script") or [])
        if "rate_limit" in step:
            raise _rate_limit(call["model"], float(step["rate_limit"]))
        if "fail" in step:
            raise _failure(call["model"], step["fail"])
        request = None if "text" in step else _tool_request(messages, options.get("tools") or [])
        text = "" if request else step.get("text") or _reply(messages)
        message = Message(content=text or None, role="assistant", tool_calls=[request] if request else None)
        words_in = sum(len(str(entry.get("content") or "").split()) for entry in messages)
        words_out = len(text.split()) or 10
        response = ModelResponse(
            id=f"demo-{uuid.uuid4().hex[:12]}",
            model=call["model"],
            created=int(time.time()),
            choices=[Choices(message=message, finish_reason="tool_calls" if request else "stop", index=0)],
        )
        response.usage = Usage(prompt_tokens=words_in, completion_tokens=words_out, total_tokens=words_in + words_out)
        return response

    def _next_step(self, model: str, script: list[dict[str, Any]]) -> dict[str, Any]:
        if not script:
            return {}
        with self._lock:
            key = f"{model} {json.dumps(script, sort_keys=True)}"
            number = self._calls.get(key, 0)
            self._calls[key] = number + 1
        return script[min(number, len(script) - 1)]


def _rate_limit(model: str, seconds: float) -> Exception:
    response = httpx.Response(
        429, headers={"retry-after": str(seconds)}, request=httpx.Request("POST", "https://demo.invalid")
    )
    return litellm.RateLimitError("The demo's script says: rate limited.", "demo", model, response=response)


def _failure(model: str, code: str) -> Exception:
    error: Exception = FAILURES[code](message=f"The demo's script says: {code}.", model=model, llm_provider="demo")
    return error


def _tool_request(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> ChatCompletionMessageToolCall | None:
    """Ask for the first tool that this turn has not used yet, with arguments picked from the user's words."""
    asked = max((at for at, entry in enumerate(messages) if entry["role"] == "user"), default=0)
    used = {call["function"]["name"] for entry in messages[asked:] for call in entry.get("tool_calls") or []}
    words = str(messages[asked].get("content") or "") if messages else ""
    for tool in tools:
        function = tool["function"]
        if function["name"] in used:
            continue
        schema = function.get("parameters") or {}
        values = {
            name: _value(schema.get("properties", {}).get(name, {}), words) for name in schema.get("required", [])
        }
        return ChatCompletionMessageToolCall(
            id=f"call_{uuid.uuid4().hex[:12]}",
            type="function",
            function=Function(name=function["name"], arguments=json.dumps(values, ensure_ascii=False)),
        )
    return None


def _value(schema: dict[str, Any], words: str) -> Any:
    """A value of the schema's type, taken from the user's words where they have one."""
    if schema.get("enum"):
        return schema["enum"][0]
    numbers = re.findall(r"\d+", words)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in ("integer", "number"):
        return int(numbers[0]) if numbers else 1
    return {"boolean": True, "array": [], "object": {}}.get(kind, numbers[0] if numbers else words[:200])


def _reply(messages: list[dict[str, Any]]) -> str:
    last = messages[-1] if messages else {"role": "user", "content": ""}
    words = str(last.get("content") or "")
    if last["role"] == "tool":
        return f"[demo, not a language model] The tool {last.get('name', '')} answered: {words}".replace("  ", " ")
    return f"[demo, not a language model] You wrote: {words}"


def _chunks(response: ModelResponse) -> Iterator[dict[str, Any]]:
    """The answer as litellm's generic streaming chunks: word by word, then usage."""
    choice = response.choices[0]
    for word in re.findall(r"\S+\s*", choice.message.content or ""):
        yield _chunk(text=word)
    for index, call in enumerate(choice.message.tool_calls or []):
        yield _chunk(
            tool_use={
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
                "index": index,
            }
        )
    usage = response.usage
    counts = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    yield _chunk(finish_reason=choice.finish_reason, is_finished=True, usage=counts)


def _chunk(**values: Any) -> dict[str, Any]:
    return {
        "text": "",
        "tool_use": None,
        "is_finished": False,
        "finish_reason": "",
        "usage": None,
        "index": 0,
        **values,
    }
