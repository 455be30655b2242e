from .chats import ChatHistory, Message, Turn
from .journal import LLMCall, ToolCall
from .prompts import LLMConfigName, PromptTemplate, PromptVersion, Tool

__all__ = [
    "ChatHistory",
    "LLMCall",
    "LLMConfigName",
    "Message",
    "PromptTemplate",
    "PromptVersion",
    "Tool",
    "ToolCall",
    "Turn",
]
