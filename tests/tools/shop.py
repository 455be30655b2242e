"""A project's tools and host functions, as the tests of this folder use them."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any, Literal, Optional

from llm_wrapper.tools import ToolFailure, host_function, llm_tool
from llm_wrapper.types import ToolSpec

SECRET = "hunter2-very-secret"


@llm_tool
def refund(order_id: int, __user_id__: int, reason: Literal["late", "broken"] = "late") -> dict[str, Any]:
    """Refund an order.

    Use it only when the customer asked for money back.

    Args:
        order_id: Number of the order.
        reason: Why the money goes back.
    """
    return {"order": order_id, "user": __user_id__, "reason": reason, "amount": Decimal("9.90")}


@llm_tool(name="find_orders")
async def orders(status: Optional[str] = None) -> list[str]:  # noqa: UP045 - the spelling is under test
    """Find orders.

    Parameters
    ----------
    status : str
        Only orders in this state.
    """
    await asyncio.sleep(0)
    return [f"order in state {status}"]


@llm_tool
async def slow(seconds: float) -> str:
    """Wait.

    :param seconds: How long.
    """
    if seconds < 0:
        raise TimeoutError("upstream")
    await asyncio.sleep(seconds)
    return "waited"


@llm_tool
def echo(value: str) -> Any:
    """Give back one of the values of RETURNS.

    Args:
        value: Its name.
    """
    return RETURNS[value]


@llm_tool
def fail(how: str, token: str) -> None:
    """Fail.

    Args:
        how: In which way.
        token: A secret.
    """
    if how == "purpose":
        raise ToolFailure("Order 7 is closed; ask for another number.")
    if how == "exit":
        raise SystemExit(3)
    if how == "timeout":
        raise TimeoutError("upstream")
    try:
        raise KeyError(token)
    except KeyError as error:
        raise ValueError(f"bad token {token}") from error


def not_registered(order_id: int) -> str:
    """Refund an order."""
    return "must not run"


RETURNS: dict[str, Any] = {}


@host_function
def shop_stock(article: str) -> int:
    return {"pen": 3}[article]


@host_function
async def shop_stock_async(article: str) -> int:
    await asyncio.sleep(0.01)
    return {"pen": 3}[article]


@host_function
def shop_fail(how: str) -> None:
    if how == "purpose":
        raise ToolFailure("The shop is closed.")
    raise ValueError(f"password is {SECRET}")


@host_function
def shop_block(seconds: float) -> None:
    time.sleep(seconds)


@host_function
def shop_object() -> object:
    return object()


def tool(code: str, properties: dict[str, Any] | None = None, **fields: Any) -> ToolSpec:
    """A stored tool whose model-visible parameters are `properties`, all required."""
    properties = properties or {}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    name = fields.pop("name", "f")
    spec = fields.pop("spec", {"name": name, "description": "A tool.", "parameters": parameters})
    fields.setdefault("bounds", {"timeout": 1})
    return ToolSpec(name="A tool", code=code, spec=spec, **fields)


PATH = f"{__name__}."
