"""The settings of the package, all on one screen. Each is read from Django's settings at every use."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from django.conf import settings

T = TypeVar("T")


class Setting(Generic[T]):
    """One Django setting with its default; `help` is what docs/settings.md says of it."""

    def __init__(self, name: str, default: T, help: str) -> None:
        self.name, self.default, self.help = name, default, help

    @overload
    def __get__(self, obj: None, owner: Any) -> Setting[T]: ...
    @overload
    def __get__(self, obj: AppSettings, owner: Any) -> T: ...
    def __get__(self, obj: AppSettings | None, owner: Any) -> Setting[T] | T:
        if obj is None:
            return self
        return getattr(settings, self.name, self.default)


class AppSettings:
    configs_path = Setting[Any]("LLM_CONFIGS_PATH", None, "Folder that holds one YAML file per config (str or Path).")
    config_classes = Setting[dict[str, str]](
        "LLM_WRAPPER_CONFIG_CLASSES", {}, "Your own config classes: the name used in YAML -> dotted path."
    )
    transcript_limit = Setting[int | None](
        "LLM_WRAPPER_TRANSCRIPT_LIMIT",
        200,
        "Newest entries kept in ChatHistory.chat_history; None keeps all.",
    )
    history_window = Setting[int | None](
        "LLM_WRAPPER_HISTORY_WINDOW", None, "Newest messages sent to the model where a prompt sets no window."
    )
    max_message_chars = Setting[int](
        "LLM_WRAPPER_MAX_MESSAGE_CHARS", 200_000, "Longest user message that is accepted, in characters."
    )
    max_answer_chars = Setting[int](
        "LLM_WRAPPER_MAX_ANSWER_CHARS", 2_000_000, "Longest answer taken from a model, in characters."
    )
    max_tool_rounds = Setting[int](
        "LLM_WRAPPER_MAX_TOOL_ROUNDS", 8, "Calls of the model in a row that may ask for tools, per turn."
    )
    max_tool_calls = Setting[int](
        "LLM_WRAPPER_MAX_TOOL_CALLS", 32, "Tool calls that are run per turn; further ones are refused."
    )
    tool_timeout = Setting[float]("LLM_WRAPPER_TOOL_TIMEOUT", 10.0, "Seconds a tool may run.")
    tool_max_memory = Setting[int](
        "LLM_WRAPPER_TOOL_MAX_MEMORY", 64 * 1024 * 1024, "Bytes a tool's source may use in the sandbox."
    )
    tool_max_output = Setting[int](
        "LLM_WRAPPER_TOOL_MAX_OUTPUT", 50_000, "Characters of a tool's result that the model gets."
    )
    template_max_seconds = Setting[float](
        "LLM_WRAPPER_TEMPLATE_MAX_SECONDS", 1.0, "Seconds one template may take to render."
    )
    template_max_steps = Setting[int](
        "LLM_WRAPPER_TEMPLATE_MAX_STEPS", 200_000, "Loop steps and calls one template may make."
    )
    template_max_chars = Setting[int](
        "LLM_WRAPPER_TEMPLATE_MAX_CHARS", 1_000_000, "Characters one template may produce, also on the way."
    )
    call_timeout = Setting[float](
        "LLM_WRAPPER_CALL_TIMEOUT", 60.0, "Seconds one LLM call may take where the YAML sets no timeout."
    )
    turn_timeout = Setting[float](
        "LLM_WRAPPER_TURN_TIMEOUT", 300.0, "Seconds a whole turn may take, with all its calls and tools."
    )
    max_attempts = Setting[int](
        "LLM_WRAPPER_MAX_ATTEMPTS", 4, "Configs that are tried for one LLM call, the first one included."
    )
    turn_lease = Setting[float](
        "LLM_WRAPPER_TURN_LEASE",
        30.0,
        "Seconds after which a turn that shows no sign of life counts as crashed.",
    )
    cooldown = Setting[float](
        "LLM_WRAPPER_COOLDOWN", 30.0, "Seconds a limited config rests if it names no time; doubles each time."
    )
    max_cooldown = Setting[float]("LLM_WRAPPER_MAX_COOLDOWN", 900.0, "Longest rest of a config, in seconds.")
    cache_alias = Setting[str](
        "LLM_WRAPPER_CACHE", "default", "Alias of the Django cache in which workers share cooling configs."
    )
    default_username = Setting[str](
        "LLM_WRAPPER_DEFAULT_USERNAME",
        "llm-wrapper-user",
        "User that a `Chat`'s messages without a user belong to; made on demand, cannot log in.",
    )
    llm_username = Setting[str](
        "LLM_WRAPPER_LLM_USERNAME",
        "llm-wrapper-llm",
        "User that a `Chat`'s answers are stored under; made on demand, cannot log in.",
    )
    block_real_calls = Setting[bool](
        "LLM_WRAPPER_BLOCK_REAL_CALLS", False, "Refuse every call that is not scripted or a demo (for tests)."
    )
    api_rates = Setting[dict[str, str | None]](
        "LLM_WRAPPER_API_RATES",
        {"read": "600/m", "write": "120/m", "send": "30/m"},
        "Requests that a user may make to the REST API, for each kind; None or no entry: no limit.",
    )
    api_max_body = Setting[int]("LLM_WRAPPER_API_MAX_BODY", 2_000_000, "Bytes that a request to the REST API may have.")
    api_configs = Setting[list[str] | None](
        "LLM_WRAPPER_API_CONFIGS", None, "Configs for sessions of the REST API without a prompt; None: all."
    )
    api_context = Setting[str](
        "LLM_WRAPPER_API_CONTEXT",
        "llm_wrapper.api.sending.identity",
        "Dotted path of a function that gives the context variables which the server sets for a REST request.",
    )


conf = AppSettings()


def sqlite_options(timeout: float = 20.0) -> dict[str, Any]:
    """`OPTIONS` for Django's SQLite backend that suit several writers.

    Write-ahead logging, transactions that take their lock when they begin (`IMMEDIATE`, so that two of them never
    both wait for what the other has read), `timeout` seconds of waiting for it, and a commit that survives a power
    cut (`synchronous=FULL`). Source: https://www.sqlite.org/wal.html and https://www.sqlite.org/lang_transaction.html
    """
    return {
        "transaction_mode": "IMMEDIATE",
        "timeout": timeout,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
