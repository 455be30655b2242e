"""Rows for the tests of the admin, made as the runtime leaves them."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.utils import timezone

from llm_wrapper.models import (
    ChatHistory,
    LLMCall,
    LLMConfigName,
    Message,
    PromptTemplate,
    Tool,
    ToolCall,
    Turn,
)
from llm_wrapper.types import ToolCallRequest

SYSTEM = """You are the support assistant of Northwind Coffee.
The customer is on the {{ plan }} plan.
{% if plan == "pro" %}
Offer a call with a person when a refund is larger than 50 EUR.
{% endif %}
Look orders up before you speak about them. Keep answers short."""

TOOL_CODE = '''def find_orders(status: str, limit: int = 5, user_id: int = 0) -> list[dict]:
    """Finds the customer's newest orders.

    Args:
        status: Which orders: "open", "paid" or "refunded".
        limit: How many orders at most.
        user_id: Whose orders.
    """
    orders = [
        {"id": 1042, "status": "paid", "total": "39.00", "user": 7},
        {"id": 1043, "status": "paid", "total": "39.00", "user": 7},
    ]
    return [order for order in orders if order["status"] == status][:limit]
'''

TOOL_SPEC = {
    "name": "find_orders",
    "description": "Finds the customer's newest orders.",
    "parameters": {
        "type": "object",
        "properties": {
            "status": {"type": "string", "description": 'Which orders: "open", "paid" or "refunded".'},
            "limit": {"type": "integer", "description": "How many orders at most.", "default": 5},
        },
        "required": ["status"],
    },
}


def make_user(name: str, *codenames: str, superuser: bool = False) -> Any:
    """A member of staff with these model permissions of the package."""
    user = get_user_model().objects.create_user(
        name, email=f"{name}@example.com", password="coffee", is_staff=True, is_superuser=superuser
    )
    found = Permission.objects.filter(codename__in=codenames, content_type__app_label="llm_wrapper")
    assert len(found) == len(codenames), f"unknown permission in {codenames}"
    user.user_permissions.set(found)
    return user


def make_tool(**values: Any) -> Tool:
    return Tool.objects.create(
        **{
            "name": "Find orders",
            "tool_code": TOOL_CODE,
            "tool_json_spec": TOOL_SPEC,
            "context_params": ["user_id"],
            "default_values_for_non_llm_params": {"user_id": 0},
            "idempotent": True,
            **values,
        }
    )


def make_prompt(*, tools: tuple[Tool, ...] = (), configs: tuple[str, ...] = (), **values: Any) -> PromptTemplate:
    prompt = PromptTemplate.objects.create(
        **{
            "name": "support",
            "required_kwargs": ["plan"],
            "initial_messages_templates": [
                {"role": "assistant", "content": "Welcome to Northwind, {{ plan }} friend!"}
            ],
            "system_prompt_template": SYSTEM,
            "user_prompt_template": "Customer: {{ user_msg }}",
            "logged_context_vars": ["plan"],
            "model_params": {"temperature": 0.2},
            **values,
        }
    )
    prompt.tools.set(tools)
    prompt.llm_config_names.set([LLMConfigName.objects.get_or_create(name=name)[0] for name in configs])
    return prompt


class Conversation:
    """A chat that is written step by step."""

    def __init__(self, prompt: PromptTemplate | None = None, **values: Any) -> None:
        self.prompt = prompt
        self.version = prompt.current_version() if prompt else None
        self.chat = ChatHistory.objects.create(prompt_template=prompt, **values)
        self.turn: Turn | None = None
        self.calls = 0

    def step(self, type: str, text: str = "", **values: Any) -> Message:
        self.chat.last_position += 1
        return Message.objects.create(
            chat=self.chat, turn=self.turn, position=self.chat.last_position, type=type, text=text, **values
        )

    def open(self, text: str, **values: Any) -> Message:
        """A new turn with the user's message."""
        self.chat.turn_count += 1
        self.calls = 0
        self.turn = Turn.objects.create(chat=self.chat, number=self.chat.turn_count)
        return self.step("user", text, **values)

    def call(self, status: str = "done", **values: Any) -> LLMCall:
        self.calls += 1
        values = {
            "config_name": "azure-gpt",
            "model": "azure/gpt-4.1-mini",
            "input_tokens": 412,
            "output_tokens": 36,
            "cached_tokens": 256,
            "cost": Decimal("0.0002230000"),
            "price_source": "litellm 1.106.2",
            "latency": 1.284,
            "time_to_first_token": 0.311,
            "streamed": True,
            "finish_reason": "stop",
            "first_position": 1,
            "last_position": self.chat.last_position,
            "system_message": self.chat.messages.filter(type="system").last(),
            "finished_at": timezone.now(),
            **values,
        }
        call = LLMCall.objects.create(
            turn=self.turn,
            attempt=self.calls,
            status=status,
            prompt_version=self.version,
            **values,
        )
        self.chat.input_tokens_count += call.input_tokens or 0
        self.chat.output_tokens_count += call.output_tokens or 0
        self.chat.cost += call.cost or 0
        self.chat.unpriced_calls += status == "done" and call.cost is None
        return call

    def answer(self, text: str, call: LLMCall, tools: tuple[tuple[str, str, Any], ...] = (), **values: Any) -> Message:
        """An assistant step; `tools` are id, name and arguments of the tool calls it asks for."""
        payload = values.pop("payload", {})
        if tools:
            payload["tool_calls"] = [
                ToolCallRequest(key, name, json.dumps(arguments)).as_message_part() for key, name, arguments in tools
            ]
        return self.step(
            "assistant",
            text,
            llm_call=call,
            tokens=call.output_tokens,
            cost=call.cost,
            payload=payload,
            **values,
        )

    def ran(self, call: LLMCall, key: str, name: str, arguments: Any, result: str, **values: Any) -> ToolCall:
        """A tool call with its result step."""
        run = ToolCall.objects.create(
            turn=self.turn,
            llm_call=call,
            provider_id=key,
            tool=name,
            arguments=json.dumps(arguments),
            result=result,
            **{"status": "done", "duration": 0.042, **values},
        )
        self.step("tool", result, payload={"tool_call_id": key, "name": name})
        return run

    def close(self, status: str = "done", **values: Any) -> None:
        assert self.turn is not None
        finished = self.turn.started_at + timedelta(seconds=2.4)
        Turn.objects.filter(pk=self.turn.pk).update(status=status, finished_at=finished, **values)
        self.turn = None
        self.chat.save()


def support_chat(prompt: PromptTemplate, user: Any = None) -> ChatHistory:
    """A conversation with everything in it: tools, failover, thumbs, an unknown cost, a failure."""
    talk = Conversation(
        prompt,
        user=user,
        title="Charged twice in March",
        llm_config_name="azure-gpt",
        current_context_variables={"plan": "pro"},
    )
    system = SYSTEM.split("{%")[0].replace("{{ plan }}", "pro").strip() + (
        "\nOffer a call with a person when a refund is larger than 50 EUR.\n"
        "Look orders up before you speak about them. Keep answers short."
    )
    talk.step("system", system)
    talk.step("assistant", "Welcome to Northwind, pro friend!", payload={"system_generated": True})

    talk.open(
        "Why was I charged twice?",
        rendered_text="Customer: Why was I charged twice?",
        user=user,
        payload={"context_vars": {"plan": "pro"}},
    )
    route = {
        "candidates": {"azure-gpt": 2, "local-llama": 1},
        "skipped": {},
        "why": "weighted random",
        "draw": 0.4312,
    }
    talk.call(
        "failed",
        config_name="azure-gpt",
        input_tokens=None,
        output_tokens=None,
        cached_tokens=None,
        cost=None,
        price_source="",
        latency=0.212,
        time_to_first_token=None,
        finish_reason="",
        error_code="rate_limited",
        error_message="azure-gpt is rate limited. It rests for 12 s.",
        route=route,
    )
    route = {
        "candidates": {"azure-gpt": 2, "local-llama": 1},
        "skipped": {"azure-gpt": "cooling for 12 s: rate_limited"},
        "why": "only one left",
    }
    first = talk.call(
        config_name="local-llama",
        model="hosted_vllm/llama-3.1-8b",
        finish_reason="tool_calls",
        route=route,
        cost=None,
        price_source="",
        request_params={"temperature": 0.2},
    )
    asked = ("call_8f2c", "find_orders", {"status": "paid", "limit": 2})
    talk.answer("Let me look at your orders.", first, (asked,))
    orders = [
        {"id": 1042, "status": "paid", "total": "39.00"},
        {"id": 1043, "status": "paid", "total": "39.00"},
    ]
    talk.ran(first, *asked, json.dumps(orders))
    second = talk.call(
        config_name="local-llama",
        model="hosted_vllm/llama-3.1-8b",
        input_tokens=498,
        output_tokens=61,
        route=route,
        request_params={"temperature": 0.2},
    )
    talk.answer(
        "You were charged 39.00 twice on the same day: orders 1042 and 1043 hold the same items. "
        "Shall I refund the second one?\n\nIt takes 3 to 5 days until the money is back.",
        second,
        thumb=1,
    )
    talk.close()

    talk.open(
        "Yes please, and send me a <b>receipt</b>.",
        rendered_text="Customer: Yes please, and send me a <b>receipt</b>.",
        user=user,
    )
    third = talk.call(
        finish_reason="tool_calls",
        route={"candidates": {"azure-gpt": 2, "local-llama": 1}, "why": "sticky"},
    )
    asked = ("call_91aa", "refund_order", {"order": 1043})
    talk.answer("", third, (asked,))
    talk.ran(
        third,
        *asked,
        "There is no tool called refund_order. The tools are: find_orders.",
        status="refused",
        error_code="unknown_tool",
        duration=None,
    )
    fourth = talk.call()
    talk.answer("I cannot refund it myself. I have asked a colleague, who will write to you today.", fourth, thumb=-1)
    talk.close()

    talk.open("When exactly?", rendered_text="Customer: When exactly?", user=user)
    talk.call(
        "failed",
        input_tokens=None,
        output_tokens=None,
        cost=None,
        price_source="",
        error_code="stream_cut",
        error_message="The answer broke off before its end. Send the message again.",
        partial_text="A colleague will write to you before",
    )
    talk.close(
        "failed",
        error_code="all_configs_unavailable",
        error_message="Every config of the prompt is limited or failing. Try again in 12 s.",
    )
    return talk.chat


def long_support_chat(prompt: PromptTemplate, user: Any = None) -> ChatHistory:
    """A conversation that outgrew its window: a summary, the one before it, an answer given anew, one from the cache,
    and a summary that failed."""
    talk = Conversation(prompt, user=user, title="A long story", llm_config_name="azure-gpt")
    talk.step("system", "You are the support assistant of Northwind Coffee.")
    for number in range(1, 5):
        asked = talk.open(f"Question {number}: what about my parcel of Tuesday?", user=user)
        if number in (3, 4):
            until = talk.chat.last_position - 1
            previous = talk.chat.messages.filter(type="summary").last()
            call = talk.call(
                purpose="summary", first_position=2, last_position=until, system_message=previous, user=user
            )
            step = talk.step(
                "summary",
                f"The customer asked {number - 1} times about a parcel of Tuesday; it is on its way.",
                llm_call=call,
                pinned=True,
                payload={"until": until, "system_generated": True, "show_in_user_history": False},
                tokens=36,
                cost=call.cost,
            )
            if previous is not None:
                Message.objects.filter(pk=previous.pk).update(left_context_at=step.position)
        # From the third turn on the window has room for the turn itself.
        window = {"first_position": asked.position} if number > 2 else {}
        call = talk.call(user=user, **window)
        talk.answer(f"Answer {number}: it is on its way.", call)
        talk.close()
    old = talk.chat.turns.get(number=4)
    asked = talk.open("Question 4: what about my parcel of Tuesday?", user=user)
    assert talk.turn is not None
    Turn.objects.filter(pk=talk.turn.pk).update(replaces=old)
    old.messages.exclude(type="summary").update(left_context_at=asked.position)
    call = talk.call(user=user, first_position=asked.position)
    talk.answer("Answer 4, given anew: it comes tomorrow.", call)
    talk.close()
    talk.open("And the invoice?", user=user)
    talk.call(
        "failed",
        purpose="summary",
        user=user,
        error_code="rate_limited",
        error_message="azure-gpt is rate limited. It rests for 12 s.",
        input_tokens=None,
        output_tokens=None,
        cost=None,
        price_source="",
    )
    cached = talk.call(user=user, cache_hit=True, input_tokens=0, output_tokens=0, cached_tokens=None, cost=Decimal(0))
    talk.answer("Invoices are sent by e-mail on the day of the order.", cached)
    talk.close()
    return talk.chat
