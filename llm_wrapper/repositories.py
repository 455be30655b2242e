"""The front door: a conversation run from a `PromptTemplate` row."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from asgiref.sync import sync_to_async

from llm_wrapper import configs, errors, history, prompts
from llm_wrapper.events import Event, TurnFinished
from llm_wrapper.history.database import statement
from llm_wrapper.history.unsaved import UnsavedJournal
from llm_wrapper.models import ChatHistory, Message, PromptTemplate, Turn
from llm_wrapper.models.loading import LoadedPrompt, load_prompt
from llm_wrapper.turn import TurnJob, adrive, checked_message, drive, refuse_running_loop, run_turn
from llm_wrapper.turn.render import initial_steps
from llm_wrapper.types import LLMReply

log = logging.getLogger("llm_wrapper")


class LLMCommunicationWrapper:
    """One conversation on one prompt.

    `prompt_name` is the name of a `PromptTemplate` row (unknown: `PromptTemplate.DoesNotExist`).
    `chat_history_id` continues a chat; None starts a new one. `initialize` writes the system and the initial
    messages of a new chat now; otherwise they are written with the first message. `initializing_context_vars` are
    context variables that stay in force for all turns of this instance; what the templates use of them is
    remembered in the chat. `response_format_class` is a pydantic model that every answer must fit. `user` owns
    the chat and its messages.

    One config is drawn when the instance is made and kept for the chat while it can answer.
    Inside a running event loop use `await LLMCommunicationWrapper.acreate(...)` and the methods with an 'a'.
    """

    LLMConfigsNotAvailable = errors.LLMConfigsNotAvailable

    def __init__(
        self,
        *,
        prompt_name: str,
        chat_history_id: int | None = None,
        initialize: bool = True,
        initializing_context_vars: Mapping[str, Any] | None = None,
        response_format_class: Any = None,
        user: Any = None,
    ) -> None:
        refuse_running_loop()
        self.prompt_name = prompt_name
        self.response_format_class = response_format_class
        self.user = user
        self._context = dict(initializing_context_vars or {})
        loaded = load_prompt(prompt_name)
        prompt, spec = loaded.prompt, loaded.spec
        self._draw = _draw(loaded)
        if chat_history_id is None:
            self._chat = self._new_chat(prompt, spec, initialize)
        else:
            self._chat = ChatHistory.objects.defer("chat_history").get(pk=chat_history_id)
            if initialize and self._chat.last_position:
                log.debug("Chat %s is already initialised; its history is left as it is.", chat_history_id)
            self._keep(prompt, spec)
        self._sticky = self._chat.llm_config_name or self._draw.get("chosen", "")

    @classmethod
    async def acreate(cls, **kwargs: Any) -> LLMCommunicationWrapper:
        """The constructor for use inside an event loop."""
        return await sync_to_async(cls)(**kwargs)

    def _new_chat(self, prompt: PromptTemplate, spec: Any, initialize: bool) -> ChatHistory:
        steps: list[dict[str, Any]] = []
        if initialize:
            prompts.require(replace(spec, user="", required_kwargs=()), self._context, where="the new chat")
            system = prompts.render_system(spec, self._context)
            if system:
                steps.append({"type": Message.Type.SYSTEM, "text": system})
            steps += initial_steps(spec, self._context)
        return history.create_chat(
            user=self.user,
            prompt_template_id=prompt.pk,
            steps=steps,
            remembered=prompts.remembered(spec, self._context),
            llm_config_name=self._draw.get("chosen", ""),
        )

    def _keep(self, prompt: PromptTemplate, spec: Any) -> None:
        history.remember(
            self._chat.pk, prompts.remembered(spec, self._context), known=self._chat.current_context_variables
        )
        if self._chat.prompt_template_id != prompt.pk:
            ChatHistory.objects.filter(pk=self._chat.pk).update(prompt_template=prompt)

    # -- sending ---------------------------------------------------------------------------------------

    def send_user_message_and_get_response(
        self,
        message: str,
        context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
        *,
        idempotency_key: str | None = None,
        wait: float = 0.0,
    ) -> LLMReply:
        """Send a message and wait for the answer, a `str` with `.id`, `.turn`, `.tool_calls`, `.usage`, `.cost` and
        `.parsed`.

        `context_vars` are laid over the remembered ones. With `retry_on_openai_time_limit` a config that is
        rate limited, slow, overloaded or unreachable is left for another of the prompt's, until none is left
        (`AllConfigsUnavailable`). With `idempotency_key` a repeated send gives the stored answer.
        While another message of the chat is being answered, `TurnInProgress` is raised, after up to `wait` seconds.
        Raises `MissingContextVariables` before anything is stored; after that the message is kept, whatever happens.
        """
        refuse_running_loop()
        job = self._job(message, context_vars, retry_on_openai_time_limit, idempotency_key, wait, stream=False)
        return _reply(list(drive(run_turn(job, history))))

    async def asend_user_message_and_get_response(
        self,
        message: str,
        context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
        *,
        idempotency_key: str | None = None,
        wait: float = 0.0,
    ) -> LLMReply:
        """The async twin of `send_user_message_and_get_response`."""
        job = await sync_to_async(self._job)(
            message, context_vars, retry_on_openai_time_limit, idempotency_key, wait, stream=False
        )
        async with aclosing(adrive(run_turn(job, history))) as events:
            return _reply([event async for event in events])

    def stream_user_message(
        self,
        message: str,
        context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
        *,
        idempotency_key: str | None = None,
        wait: float = 0.0,
    ) -> Generator[Event, None, None]:
        """Send a message and yield events as they happen; see `llm_wrapper.events`. The last one is
        `TurnFinished`, or `TurnFailed` before the error is raised. Closing the generator stops the turn."""
        refuse_running_loop()
        job = self._job(message, context_vars, retry_on_openai_time_limit, idempotency_key, wait, stream=True)
        yield from drive(run_turn(job, history))

    async def astream_user_message(
        self,
        message: str,
        context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
        *,
        idempotency_key: str | None = None,
        wait: float = 0.0,
    ) -> AsyncGenerator[Event, None]:
        """The async twin of `stream_user_message`."""
        job = await sync_to_async(self._job)(
            message, context_vars, retry_on_openai_time_limit, idempotency_key, wait, stream=True
        )
        async with aclosing(adrive(run_turn(job, history))) as events:
            async for event in events:
                yield event

    def regenerate_response(
        self, context_vars: Mapping[str, Any] | None = None, retry_on_openai_time_limit: bool = False
    ) -> LLMReply:
        """Have the newest message answered anew. The answer before stays on record and leaves the context; where the
        new one fails it stays in force. Raises CannotRegenerate where there is no message."""
        refuse_running_loop()
        job = self._anew(context_vars, retry_on_openai_time_limit)
        return _reply(list(drive(run_turn(job, history))))

    async def aregenerate_response(
        self, context_vars: Mapping[str, Any] | None = None, retry_on_openai_time_limit: bool = False
    ) -> LLMReply:
        """The async twin of `regenerate_response`."""
        job = await sync_to_async(self._anew)(context_vars, retry_on_openai_time_limit)
        async with aclosing(adrive(run_turn(job, history))) as events:
            return _reply([event async for event in events])

    def stop(self) -> Turn | None:
        """Stop the turn that runs on the chat, in whichever process; None where none runs. What has arrived stays."""
        refuse_running_loop()
        return history.stop_turn(self._chat.pk)

    async def astop(self) -> Turn | None:
        """The async twin of `stop`."""
        return await sync_to_async(history.stop_turn)(self._chat.pk)

    def _anew(self, context_vars: Mapping[str, Any] | None, fail_over: bool) -> TurnJob:
        newest = history.newest_question(self._chat.pk)
        job = self._job(newest.text, context_vars, fail_over, None, 0.0, stream=False)
        return replace(job, replaces=newest.turn_id)

    @statement
    def _job(
        self,
        message: str,
        context_vars: Mapping[str, Any] | None,
        fail_over: bool,
        idempotency_key: str | None,
        wait: float,
        *,
        stream: bool,
    ) -> TurnJob:
        loaded = load_prompt(self.prompt_name)
        chat = history.standing(self._chat.pk)
        return TurnJob(
            chat_id=self._chat.pk,
            message=checked_message(message),
            spec=loaded.spec,
            version=loaded.version,
            config_names=loaded.config_names,
            context={**chat.current_context_variables, **self._context, **(context_vars or {})},
            user=self.user,
            initial=chat.last_position == 0,
            fail_over=fail_over,
            stream=stream,
            sticky=self._sticky,
            draw=self._draw,
            response_format=self.response_format_class,
            idempotency_key=idempotency_key,
            wait=wait,
        )

    # -- one answer without a chat ---------------------------------------------------------------------

    @staticmethod
    def get_response_without_chathistory(
        prompt_name: str,
        response_format_class: Any = None,
        initializing_context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
    ) -> LLMReply:
        """One answer to a prompt, outside any chat; nothing is stored. The user template, if there is one, is
        rendered with an empty message."""
        job = _unsaved_job(prompt_name, response_format_class, initializing_context_vars, retry_on_openai_time_limit)
        return _reply(list(drive(run_turn(job, UnsavedJournal()))))

    @staticmethod
    async def aget_response_without_chathistory(
        prompt_name: str,
        response_format_class: Any = None,
        initializing_context_vars: Mapping[str, Any] | None = None,
        retry_on_openai_time_limit: bool = False,
    ) -> LLMReply:
        """The async twin of `get_response_without_chathistory`."""
        job = await sync_to_async(_unsaved_job)(
            prompt_name, response_format_class, initializing_context_vars, retry_on_openai_time_limit
        )
        async with aclosing(adrive(run_turn(job, UnsavedJournal()))) as events:
            return _reply([event async for event in events])

    # -- looking at it ---------------------------------------------------------------------------------

    @property
    def chat_history_id(self) -> int:
        return int(self._chat.pk)

    @property
    def llm_config_name(self) -> str:
        """The config that the chat stays with."""
        return str(ChatHistory.objects.values_list("llm_config_name", flat=True).get(pk=self._chat.pk) or self._sticky)

    def get_chat_history_object(self) -> ChatHistory:
        """The chat's row, read anew."""
        return ChatHistory.objects.get(pk=self._chat.pk)

    def get_llm_config(self) -> Any:
        """The config that the chat stays with, as loaded from its YAML file."""
        return configs.get_configs().get(self.llm_config_name)

    def get_initial_msg_templates(self) -> list[dict[str, str]]:
        return list(PromptTemplate.objects.get(name=self.prompt_name).initial_messages_templates)


def _draw(loaded: LoadedPrompt) -> dict[str, Any]:
    """The route of the draw that is made with the instance. A prompt without any usable config fails here and
    not in front of the user; one whose configs all rest at the moment fails when a message is sent, which is
    then kept."""
    try:
        return configs.choose(loaded.config_names, needs_tools=bool(loaded.spec.tools))[1]
    except errors.AllConfigsUnavailable:
        return {}


def _unsaved_job(prompt_name: str, response_format: Any, context: Mapping[str, Any] | None, fail_over: bool) -> TurnJob:
    loaded = load_prompt(prompt_name)
    return TurnJob(
        chat_id=0,
        message="",
        spec=loaded.spec,
        config_names=loaded.config_names,
        context=dict(context or {}),
        initial=True,
        fail_over=fail_over,
        response_format=response_format,
    )


def _reply(events: Sequence[Event]) -> LLMReply:
    for event in reversed(events):
        if isinstance(event, TurnFinished):
            return event.reply
    raise AssertionError("unreachable: a turn without a reply raises")


class ChatHistoryRepository:
    """The steps of one chat, for code that adds to it or shows it."""

    def __init__(self, chat_history_id: int) -> None:
        self._chat_id = chat_history_id
        self.get_chat()

    @staticmethod
    def create_new_chat_history(**columns: Any) -> ChatHistory:
        """A new, empty chat."""
        return history.create_chat(**columns)

    def get_chat(self) -> ChatHistory:
        return ChatHistory.objects.get(pk=self._chat_id)

    def is_chat_history_empty(self) -> bool:
        return not self.get_chat().last_position

    def add_msgs_to_chat_history(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add messages, committed as one; gives their ids.

        Each is a dict with `role` (user, assistant or system) and `content`; further keys (`system_generated`,
        `show_in_user_history`) are kept with the step. Raises TurnInProgress while the chat is answering.
        """
        steps = [_step(message) for message in messages]
        return [step.pk for step in history.add_steps(self.get_chat(), steps)]

    def get_msg_list_for_llm(self) -> list[dict[str, Any]]:
        """The messages that the next call would send, in OpenAI's format."""
        chat = self.get_chat()
        return history.context_of(chat)

    def get_processed_chat_messages(self, is_superuser: bool = False) -> list[dict[str, Any]]:
        """The chat as its user may see it; tool data only for superusers."""
        return history.processed_messages(self.get_chat(), with_tools=is_superuser)

    def update_message_thumb_rating(self, message_id: int, thumb: int | None) -> bool:
        """Set 1 (up), -1 (down) or None on an answer; False if the chat has no such answer."""
        return history.rate(self._chat_id, message_id, thumb)

    def get_thumbs_counts(self) -> dict[str, int]:
        """`{"thumbs_up": int, "thumbs_down": int}`."""
        return history.thumbs_counts(self.get_chat())

    def get_user_message_count(self) -> int:
        """How many messages the user sent (those the system wrote in the user's role do not count)."""
        users = Message.objects.filter(chat=self._chat_id, type=Message.Type.USER)
        return users.exclude(payload__has_key="system_generated").count()


def _step(message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system") or not isinstance(content, str):
        raise ValueError(
            f"A message needs a role (user, assistant or system) and text as content, not {role!r} and "
            f"{type(content).__name__}."
        )
    payload = {key: value for key, value in message.items() if key not in ("role", "content")}
    return {"type": role, "text": content, "payload": payload}
