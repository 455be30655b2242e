"""Tools, which a model may call: from a tool's code to its spec, and from a model's call to a result."""

from .call import PreparedCall, parse_arguments, prepare
from .context import visible_spec
from .derive import Described, describe
from .registry import ToolFailure, host_function, llm_tool
from .result import limit_reached, not_run, unknown_outcome, unknown_tool
from .runner import arun, run, time_limit
from .validate import check

__all__ = [
    "Described",
    "PreparedCall",
    "ToolFailure",
    "arun",
    "check",
    "describe",
    "host_function",
    "limit_reached",
    "llm_tool",
    "not_run",
    "parse_arguments",
    "prepare",
    "run",
    "time_limit",
    "unknown_outcome",
    "unknown_tool",
    "visible_spec",
]
