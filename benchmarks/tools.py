"""The package's tool, registered as a project registers its own."""

from __future__ import annotations

from typing import Any

from llm_wrapper.tools import llm_tool

from . import workload


@llm_tool
def find_order(order_number: int) -> dict[str, Any]:
    """Look up one of the customer's own orders.

    Args:
        order_number: The number on the invoice.
    """
    return workload.find_order(order_number)
