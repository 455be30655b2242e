"""One class for each kind of provider: which keys its YAML has, and what a call of it needs.

To add your own, subclass LLMConfig and name it in YAML by its dotted path, or by a short name from the
setting LLM_WRAPPER_CONFIG_CLASSES.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.module_loading import import_string

from ..conf import conf
from .base import LLMConfig
from .schema import ENDPOINT, HEADERS, SECRET, TEXT, Violation, check_reserved

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_HOSTED = {"model_name": TEXT, "api_key": SECRET, "endpoint": ENDPOINT, "extra_headers": HEADERS}


class AzureOpenAILLMConfig(LLMConfig):
    """A deployment on Azure OpenAI. `base_model` names the model behind it, for its price."""

    prefix = "azure/"
    properties = {
        "endpoint": ENDPOINT,
        "deployment_name": TEXT,
        "api_key": SECRET,
        "api_version": TEXT,
        "base_model": TEXT,
        "extra_headers": HEADERS,
    }
    requires = ("endpoint", "deployment_name", "api_key", "api_version")

    def model(self) -> str:
        return f"{self.prefix}{self.values['deployment_name']}"

    def price_model(self) -> str | None:
        return self.values.get("price_model") or self.values.get("base_model")


class GeminiConfig(LLMConfig):
    """Google Gemini with an API key."""

    prefix = "gemini/"
    properties = _HOSTED
    requires = ("model_name", "api_key")


class AnthropicConfig(LLMConfig):
    """Anthropic."""

    prefix = "anthropic/"
    properties = _HOSTED
    requires = ("model_name", "api_key")


class GroqConfig(LLMConfig):
    """Groq."""

    prefix = "groq/"
    properties = _HOSTED
    requires = ("model_name", "api_key")


class OpenAIConfig(LLMConfig):
    """OpenAI."""

    prefix = "openai/"
    properties = {**_HOSTED, "organization": TEXT}
    requires = ("model_name", "api_key")


class OllamaConfig(LLMConfig):
    """A model served by Ollama, by default on this machine."""

    prefix = "ollama_chat/"
    default_endpoint = "http://localhost:11434"
    properties = {**_HOSTED, "endpoint": {**ENDPOINT, "default": default_endpoint}}
    requires = ("model_name",)

    def connection(self) -> dict[str, Any]:
        return {"api_base": self.default_endpoint, **super().connection()}


class OpenAICompatibleConfig(LLMConfig):
    """Any server that speaks OpenAI's protocol (vLLM, llama.cpp, LM Studio); `endpoint` often ends in /v1."""

    # litellm's hosted_vllm costs less per call than its openai/ and asks for no key.
    prefix = "hosted_vllm/"
    properties = _HOSTED
    requires = ("model_name", "endpoint")


class LiteLLMConfig(LLMConfig):
    """Any other provider that litellm knows; `model` is a full litellm model id like `mistral/mistral-small`.

    `credentials` holds further connection arguments of that provider, such as `aws_secret_access_key`.
    """

    properties = {
        "model": TEXT,
        "api_key": SECRET,
        "endpoint": ENDPOINT,
        "api_version": TEXT,
        "organization": TEXT,
        "extra_headers": HEADERS,
        "credentials": HEADERS,
    }
    requires = ("model",)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Violation]:
        yield from super().check(values)
        yield from check_reserved("credentials", values.get("credentials", {}))

    def model(self) -> str:
        return str(self.values["model"])

    def connection(self) -> dict[str, Any]:
        return {**self.secrets.get("credentials", {}), **super().connection()}


DEMO_FAILURES = [
    "provider_timeout",
    "provider_overloaded",
    "provider_server_error",
    "authentication_failed",
    "bad_provider_request",
    "content_refused",
    "context_window_exceeded",
]


class DemoConfig(LLMConfig):
    """The embedded demo provider: no network, no key, and no language model.

    `script` says what its calls do, one step each and the last one for all further calls: `rate_limit`
    (seconds to wait), `fail` (the code of an error) or `text` (the answer).
    """

    prefix = "demo/"
    default_model = "assistant"
    properties = {
        "model_name": {**TEXT, "default": default_model},
        "script": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1000,
            "items": {
                "type": "object",
                "properties": {
                    "rate_limit": {"type": "number", "minimum": 0},
                    "fail": {"type": "string", "enum": DEMO_FAILURES},
                    "text": {"type": "string"},
                },
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        },
    }

    def model(self) -> str:
        return f"{self.prefix}{self.values.get('model_name', self.default_model)}"

    def call_params(self) -> dict[str, Any]:
        script = self.values.get("script")
        return super().call_params() | ({"demo_script": copy.deepcopy(script)} if script else {})


BUILTIN: dict[str, type[LLMConfig]] = {
    cls.__name__: cls
    for cls in (
        AzureOpenAILLMConfig,
        GeminiConfig,
        AnthropicConfig,
        GroqConfig,
        OpenAIConfig,
        OllamaConfig,
        OpenAICompatibleConfig,
        LiteLLMConfig,
        DemoConfig,
    )
}


def find_class(name: object) -> type[LLMConfig]:
    """The class that YAML calls `name`: a short name from the setting, a built-in one, or a dotted path.

    Raises LookupError, with a message for people, where there is none.
    """
    path = conf.config_classes.get(name, name) if isinstance(name, str) else ""
    if path in BUILTIN:
        return BUILTIN[path]
    if not _DOTTED.fullmatch(path):
        known = ", ".join(sorted({*BUILTIN, *conf.config_classes}))
        raise LookupError(f"is not a known class; use one of {known}, or the dotted path of your own")
    try:
        found = import_string(path)
    except ImportError:
        raise LookupError("names a class that cannot be imported") from None
    if not (isinstance(found, type) and issubclass(found, LLMConfig)):
        raise LookupError("names something that is not a subclass of llm_wrapper.configs.LLMConfig")
    return found
