"""What a request says in each provider's format: model, system prompt, user texts, tools, tool results, key."""

import json
from dataclasses import dataclass, replace

KEY = "canary-key-0123456789"


@dataclass(frozen=True)
class Seen:
    model: str
    system: str
    users: list
    tools: dict
    results: list
    key: str
    streamed: bool


def openai(request):
    body = request["body"]
    messages = body["messages"]
    return Seen(
        model=body.get("model") or request["path"].split("/deployments/")[1].split("/")[0],
        system="".join(text(entry) for entry in messages if entry["role"] == "system"),
        users=[text(entry) for entry in messages if entry["role"] == "user"],
        tools={tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", [])},
        results=[text(entry) for entry in messages if entry["role"] == "tool"],
        key=request["headers"].get("api-key") or request["headers"].get("authorization", ""),
        streamed=body.get("stream", False),
    )


def anthropic(request):
    body = request["body"]
    parts = [(entry["role"], part) for entry in body["messages"] for part in blocks(entry["content"])]
    return Seen(
        model=body["model"],
        system="".join(part["text"] for part in blocks(body.get("system", ""))),
        users=[part["text"] for role, part in parts if role == "user" and part["type"] == "text"],
        tools={tool["name"]: tool["input_schema"] for tool in body.get("tools", [])},
        results=[text(part) for _, part in parts if part["type"] == "tool_result"],
        key=request["headers"].get("x-api-key", ""),
        streamed=body.get("stream", False),
    )


def gemini(request):
    body = request["body"]
    parts = [(entry["role"], part) for entry in body["contents"] for part in entry["parts"]]
    declared = [tool for group in body.get("tools", []) for tool in group["function_declarations"]]
    model, method = request["path"].split("?")[0].rsplit("/", 1)[1].split(":")
    return Seen(
        model=model,
        system="".join(part["text"] for part in body.get("system_instruction", {}).get("parts", [])),
        users=[part["text"] for role, part in parts if role == "user" and "text" in part],
        tools={tool["name"]: tool["parameters"] for tool in declared},
        results=[json.dumps(part["function_response"]) for _, part in parts if "function_response" in part],
        key=request["headers"].get("x-goog-api-key", ""),
        streamed=method == "streamGenerateContent",
    )


def ollama(request):
    """Like OpenAI's, but for the streamed answer being the rule."""
    return replace(openai(request), streamed=request["body"].get("stream", True))


def blocks(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text(entry):
    return "".join(part["text"] for part in blocks(entry["content"] or ""))
