"""Plain values that travel between the layers. No Django, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

JSON = Any  # a value that json.dumps accepts


class Credentials(Mapping[str, Any]):
    """Connection arguments that hold secrets. Reads like a dict, prints like a closed box.

    Every debugger, log and HTML error report shows values through repr, so a key must never be in one.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Credentials {', '.join(sorted(self._values))}: hidden>"

    def __reduce__(self) -> Any:
        raise TypeError("Credentials are not pickled: they would leave the process.")


@dataclass(frozen=True)
class Usage:
    """Token counts of one LLM call as the provider reported them; None is 'not reported'."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True)
class Price:
    """A price from YAML, in currency units per million tokens.

    Input tokens that were read from the provider's cache or written to it, and output tokens spent on reasoning,
    cost what other input and output does, where they have no price of their own.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None


@dataclass(frozen=True)
class ToolCallRequest:
    """One tool call as the model asked for it. `arguments` is the raw JSON text, not trusted."""

    id: str
    name: str
    arguments: str

    def as_message_part(self) -> dict[str, Any]:
        """The entry of `tool_calls` in an OpenAI assistant message."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


@dataclass(frozen=True)
class ConfigChoice:
    """A config that was chosen for a call: what the transport needs to reach the model.

    `model` is a litellm model id; `params` are the call parameters that may be shown; `credentials` are the
    connection arguments that may not. `context_window` is how many tokens the model takes in and gives out together,
    None where the YAML does not say.
    """

    name: str
    model: str
    params: Mapping[str, Any]
    credentials: Credentials
    tools_enabled: bool = True
    timeout: float | None = None
    price: Price | None = None
    price_model: str | None = None
    stream: bool = True
    context_window: int | None = None


@dataclass(frozen=True)
class ResponseCache:
    """A cache of answers: the same request within `lifetime` seconds gets the same answer without a call. Requests
    share answers only within a `scope`, so that what one user was told does not reach another."""

    scope: str
    lifetime: float


@dataclass(frozen=True)
class ModelRequest:
    """One call of one model. `messages` and `tools` are in OpenAI's format and go out as they stand."""

    config: ConfigChoice
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    params: Mapping[str, Any] = field(default_factory=dict)
    response_format: Any = None
    stream: bool = False
    timeout: float = 60.0


@dataclass(frozen=True)
class Completion:
    """What one LLM call gave."""

    text: str
    tool_calls: tuple[ToolCallRequest, ...] = ()
    finish_reason: str = ""
    usage: Usage = Usage()
    cost: Decimal | None = None
    price_source: str = ""
    model: str = ""
    response_id: str = ""


@dataclass(frozen=True)
class TextChunk:
    """A piece of an answer's text, in order."""

    text: str


@dataclass(frozen=True)
class ToolSpec:
    """One tool as a prompt version holds it: a value, so that a turn is not touched by later edits.

    `spec` is an OpenAI function object without the context params. `bounds` may hold `timeout` (seconds),
    `max_memory` (bytes) and `max_output` (characters); the settings fill what is missing.
    """

    name: str
    code: str
    spec: Mapping[str, Any]
    context_params: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = False
    bounds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def function_name(self) -> str:
        """The name under which the model knows the tool."""
        return str(self.spec.get("name") or self.name)


@dataclass(frozen=True)
class ToolResult:
    """The outcome of one tool call. `content` is the text that the model gets; `code` is '' where it is ok."""

    status: Literal["done", "failed", "refused", "unknown"]
    content: str
    code: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True)
class PromptSpec:
    """The content of one prompt version: a value, so that a running turn is not touched by later edits.

    `initial_messages` is a list of `{"role": "assistant" | "user", "content": template}`. `model_params` are
    call parameters that override the config's (temperature, max_tokens and the like). `history_window` is
    the number of newest messages that are sent, None for the setting's; `history_tokens` how many tokens they may have,
    None for what the model has room for. `summarise_left_out` has what no longer fits summed up by
    `summary_instructions` ('': the package's own). `replay_rendered` sends earlier user
    messages as `user_prompt_template` rendered them and not as the user wrote them.
    """

    name: str
    system: str = ""
    user: str = ""
    initial_messages: tuple[Mapping[str, str], ...] = ()
    required_kwargs: tuple[str, ...] = ()
    logged_context_vars: tuple[str, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    model_params: Mapping[str, Any] = field(default_factory=dict)
    history_window: int | None = None
    history_tokens: int | None = None
    summarise_left_out: bool = False
    summary_instructions: str = ""
    replay_rendered: bool = False


class LLMReply(str):
    """An answer: a `str` with what is known about it.

    `id` is the id of its step, `turn` and `chat_id` say where it stands, `tool_calls` are the runs of tools of the turn
    (dicts with name, arguments, status, content), `usage` and `cost` sum all answered calls of the turn
    (cost None: unknown), `parsed` is the validated instance of `response_format_class`.
    """

    id: int | None
    turn: Any
    chat_id: int | None
    tool_calls: list[dict[str, Any]]
    usage: Usage
    cost: Decimal | None
    config_name: str
    parsed: Any

    def __new__(
        cls,
        text: str,
        *,
        id: int | None = None,
        turn: Any = None,
        chat_id: int | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        usage: Usage | None = None,
        cost: Decimal | None = None,
        config_name: str = "",
        parsed: Any = None,
    ) -> LLMReply:
        reply = super().__new__(cls, text)
        reply.id, reply.turn, reply.chat_id = id, turn, chat_id
        reply.tool_calls = tool_calls or []
        reply.usage, reply.cost = usage or Usage(), cost
        reply.config_name, reply.parsed = config_name, parsed
        return reply
