"""Turns whose worker died: ended with an answer, or as failed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from llm_wrapper import history
from llm_wrapper.events import Event, TurnFinished
from llm_wrapper.models import LLMCall, Message, PromptTemplate, PromptVersion, Turn
from llm_wrapper.models.loading import loaded_prompt
from llm_wrapper.prompts.params import ALLOWED
from llm_wrapper.turn import TurnJob, drive, resume_turn
from llm_wrapper.types import LLMReply, PromptSpec


def resume(turn: Turn) -> LLMReply | None:
    """End a crashed turn with an answer; None if its worker is alive, or another process took it over first.

    The model is called once more at most, and no tool runs a second time unless it is declared idempotent.
    Context variables that were never stored (those that only tools use) are gone: a tool that needs one is refused,
    and the model goes on without it. So is a response format: the answer is not validated. A turn whose prompt was
    deleted, or which has no prompt and had not come as far as a call, is ended as failed. Raises what the turn raises.
    """
    reply = None
    for event in resume_events(turn):
        if isinstance(event, TurnFinished):
            reply = event.reply
    return reply


def resume_events(turn: Turn) -> Generator[Event, None, None]:
    """`resume`, as the events of the turn."""
    asked = turn.messages.filter(type=Message.Type.USER).order_by("position").first()
    how = _how(turn, asked) if asked is not None else None
    if asked is None or how is None:
        history.repair(turn)
        return
    job = TurnJob(
        chat_id=turn.chat_id,
        message=asked.text,
        context=turn.chat.current_context_variables,
        user=asked.user,
        fail_over=True,
        **how,
    )
    yield from drive(resume_turn(job, history, turn.pk))


def _how(turn: Turn, asked: Message) -> dict[str, Any] | None:
    """The parts of a TurnJob that say how the turn was being answered; None where that is not known any more."""
    prompt = turn.chat.prompt_template
    if prompt is not None:
        version = _version_of(turn, prompt)
        return {"spec": version.spec(), "version": version, "config_names": loaded_prompt(prompt).config_names}
    call = turn.llm_calls.filter(purpose=LLMCall.Purpose.ANSWER).order_by("attempt").first()
    if call is None or call.prompt_version is not None:
        return None  # the prompt was deleted, or nothing says which model was to answer
    params = {name: value for name, value in call.request_params.items() if name in ALLOWED}
    alone = call.first_position == asked.position > 1
    spec = PromptSpec(name="", model_params=params, history_window=1 if alone else None)
    return {"spec": spec, "config_names": [call.config_name], "any_model": True}


def _version_of(turn: Turn, prompt: PromptTemplate) -> PromptVersion:
    """The version that the turn started with, where it came as far as a call."""
    first = turn.llm_calls.select_related("prompt_version").order_by("attempt").first()
    return first.prompt_version if first and first.prompt_version else prompt.current_version()
