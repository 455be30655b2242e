"""The admin: people edit prompts and tools here, and read what was said, sent, run and paid.

Uses unfold and django_ace where the project has them installed (`pip install llm_wrapper[admin]`), and
Django's own admin where not.
"""

from .chats import ChatHistoryAdmin, MessageAdmin, TurnAdmin
from .configs import LLMConfigNameAdmin
from .journal import LLMCallAdmin, ToolCallAdmin
from .prompts import PromptTemplateAdmin
from .tokens import ApiTokenAdmin
from .tools import ToolAdmin
from .versions import PromptVersionAdmin

__all__ = [
    "ApiTokenAdmin",
    "ChatHistoryAdmin",
    "LLMCallAdmin",
    "LLMConfigNameAdmin",
    "MessageAdmin",
    "PromptTemplateAdmin",
    "PromptVersionAdmin",
    "ToolAdmin",
    "ToolCallAdmin",
    "TurnAdmin",
]
