"""Registered tools that the scenarios use by dotted path."""

from llm_wrapper.tools import llm_tool

SEEN = []


@llm_tool
def order_state(order: int, __user_id__: int) -> str:
    """State of an order.

    Args:
        order: Number of the order.
    """
    SEEN.append((order, __user_id__))
    return f"order {order}: shipped"


@llm_tool
def breaks(order: int) -> str:
    """A tool that raises.

    Args:
        order: Number of the order.
    """
    raise RuntimeError("canary-of-the-exception")


@llm_tool
async def slow_echo(text: str) -> str:
    """An async tool.

    Args:
        text: Anything.
    """
    return text.upper()


KEYS = []


@llm_tool
def pay_once(order: int, __tool_call_key__: str) -> str:
    """Pay an order; a second run under the same key does nothing.

    Args:
        order: Number of the order.
    """
    KEYS.append(__tool_call_key__)
    return "paid"
