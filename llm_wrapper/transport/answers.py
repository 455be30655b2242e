"""What litellm gives back becomes a `Completion`: text, tool calls and usage, all checked."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import Any

from llm_wrapper import errors
from llm_wrapper.conf import conf
from llm_wrapper.types import Completion, ModelRequest, ToolCallRequest, Usage

from . import streams
from .failures import own_error, provider_error
from .prices import price

logger = logging.getLogger("llm_wrapper.transport")

MAX_TOOL_CALLS_IN_REPLY = 256


class Assembler:
    """Puts an answer together from a stream's chunks, or from one whole message.

    `stream` is litellm's stream object while one is read: it knows what the provider counted.
    """

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.stream: Any = None
        self.max_chars = conf.max_answer_chars
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
        if not self.response_id:
            self.response_id = str(getattr(piece, "id", "") or "")
        if not self.model:
            self.model = str(getattr(piece, "model", "") or "")
        usage = getattr(piece, "usage", None)
        if usage is not None:
            self.raw_usage, self.usage = usage, read_usage(usage)
        choices = getattr(piece, "choices", None)
        if not choices:
            return ""
        choice = choices[0]
        self.finish_reason = getattr(choice, "finish_reason", None) or self.finish_reason
        content = getattr(choice, "delta", None) or getattr(choice, "message", None)
        for number, call in enumerate(getattr(content, "tool_calls", None) or ()):
            self._add_tool_call(number, call)
        text: str = getattr(content, "content", None) or ""
        self.length += len(text)
        if self.length > self.max_chars:
            raise provider_error(
                self.request,
                errors.InvalidProviderResponse,
                f"It is longer than {self.max_chars} characters (LLM_WRAPPER_MAX_ANSWER_CHARS).",
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
        self.add(response)
        if not getattr(response, "choices", None):
            raise provider_error(self.request, errors.InvalidProviderResponse, "It has no choices.")
        return self._completion()

    def streamed(self) -> Completion:
        """The answer of a stream whose chunks were all added."""
        if not self.stream.chunks:
            raise provider_error(self.request, errors.InvalidProviderResponse, "The stream holds nothing of an answer.")
        if not streams.really_ended(self.stream):
            raise provider_error(self.request, errors.StreamCut, "The stream ended without a finish reason.")
        self.usage = self._without_estimates(self.usage)
        return self._completion()

    def failed(self, exc: Exception) -> errors.LLMWrapperError:
        """The package's own error for what ended the call, with what the provider has counted and bills."""
        error = own_error(self.request, exc)
        if not isinstance(error, errors.ProviderError):
            return error
        usage = self._usage_so_far()
        if usage != Usage():
            error.usage = usage
            error.cost, error.price_source = self._price(usage)
        return error

    def _price(self, usage: Usage) -> tuple[Decimal | None, str]:
        try:
            return price(self.request, usage, self.raw_usage)
        except Exception as exc:  # noqa: BLE001 (no answer is lost because litellm cannot work out what it cost)
            logger.warning(
                "What a call of config %r cost is unknown: %s.", self.request.config.name, type(exc).__name__
            )
            return None, ""

    def _usage_so_far(self) -> Usage:
        if self.stream is None:
            return self.usage
        # litellm keeps the counts of a stream back until its end.
        self.raw_usage, final = streams.last_counts(self.stream)
        usage = self._without_estimates(read_usage(self.raw_usage))
        return usage if final else replace(usage, output_tokens=None, reasoning_tokens=None)

    def _without_estimates(self, usage: Usage) -> Usage:
        """litellm fills in estimates for what the provider of a stream did not count."""
        reported = streams.reported_counts(self.stream)
        if not reported:
            return Usage()
        if "prompt_tokens" not in reported:
            usage = replace(usage, input_tokens=None)
        if "completion_tokens" not in reported:
            usage = replace(usage, output_tokens=None)
        return usage

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
        cost, source = self._price(self.usage)
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
