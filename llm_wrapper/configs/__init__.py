"""Which models there are, how to reach them, and which one a call goes to."""

from .build import Problem
from .checks import CHECKS, check_cache, check_files
from .choose import choose
from .classes import (
    AnthropicConfig,
    AzureOpenAILLMConfig,
    DemoConfig,
    GeminiConfig,
    GroqConfig,
    LiteLLMConfig,
    LLMConfig,
    OllamaConfig,
    OpenAICompatibleConfig,
    OpenAIConfig,
)
from .cooldown import Cooling, clear, cool, cooling, release, warm_up
from .load import Configs, get_configs

__all__ = [
    "CHECKS",
    "AnthropicConfig",
    "AzureOpenAILLMConfig",
    "Configs",
    "Cooling",
    "DemoConfig",
    "GeminiConfig",
    "GroqConfig",
    "LLMConfig",
    "LiteLLMConfig",
    "OllamaConfig",
    "OpenAICompatibleConfig",
    "OpenAIConfig",
    "Problem",
    "check_cache",
    "check_files",
    "choose",
    "clear",
    "cool",
    "cooling",
    "get_configs",
    "release",
    "warm_up",
]
