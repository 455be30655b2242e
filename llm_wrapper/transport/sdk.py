"""What litellm and the OpenAI SDK do at each call for nobody, left out.

For OpenAI, Azure and many others litellm makes the request ready and hands it to the OpenAI SDK, which compares each
message with the types of its fields and puts it together again as it was: 0.2 ms of CPU a message. What stands in
`extra_body` the SDK merges into the body at the end and does not look at. So the messages go there, at the last
moment: litellm has done its own work on them, and what is sent is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# What may be long. None of the SDK's types for them has a field that its walk would rename or encode.
_LONG = ("messages", "tools")
# litellm's methods that call the SDK; each has the whole request as its argument `data`.
_CALLS = (
    "make_openai_chat_completion_request",
    "make_sync_openai_chat_completion_request",
    "make_azure_openai_chat_completion_request",
    "make_sync_azure_openai_chat_completion_request",
)


def skip_the_walk() -> None:
    """Make litellm give the SDK what is long in `extra_body`. Call it once, after litellm's import.

    Where another litellm has no such methods nothing happens, and calls only cost more.
    """
    from litellm.llms.azure.azure import AzureChatCompletion
    from litellm.llms.openai.openai import OpenAIChatCompletion

    for cls in (OpenAIChatCompletion, AzureChatCompletion):
        for name in _CALLS:
            if name in vars(cls):
                setattr(cls, name, _with_short_data(vars(cls)[name]))


def skip_idle_monitoring() -> None:
    """Keep litellm from starting an event loop for each call, to tell monitoring services of it that nobody has set up
    (`litellm.service_callback`). Call it once, after litellm's import."""
    import litellm
    from litellm._service_logger import ServiceLogging

    dispatch = getattr(ServiceLogging, "_dispatch_from_sync", None)
    if dispatch is None:
        return

    def only_where_wanted(hook: Callable[[], Any]) -> None:
        if litellm.service_callback:
            dispatch(hook)

    ServiceLogging._dispatch_from_sync = staticmethod(only_where_wanted)


def _with_short_data(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def shorter(*args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("data"), dict):
            kwargs["data"] = shortened(kwargs["data"])
        return call(*args, **kwargs)

    return shorter


def shortened(data: dict[str, Any]) -> dict[str, Any]:
    """The same request for the SDK, as a new dict whose long parts are in `extra_body`."""
    long = {name: data[name] for name in _LONG if data.get(name)}
    if not long:
        return data
    rest = {name: value for name, value in data.items() if name not in long}
    # The SDK insists on messages. No list, because litellm would count its tokens where the provider did not.
    empty = {"messages": ()} if "messages" in long else {}
    # What the caller put into extra_body himself comes last, as ever.
    return {**rest, **empty, "extra_body": {**long, **(data.get("extra_body") or {})}}
