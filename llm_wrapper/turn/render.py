"""From templates and context variables to what a turn stores and sends."""

from __future__ import annotations

from typing import Any

from llm_wrapper import prompts
from llm_wrapper.errors import (
    PromptError,
)

from .job import TurnJob


def render(job: TurnJob) -> tuple[dict[str, Any], PromptError | None]:
    """System prompt, initial messages and user message. Missing variables are raised at once, before anything
    is stored; any other failure is given back, so that the user's message is stored first."""
    prompts.require(job.spec, job.context)
    try:
        prompts.model_params(job.spec)
        return {
            "system_text": prompts.render_system(job.spec, job.context) if job.spec.system else None,
            "initial_steps": initial_steps(job.spec, job.context) if job.initial else (),
            "rendered_text": prompts.render_user(job.spec, job.message, job.context) if job.spec.user else None,
        }, None
    except PromptError as error:
        return {}, error


def initial_steps(spec: Any, context: Any) -> list[dict[str, Any]]:
    """The initial messages of a prompt as steps. They stay in every call's window."""
    return [
        {
            "type": message["role"],
            "text": message["content"],
            "pinned": True,
            "payload": {"system_generated": True, "show_in_user_history": False},
        }
        for message in prompts.render_initial(spec, context)
    ]


def logged(job: TurnJob) -> dict[str, Any]:
    logged = prompts.logged(job.spec, job.context)
    return {"context_vars": logged} if logged else {}
