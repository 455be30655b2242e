"""Tools of the demo: one in Python, registered for use by its dotted path."""

from llm_wrapper.tools import llm_tool


@llm_tool
def find_order(order_number: int, __user_id__: int) -> dict[str, object]:
    """Look up one of the customer's own orders.

    Args:
        order_number: The number of the order, as printed on the invoice.
    """
    # A real project asks its own models here; __user_id__ is the caller, whatever the model says.
    return {
        "order": order_number,
        "customer": "you",
        "state": "shipped",
        "charged": "twice, refund under way",
    }
