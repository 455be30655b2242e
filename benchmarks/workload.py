"""The same work for every contender: one prompt, one message, one tool, and histories of any length."""

from __future__ import annotations

from typing import Any

MODEL = "gpt-4o-mini"
KEY = "sk-not-a-real-key"

ANSWER = "Your plan was charged twice by mistake. The second charge will be back on your card in three days. " * 3
STREAM_CHUNKS = 200
STREAM_PIECES = [f"word{number} " for number in range(STREAM_CHUNKS)]
STREAMED_ANSWER = "".join(STREAM_PIECES)

MESSAGE = "I was charged twice this month. Can you tell me why, and when I will have my money back? " * 2

SYSTEM_TEMPLATE = """You answer customers of {{ shop }}. The customer is on the {{ plan }} plan.
{% for rule in rules %}
{{ loop.index }}. {{ rule }}
{% endfor %}
{% if plan == "pro" %}Pro customers may have the money back at once.{% else %}Others wait for three days.{% endif %}
"""
CONTEXT = {
    "shop": "The Corner Shop",
    "plan": "pro",
    "rules": [
        f"Rule {number}: be kind, be short, and never promise what the shop cannot keep." for number in range(20)
    ],
}

TOOL_NAME = "find_order"
TOOL_DESCRIPTION = "Look up one of the customer's own orders."
TOOL_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"order_number": {"type": "integer", "description": "The number on the invoice."}},
    "required": ["order_number"],
}
TOOL_ARGUMENTS = '{"order_number": 7}'
TOOL_SPEC: dict[str, Any] = {
    "type": "function",
    "function": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": TOOL_PARAMETERS},
}


def find_order(order_number: int) -> dict[str, Any]:
    """What the tool does, for every contender."""
    return {"order": order_number, "state": "shipped", "charged": "twice"}


def system_text() -> str:
    """The system prompt as it is sent; the package renders it at every turn, the others get it ready-made."""
    from jinja2 import Template

    return Template(SYSTEM_TEMPLATE).render(CONTEXT)


def history(length: int) -> list[dict[str, str]]:
    """Earlier messages of 500 characters each, the user's and the assistant's in turn."""
    return [
        {"role": "assistant" if number % 2 else "user", "content": f"Message {number:>5} " + "some words " * 44 + "..."}
        for number in range(length)
    ]


def messages(system: str, length: int) -> list[dict[str, Any]]:
    """What one call sends."""
    return [{"role": "system", "content": system}, *history(length), {"role": "user", "content": MESSAGE}]


def expected(kind: str) -> str:
    return STREAMED_ANSWER if kind == "stream" else ANSWER
