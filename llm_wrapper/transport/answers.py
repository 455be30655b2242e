"""What litellm gives back becomes a `Completion`: text, tool calls and usage, all checked."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from llm_wrapper import errors
from llm_wrapper.conf import conf
from llm_wrapper.types import Completion, ModelRequest, ToolCallRequest, Usage

from . import streams
from .failures import provider_error
from .prices import price

MAX_TOOL_CALLS_IN_REPLY = 256


class Assembler:
    """Puts an answer together from a stream's chunks, or from one whole message."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.text: list[str] = []
        self.length = 0
        self.tools: dict[int, dict[str, str]] = {}
        self.finish_reason = ""
        self.usage = Usage()
        self.raw_usage: Any = None
        self.model = ""
        self.response_id = ""

    def add(self, piece: Any) -> str:
        """Take in a chunk (`choice.delta`) or a whole response (`choice.message`); returns its text."""
        self.response_id = self.response_id or str(getattr(piece, "id", "") or "")
        self.model = self.model or str(getattr(piece, "model", "") or "")
        if getattr(piece, "usage", None) is not None:
            self.raw_usage, self.usage = piece.usage, read_usage(piece.usage)
        choices = getattr(piece, "choices", None) or []
        if not choices:
            return ""
        choice = choices[0]
        self.finish_reason = str(getattr(choice, "finish_reason", None) or self.finish_reason)
        content = getattr(choice, "delta", None) or getattr(choice, "message", None)
        for number, call in enumerate(getattr(content, "tool_calls", None) or []):
            self._add_tool_call(number, call)
        text = getattr(content, "content", None) or ""
        self.length += len(text)
        if self.length > conf.max_answer_chars:
            raise provider_error(
                self.request,
                errors.InvalidProviderResponse,
                f"It is longer than {conf.max_answer_chars} characters (LLM_WRAPPER_MAX_ANSWER_CHARS).",
            )
        self.text.append(text)
        return text

    def _add_tool_call(self, number: int, call: Any) -> None:
        index = getattr(call, "index", None)
        slot = self.tools.setdefault(number if index is None else index, {"id": "", "name": "", "arguments": ""})
        slot["id"] = slot["id"] or str(getattr(call, "id", None) or "")
        function = getattr(call, "function", None)
        slot["name"] += str(getattr(function, "name", None) or "")
        slot["arguments"] += str(getattr(function, "arguments", None) or "")
        self.length += len(str(getattr(function, "arguments", None) or ""))

    def whole(self, response: Any) -> Completion:
        """The answer of a call that was not streamed."""
        if not getattr(response, "choices", None):
            raise provider_error(self.request, errors.InvalidProviderResponse, "It has no choices.")
        self.add(response)
        return self._completion()

    def streamed(self, stream: Any) -> Completion:
        """The answer of a stream whose chunks were all added."""
        if not streams.really_ended(stream):
            raise provider_error(self.request, errors.StreamCut, "The stream ended without a finish reason.")
        reported = streams.reported_counts(stream)
        if not reported:
            self.usage = Usage()
        # litellm fills in estimates for what the provider did not count.
        if "prompt_tokens" not in reported:
            self.usage = replace(self.usage, input_tokens=None)
        if "completion_tokens" not in reported:
            self.usage = replace(self.usage, output_tokens=None)
        return self._completion()

    def _completion(self) -> Completion:
        """Raises where it is no answer: empty, refused, or with too many tool calls."""
        text = "".join(self.text)
        if self.finish_reason == "content_filter" and not text:
            raise provider_error(self.request, errors.ContentRefused, "Its finish_reason is content_filter.")
        if not text and not self.tools:
            raise provider_error(
                self.request,
                errors.InvalidProviderResponse,
                f"It is empty, with finish_reason {self.finish_reason}.",
            )
        if len(self.tools) > MAX_TOOL_CALLS_IN_REPLY:
            raise provider_error(
                self.request, errors.InvalidProviderResponse, f"It asks for {len(self.tools)} tool calls at once."
            )
        cost, source = price(self.request, self.usage, self.raw_usage)
        return Completion(
            text=text,
            tool_calls=self._tool_calls(),
            finish_reason=self.finish_reason,
            usage=self.usage,
            cost=cost,
            price_source=source,
            model=self.model,
            response_id=self.response_id,
        )

    def _tool_calls(self) -> tuple[ToolCallRequest, ...]:
        """The tool calls, each with an id of its own: some servers send none, or the same one twice."""
        seen: set[str] = set()
        calls = []
        for _, slot in sorted(self.tools.items()):
            call_id = slot["id"]
            if not call_id or call_id in seen:
                call_id = f"call_{uuid.uuid4().hex[:24]}"
            seen.add(call_id)
            calls.append(ToolCallRequest(id=call_id, name=slot["name"], arguments=slot["arguments"]))
        return tuple(calls)


def read_usage(usage: Any) -> Usage:
    """Token counts; a provider that reports nothing leaves zeros behind, which here are None."""
    details_in = getattr(usage, "prompt_tokens_details", None)
    details_out = getattr(usage, "completion_tokens_details", None)
    tokens_in, tokens_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not tokens_in and not tokens_out:
        return Usage()
    return Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cached_tokens=_count(details_in, "cached_tokens"),
        reasoning_tokens=_count(details_out, "reasoning_tokens"),
    )


def _count(source: Any, name: str) -> int | None:
    value = getattr(source, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
