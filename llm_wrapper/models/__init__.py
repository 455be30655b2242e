from .access import ApiToken, Throttle
from .chats import ChatHistory, Message, Turn
from .journal import LLMCall, ToolCall
from .prompts import LLMConfigName, PromptTemplate, PromptVersion, Tool

# The name that the chat row has beside `llm_wrapper.chat.Chat`.
Chat = ChatHistory

__all__ = [
    "ApiToken",
    "Chat",
    "ChatHistory",
    "LLMCall",
    "LLMConfigName",
    "Message",
    "PromptTemplate",
    "PromptVersion",
    "Throttle",
    "Tool",
    "ToolCall",
    "Turn",
]
