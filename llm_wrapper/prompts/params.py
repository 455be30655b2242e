"""Call parameters that a prompt may set: how the model answers, never where the call goes or under whose key."""

from __future__ import annotations

import difflib
from typing import Any

from llm_wrapper.errors import TemplateInvalid
from llm_wrapper.types import PromptSpec

FIELD = "model_params"
# A list of what is allowed, since litellm takes connection arguments (api_base, api_key, headers) the same way.
ALLOWED = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
        "verbosity",
    }
)


def params_problems(spec: PromptSpec) -> list[TemplateInvalid]:
    """What is wrong with a prompt's call parameters."""
    if not isinstance(spec.model_params, dict):
        return [TemplateInvalid('model_params: must be an object, like {"temperature": 0.2}.', field=FIELD)]
    problems = []
    for name in spec.model_params:
        if name in ALLOWED:
            continue
        near = difflib.get_close_matches(str(name), ALLOWED, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Allowed: {', '.join(sorted(ALLOWED))}."
        text = f"model_params: {str(name)[:50]!r} cannot be set by a prompt; set it in the YAML file. {hint}"
        problems.append(TemplateInvalid(text, field=FIELD))
    return problems


def model_params(spec: PromptSpec) -> dict[str, Any]:
    """The prompt's call parameters. Raises TemplateInvalid where one may not be set by a prompt."""
    for problem in params_problems(spec):
        raise problem
    return dict(spec.model_params)
