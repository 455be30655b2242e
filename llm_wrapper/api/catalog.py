"""What callers may use: models and prompts."""

from __future__ import annotations

from llm_wrapper import configs, prompts
from llm_wrapper.errors import PromptError
from llm_wrapper.models import PromptTemplate
from llm_wrapper.types import PromptSpec

from . import sending
from .auth import READ, CallersRequest
from .routing import replies, router
from .schemas import ModelOut, PromptOut

TAGS = ["catalog"]


@router.get("/models", auth=READ, response=replies(list[ModelOut]), tags=TAGS, summary="Models you may use")
def list_models(request: CallersRequest) -> list[ModelOut]:
    """The configs of sessions without a prompt, and of the prompts you may use."""
    store = configs.get_configs()
    names = set(sending.usable_configs())
    of_prompts = sending.usable_prompts(request.auth).values_list("llm_config_names__name", flat=True)
    names |= {name for name in of_prompts if name in store}
    resting = configs.cooling(names)
    return [
        ModelOut(
            config=name,
            model=store[name].choice().model,
            available=name not in resting,
            retry_after=resting[name].seconds_left if name in resting else None,
        )
        for name in sorted(names)
    ]


@router.get("/prompts", auth=READ, response=replies(list[PromptOut]), tags=TAGS, summary="Prompts you may use")
def list_prompts(request: CallersRequest) -> list[PromptOut]:
    """The prompts that are open to you (`api_access` of a prompt template), with the context variables you may set."""
    server = sending.server_context(request)
    found = []
    for prompt in sending.usable_prompts(request.auth).order_by("name"):
        try:
            required = _required(prompt)
        except PromptError:
            continue  # its templates are broken: nobody can use it until they are mended
        settable = sending.settable(prompt, server)
        found.append(PromptOut(prompt=prompt.name, context_vars=settable, required=sorted(required & set(settable))))
    return found


def _required(prompt: PromptTemplate) -> frozenset[str]:
    return prompts.required(
        PromptSpec(
            name=prompt.name,
            system=prompt.system_prompt_template,
            user=prompt.user_prompt_template,
            initial_messages=tuple(prompt.initial_messages_templates),
            required_kwargs=tuple(prompt.required_kwargs),
        )
    )
