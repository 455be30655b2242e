"""Turns whose worker died: ended with an answer, or as failed."""

from __future__ import annotations

from collections.abc import Generator

from llm_wrapper import history
from llm_wrapper.events import Event, TurnFinished
from llm_wrapper.models import Message, PromptTemplate, PromptVersion, Turn
from llm_wrapper.models.loading import loaded_prompt
from llm_wrapper.turn import TurnJob, drive, resume_turn
from llm_wrapper.types import LLMReply


def resume(turn: Turn) -> LLMReply | None:
    """End a crashed turn with an answer; None if its worker is alive, or another process took it over first.

    The model is called once more at most, and no tool runs a second time unless it is declared idempotent.
    Context variables that were never stored (those that only tools use) are gone: a tool that needs one is refused,
    and the model goes on without it. So is a response format: the answer is not validated. A turn whose prompt was
    deleted is ended as failed. Raises what the turn raises.
    """
    reply = None
    for event in resume_events(turn):
        if isinstance(event, TurnFinished):
            reply = event.reply
    return reply


def resume_events(turn: Turn) -> Generator[Event, None, None]:
    """`resume`, as the events of the turn."""
    prompt = turn.chat.prompt_template
    asked = turn.messages.filter(type=Message.Type.USER).order_by("position").first()
    if prompt is None or asked is None:
        history.repair(turn)
        return
    version = _version_of(turn, prompt)
    job = TurnJob(
        chat_id=turn.chat_id,
        message=asked.text,
        spec=version.spec(),
        version=version,
        config_names=loaded_prompt(prompt).config_names,
        context=turn.chat.current_context_variables,
        user=asked.user,
        fail_over=True,
    )
    yield from drive(resume_turn(job, history, turn.pk))


def _version_of(turn: Turn, prompt: PromptTemplate) -> PromptVersion:
    """The version that the turn started with, where it came as far as a call."""
    first = turn.llm_calls.select_related("prompt_version").order_by("attempt").first()
    return first.prompt_version if first and first.prompt_version else prompt.current_version()
