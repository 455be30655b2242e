"""From a request to a turn: what a session may be sent, and the job that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.module_loading import import_string

from llm_wrapper import configs, history
from llm_wrapper.conf import conf
from llm_wrapper.errors import (
    ContextVariableNotAllowed,
    NotAvailable,
    PromptGone,
    SessionArchived,
)
from llm_wrapper.history.database import statement
from llm_wrapper.history.text import storable
from llm_wrapper.models import ChatHistory, LLMCall, PromptTemplate
from llm_wrapper.models.loading import load_prompt, loaded_prompt
from llm_wrapper.repositories import LLMCommunicationWrapper, checked_message
from llm_wrapper.turn import TurnJob
from llm_wrapper.types import PromptSpec

from .auth import Caller, CallersRequest


def identity(request: CallersRequest) -> dict[str, Any]:
    """What tools may know of the caller: `user_id`. The default of LLM_WRAPPER_API_CONTEXT."""
    return {"user_id": request.auth.user.pk}


def server_context(request: CallersRequest) -> dict[str, Any]:
    """The context variables that the server sets for this request; callers can neither set nor change them."""
    return dict(import_string(conf.api_context)(request))


# -- what callers may use --------------------------------------------------------------------------------


def usable_prompts(caller: Caller) -> Any:
    """The prompts on which the caller may start a session."""
    access = [PromptTemplate.ApiAccess.USERS]
    if caller.user.is_staff:
        access.append(PromptTemplate.ApiAccess.STAFF)
    return PromptTemplate.objects.filter(api_access__in=access)


def usable_configs() -> list[str]:
    """The names of the configs that may answer a session without a prompt."""
    loaded = configs.get_configs().names()
    return loaded if conf.api_configs is None else [name for name in conf.api_configs if name in loaded]


def settable(prompt: PromptTemplate | None, server: Mapping[str, Any]) -> list[str]:
    """The context variables that callers may set for a prompt; never one that the server sets."""
    return sorted(set(prompt.api_context_vars) - set(server)) if prompt else []


def checked_context(
    prompt: PromptTemplate | None, given: Mapping[str, Any], server: Mapping[str, Any]
) -> dict[str, Any]:
    """All context variables of a request. Raises ContextVariableNotAllowed."""
    allowed = settable(prompt, server)
    refused = sorted(set(given) - set(allowed))
    if refused:
        raise ContextVariableNotAllowed(
            f"context_vars that may not be set here: {', '.join(name[:100] for name in refused[:20])}. "
            + (f"Allowed: {', '.join(allowed)}." if allowed else "None may be set for this session.")
        )
    return {**given, **server}


# -- sessions --------------------------------------------------------------------------------------------


def start_chat(
    request: CallersRequest,
    *,
    prompt_name: str | None,
    context_vars: Mapping[str, Any],
    config: str | None,
    title: str,
) -> ChatHistory:
    """A new session of the caller. Raises NotAvailable for a prompt or config that they may not use."""
    caller = request.auth
    server = server_context(request)
    prompt = None
    if prompt_name is not None:
        prompt = usable_prompts(caller).filter(name=storable(prompt_name)).first()
        if prompt is None:
            raise NotAvailable(f"There is no prompt {prompt_name!r} that you may use. GET /prompts lists those.")
    context = checked_context(prompt, context_vars, server)
    names = loaded_prompt(prompt).config_names if prompt else usable_configs()
    if config is not None and config not in names:
        raise NotAvailable(f"There is no config {config!r} that this session may use. They are: {', '.join(names)}.")
    if prompt is None:
        return history.create_chat(user=caller.user, title=storable(title), llm_config_name=config or "")
    wrapper = LLMCommunicationWrapper(prompt_name=prompt.name, initializing_context_vars=context, user=caller.user)
    columns = {"title": storable(title)} | ({"llm_config_name": config} if config else {})
    ChatHistory.objects.filter(pk=wrapper.chat_history_id).update(**columns)
    return wrapper.get_chat_history_object()


# -- turns -----------------------------------------------------------------------------------------------


@statement
def job_for(
    request: CallersRequest,
    chat: ChatHistory,
    *,
    message: str | None,
    context_vars: Mapping[str, Any],
    key: str | None,
) -> TurnJob:
    """The turn that answers a message of the caller; without a message, the one that answers the last one anew.

    What a chat was started on is looked at anew for each turn: a prompt that was deleted or closed to the API
    since then is used no more.
    """
    caller = request.auth
    if chat.status == ChatHistory.Status.ARCHIVED:
        raise SessionArchived('The session is archived. Set its status to "active" to go on.')
    replaced = None
    if message is None:
        newest = history.newest_question(chat.pk)
        replaced, message = newest.turn_id, newest.text
    server = server_context(request)
    context = checked_context(chat.prompt_template, context_vars, server)
    spec, version = PromptSpec(name=""), None
    names: Sequence[str] = usable_configs()
    if chat.prompt_template is not None:
        if not usable_prompts(caller).filter(pk=chat.prompt_template.pk).exists():
            raise NotAvailable("The prompt of this session is no longer open to you. Start a new session.")
        _, version, spec, names = load_prompt(chat.prompt_template.name)
    elif _had_a_prompt(chat):
        raise PromptGone("The prompt of this session was deleted. Its messages can be read; start a new session.")
    context = {**chat.current_context_variables, **context}
    return TurnJob(
        chat_id=chat.pk,
        message=checked_message(message),
        spec=spec,
        version=version,
        config_names=names,
        context=context,
        user=caller.user,
        initial=chat.last_position == 0,
        fail_over=True,
        # Streamed also where the caller waits for the whole: it is kept as it comes, and can be stopped.
        stream=True,
        sticky=chat.llm_config_name,
        idempotency_key=key,
        replaces=replaced,
    )


def _had_a_prompt(chat: ChatHistory) -> bool:
    """Whether a session that has no prompt now was answered on one; its first and newest turns tell."""
    turns = LLMCall.objects.filter(turn__chat=chat, turn__number__in=[1, chat.turn_count])
    return turns.filter(prompt_version__isnull=False).exists()
