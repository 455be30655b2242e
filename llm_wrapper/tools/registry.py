"""What the project opens to tools: functions named by dotted path, and functions that source may call."""

from __future__ import annotations

import importlib
import keyword
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from llm_wrapper.errors import ToolDefinitionError

F = TypeVar("F", bound=Callable[..., Any])

DOTTED_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

_tools: dict[Callable[..., Any], str] = {}
_host_functions: dict[str, Callable[..., Any]] = {}


class ToolFailure(Exception):
    """Raise it in a registered function to tell the model something on purpose.

    Its message goes to the model as it stands. The message of any other exception stays in the log.
    """


@overload
def llm_tool(func: F) -> F: ...
@overload
def llm_tool(func: None = None, *, name: str | None = None) -> Callable[[F], F]: ...
def llm_tool(func: Any = None, *, name: str | None = None) -> Any:
    """Let `Tool.tool_code` name this module-level function, sync or async, by its dotted path.

    It must be the outermost decorator. `name` is what the model calls the tool; the function's own name if
    not given. Raises ToolDefinitionError for a function that no dotted path can reach.
    """

    def register(function: F) -> F:
        tool_name = name or function.__name__
        if "." in function.__qualname__:
            raise ToolDefinitionError(
                f"@llm_tool: {function.__qualname__} is not at module level, so no dotted path can name it. "
                "Move it to the top of a module."
            )
        if not FUNCTION_NAME.fullmatch(tool_name):
            raise ToolDefinitionError(
                f"@llm_tool: {tool_name!r} is not a name that models accept; use 1 to 64 of a-z A-Z 0-9 _ -."
            )
        _tools[function] = tool_name
        return function

    return register if func is None else register(func)


@overload
def host_function(func: F) -> F: ...
@overload
def host_function(func: None = None, *, name: str | None = None) -> Callable[[F], F]: ...
def host_function(func: Any = None, *, name: str | None = None) -> Any:
    """Let every tool's sandboxed source call this function by its name.

    It runs outside the sandbox, with all the rights of the process, on arguments that the source chose:
    check them. Source awaits an `async def` and calls any other function plainly. Arguments and result are
    plain data (text, numbers, lists, dicts, dates, Decimal). An exception reaches the source as its class
    name only, a `ToolFailure` with its message. Raises ToolDefinitionError for a name taken by another one.
    """

    def register(function: F) -> F:
        host_name = name or function.__name__
        if not host_name.isidentifier() or keyword.iskeyword(host_name):
            raise ToolDefinitionError(f"@host_function: {host_name!r} is not a name that source can call.")
        known = _host_functions.get(host_name)
        # The same function registers again when its module is reloaded.
        if known is not None and _path(known) != _path(function):
            raise ToolDefinitionError(
                f"@host_function: {host_name!r} is already {_path(known)}; give one of them another name=."
            )
        _host_functions[host_name] = function
        return function

    return register if func is None else register(func)


def host_functions() -> dict[str, Callable[..., Any]]:
    """The functions that sandboxed source may call, by name."""
    return dict(_host_functions)


def tool_name(function: Callable[..., Any]) -> str:
    """The name under which the model knows a registered function."""
    return _tools[function]


def is_dotted_path(code: str) -> bool:
    """True if a tool's code names a function instead of being source."""
    return DOTTED_PATH.fullmatch(code.strip()) is not None


def resolve(path: str) -> Callable[..., Any]:
    """The function registered with `@llm_tool` that `path` names; imports its module.

    Raises ToolDefinitionError if there is none. Modules of the standard library are not imported: a tool is
    the project's own function.
    """
    path = path.strip()
    if not DOTTED_PATH.fullmatch(path):
        raise ToolDefinitionError(
            f"{path[:100]!r} is not a dotted path; write it like 'myapp.tools.refund', without brackets."
        )
    module_name, _, attribute = path.rpartition(".")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise ToolDefinitionError(
            f"{path} is in the standard library. Name a function of your project marked with @llm_tool."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ToolDefinitionError(
            f"The module {module_name} of {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        function = getattr(module, attribute)
    except AttributeError:
        raise ToolDefinitionError(f"The module {module_name} has no {attribute!r}.") from None
    try:
        registered = function in _tools
    except TypeError:
        registered = False
    if not registered:
        raise ToolDefinitionError(
            f"{path} may not be run as a tool: put @llm_tool (llm_wrapper.tools) on it, outermost if it has "
            "other decorators."
        )
    return function


def _path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
