"""A persistent chat with any model, without a prompt template: write to it, read it, see what each answer took."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from llm_wrapper import history
from llm_wrapper.conf import conf
from llm_wrapper.errors import DuplicateSystemMessage, LLMConfigsNotAvailable
from llm_wrapper.events import Event, StreamReset, TextDelta, TurnFinished
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.models.users import service_user
from llm_wrapper.turn import TurnJob, adrive, checked_message, drive, refuse_running_loop, run_turn
from llm_wrapper.types import LLMReply, PromptSpec, ResponseCache, Usage

# A config's name, or a litellm model id; or several of them.
Models = str | Sequence[str]
LONGEST_NAME = LLMCall._meta.get_field("config_name").max_length or 100


class Answer(tuple[Message, Message]):
    """What a message got: unpacks into `(ai_msg, user_msg)`.

    `llm_call` is the call that gave the answer; its `.messages.all()` is what was sent. `reply` is the answer as
    `llm_wrapper.types.LLMReply`; `usage`, `cost` (None: unknown) and `parsed` (an instance of `output_model`) are its.
    """

    llm_call: LLMCall
    reply: LLMReply

    def __new__(cls, ai_msg: Message, user_msg: Message, llm_call: LLMCall, reply: LLMReply) -> Answer:
        answer = super().__new__(cls, (ai_msg, user_msg))
        answer.llm_call, answer.reply = llm_call, reply
        return answer

    @property
    def usage(self) -> Usage:
        return self.reply.usage

    @property
    def cost(self) -> Any:
        return self.reply.cost

    @property
    def parsed(self) -> Any:
        return self.reply.parsed


class Chat:
    """One conversation, kept in the database as `chat_db_model`.

    `last_user_message`, `last_llm_message` and `llm_call` are those of the last send through this object.
    Messages without a user belong to the default user, answers to `llm_user`; both are made on demand, and cannot
    log in.
    """

    def __init__(self, chat_db_model: ChatHistory) -> None:
        self.chat_db_model = chat_db_model
        self.last_user_message: Message | None = None
        self.last_llm_message: Message | None = None
        self.llm_call: LLMCall | None = None
        self._llm_user: Any = None

    @classmethod
    def create(cls, *, user: Any = None, title: str = "") -> Chat:
        """A new chat. `user` owns it: with an owner it shows in that user's lists."""
        refuse_running_loop()
        return cls(history.create_chat(user=user, title=title))

    @classmethod
    async def acreate(cls, *, user: Any = None, title: str = "") -> Chat:
        """The async twin of `create`."""
        return cls(await sync_to_async(history.create_chat)(user=user, title=title))

    @classmethod
    def open(cls, chat_id: int | str | UUID) -> Chat:
        """An existing chat, by its id or its `public_id`. Raises ChatHistory.DoesNotExist."""
        refuse_running_loop()
        return cls._open(chat_id)

    @classmethod
    async def aopen(cls, chat_id: int | str | UUID) -> Chat:
        """The async twin of `open`."""
        return await sync_to_async(cls._open)(chat_id)

    @classmethod
    def _open(cls, chat_id: int | str | UUID) -> Chat:
        chats = ChatHistory.objects.defer("chat_history")
        if isinstance(chat_id, int):
            return cls(chats.get(pk=chat_id))
        try:
            public_id = UUID(str(chat_id))
        except ValueError:
            raise ChatHistory.DoesNotExist(
                f"{chat_id!r} is not the id of a chat. Give its `id`, an int, or its `public_id`."
            ) from None
        return cls(chats.get(public_id=public_id))

    def __repr__(self) -> str:
        return f"<Chat {self.chat_db_model.pk}>"

    @property
    def llm_user(self) -> Any:
        """The user that answers are stored under."""
        if self._llm_user is None:
            self._llm_user = service_user(conf.llm_username)
        return self._llm_user

    @property
    def system_message(self) -> Message | None:
        """The system message in force."""
        return Message.objects.filter(pk__in=[self._row().system_message_id]).first()

    # -- without a model -------------------------------------------------------------------------------

    def create_system_message(self, text: str, user: Any = None) -> Message:
        """Tell the model, ahead of all messages, how to behave. Raises DuplicateSystemMessage where the chat has such
        a message already; it holds from the next send on."""
        refuse_running_loop()
        if self._row().system_message_id is not None:
            raise DuplicateSystemMessage(
                f"Chat {self.chat_db_model.pk} has a system message already, and a chat has one. Begin another chat."
            )
        return self._add(Message.Type.SYSTEM, text, user)

    async def acreate_system_message(self, text: str, user: Any = None) -> Message:
        """The async twin of `create_system_message`."""
        return await _threaded(self.create_system_message, text, user)

    def create_user_message(self, text: str, user: Any = None) -> Message:
        """Store a message without asking a model. The next send sends it too."""
        refuse_running_loop()
        return self._add(Message.Type.USER, text, user)

    async def acreate_user_message(self, text: str, user: Any = None) -> Message:
        """The async twin of `create_user_message`."""
        return await _threaded(self.create_user_message, text, user)

    def get_msg_history(self) -> list[dict[str, Any]]:
        """The messages that a call made now would send, in OpenAI's format."""
        refuse_running_loop()
        return history.context_of(self._row())

    async def aget_msg_history(self) -> list[dict[str, Any]]:
        """The async twin of `get_msg_history`."""
        return await _threaded(self.get_msg_history)

    def get_messages(self) -> QuerySet[Message]:
        """All steps, oldest first; for `for` and for `async for`."""
        return self.chat_db_model.messages.order_by("position")

    def _add(self, kind: str, text: str, user: Any) -> Message:
        step = {"type": kind, "text": checked_message(text), "user": user or service_user(conf.default_username)}
        (message,) = history.add_steps(self.chat_db_model, [step])
        return message

    def _row(self) -> ChatHistory:
        return ChatHistory.objects.defer("chat_history").get(pk=self.chat_db_model.pk)

    # -- with a model ----------------------------------------------------------------------------------

    def send_user_msg_to_llm(self, model_name: Models, text: str, user: Any = None, **options: Any) -> Answer:
        """Send a message and wait for the answer: `ai_msg, user_msg = chat.send_user_msg_to_llm(...)`.

        `model_name` is the name of a config, or any litellm model id (its key then comes from the environment); so it
        must never be taken as it is from outside. Of several names one is drawn, the chat stays with it, and leaves it
        for another where it is limited, slow or dead.
        `options`, all optional:

        - `include_chat_history` (True): send what was said before; False sends only the system message and this one.
        - `temperature`, `max_tokens`: sent only where given.
        - `output_model`: a pydantic class that the answer must fit; `.parsed` is its instance.
        - `history_window`, `history_tokens`: at most so many messages or tokens; by default what the model has room
          for.
        - `summarise_left_out` (False): sum up what has no room, by a call of its own.
        - `use_cache` (False): the same request within `cache_lifetime` seconds (3600) gets the same answer again,
          without a call, at no cost. `cache_scope` says who shares answers: by default only messages of the same user.
        - `idempotency_key`, `wait`: as in `LLMCommunicationWrapper`.

        The message is stored before the model is called. Whatever fails then raises an `LLMWrapperError`, and message,
        call and error are kept.
        """
        refuse_running_loop()
        return self._settle(list(drive(run_turn(self._job(model_name, text, user, **options), history))))

    async def asend_user_msg_to_llm(self, model_name: Models, text: str, user: Any = None, **options: Any) -> Answer:
        """The async twin of `send_user_msg_to_llm`."""
        job = await sync_to_async(self._job)(model_name, text, user, **options)
        async with aclosing(adrive(run_turn(job, history))) as events:
            return await sync_to_async(self._settle)([event async for event in events])

    def call_llm(self, model_name: Models, message: str, user: Any = None, **options: Any) -> Answer:
        """`send_user_msg_to_llm` under its newer name."""
        return self.send_user_msg_to_llm(model_name, message, user, **options)

    async def acall_llm(self, model_name: Models, message: str, user: Any = None, **options: Any) -> Answer:
        """The async twin of `call_llm`."""
        return await self.asend_user_msg_to_llm(model_name, message, user, **options)

    def stream_call_llm(
        self, model_name: Models, message: str, user: Any = None, **options: Any
    ) -> Generator[str, None, Answer]:
        """Send a message and yield the answer's text as it arrives; the generator returns the `Answer`. Options as in
        `send_user_msg_to_llm`. Closing the generator stops the turn and keeps what has arrived.

        Where an answer breaks off and begins anew on another config, the text begins anew, too: use `stream_events`
        to be told.
        """
        refuse_running_loop()
        seen: list[Event] = []
        with closing(self.stream_events(model_name, message, user, **options)) as events:
            for event in events:
                seen.append(event)
                if text := _new_text(seen):
                    yield text
        return self._settle(seen)

    async def astream_call_llm(
        self, model_name: Models, message: str, user: Any = None, **options: Any
    ) -> AsyncGenerator[str, None]:
        """The async twin of `stream_call_llm`; the answer is in `last_llm_message` and `llm_call` afterwards."""
        seen: list[Event] = []
        async with aclosing(self.astream_events(model_name, message, user, **options)) as events:
            async for event in events:
                seen.append(event)
                if text := _new_text(seen):
                    yield text
        await sync_to_async(self._settle)(seen)

    def stream_events(
        self, model_name: Models, message: str, user: Any = None, **options: Any
    ) -> Generator[Event, None, None]:
        """Send a message and yield the turn's events; see `llm_wrapper.events`."""
        refuse_running_loop()
        yield from drive(run_turn(self._job(model_name, message, user, stream=True, **options), history))

    async def astream_events(
        self, model_name: Models, message: str, user: Any = None, **options: Any
    ) -> AsyncGenerator[Event, None]:
        """The async twin of `stream_events`."""
        job = await sync_to_async(self._job)(model_name, message, user, stream=True, **options)
        async with aclosing(adrive(run_turn(job, history))) as events:
            async for event in events:
                yield event

    def regenerate(self, model_name: Models, **options: Any) -> Answer:
        """Have the newest message answered anew. The answer before stays on record and leaves the context; where the
        new one fails it stays in force. Raises CannotRegenerate where there is no message."""
        refuse_running_loop()
        return self._settle(list(drive(run_turn(self._anew(model_name, **options), history))))

    async def aregenerate(self, model_name: Models, **options: Any) -> Answer:
        """The async twin of `regenerate`."""
        job = await sync_to_async(self._anew)(model_name, **options)
        async with aclosing(adrive(run_turn(job, history))) as events:
            return await sync_to_async(self._settle)([event async for event in events])

    def regenerate_events(self, model_name: Models, **options: Any) -> Generator[Event, None, None]:
        """`regenerate`, as the turn's events."""
        refuse_running_loop()
        yield from drive(run_turn(self._anew(model_name, stream=True, **options), history))

    async def aregenerate_events(self, model_name: Models, **options: Any) -> AsyncGenerator[Event, None]:
        """The async twin of `regenerate_events`."""
        job = await sync_to_async(self._anew)(model_name, stream=True, **options)
        async with aclosing(adrive(run_turn(job, history))) as events:
            async for event in events:
                yield event

    def stop(self) -> Turn | None:
        """Stop the turn that runs on this chat, in whichever process; None where none runs. What has arrived stays."""
        refuse_running_loop()
        return history.stop_turn(self.chat_db_model.pk)

    async def astop(self) -> Turn | None:
        """The async twin of `stop`."""
        return await sync_to_async(history.stop_turn)(self.chat_db_model.pk)

    def _anew(self, model_name: Models, **options: Any) -> TurnJob:
        newest = history.newest_question(self.chat_db_model.pk)
        return replace(self._job(model_name, newest.text, newest.user, **options), replaces=newest.turn_id)

    def _job(
        self,
        model_name: Models,
        text: str,
        user: Any = None,
        *,
        include_chat_history: bool = True,
        temperature: float | None = None,
        max_tokens: int | None = None,
        output_model: Any = None,
        history_window: int | None = None,
        history_tokens: int | None = None,
        summarise_left_out: bool = False,
        use_cache: bool = False,
        cache_lifetime: float = 3600.0,
        cache_scope: str | None = None,
        idempotency_key: str | None = None,
        wait: float = 0.0,
        replaces: int | None = None,
        stream: bool = False,
    ) -> TurnJob:
        names = _names(model_name)
        user = user or service_user(conf.default_username)
        params = {"temperature": temperature, "max_tokens": max_tokens}
        cache = None
        if use_cache:
            cache = ResponseCache(f"user {user.pk}" if cache_scope is None else f"scope {cache_scope}", cache_lifetime)
        return TurnJob(
            chat_id=self.chat_db_model.pk,
            message=checked_message(text),
            spec=PromptSpec(
                name="",
                model_params={name: value for name, value in params.items() if value is not None},
                history_window=history_window if include_chat_history else 1,
                history_tokens=history_tokens,
                summarise_left_out=summarise_left_out and include_chat_history,
            ),
            config_names=names,
            any_model=True,
            fail_over=len(names) > 1,
            user=user,
            llm_user=self.llm_user,
            response_format=output_model,
            response_cache=cache,
            idempotency_key=idempotency_key,
            wait=wait,
            replaces=replaces,
            stream=stream,
        )

    def _settle(self, events: list[Event]) -> Answer:
        """Note what the turn gave."""
        finished = next(event for event in reversed(events) if isinstance(event, TurnFinished))
        reply = finished.reply
        steps = Message.objects.filter(turn=reply.turn).select_related("user").order_by("position")
        user_msg = steps.filter(type=Message.Type.USER)[0]
        ai_msg = steps.filter(pk__in=[reply.id])[0]
        call = LLMCall.objects.get(answers=ai_msg)
        self.last_llm_message, self.last_user_message, self.llm_call = ai_msg, user_msg, call
        self.chat_db_model = self._row()
        return Answer(ai_msg, user_msg, call, reply)


def _names(model_name: Models) -> list[str]:
    """The names of configs or models as a list. Raises LLMConfigsNotAvailable for one that cannot be either."""
    names = [model_name] if isinstance(model_name, str) else list(model_name)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise LLMConfigsNotAvailable(f"{name!r} names no model. Give the name of a config, or a litellm model id.")
        if len(name) > LONGEST_NAME:
            raise LLMConfigsNotAvailable(
                f"The model id {name[:40]!r}… is longer than {LONGEST_NAME} characters. Write a YAML config for it "
                "(`llm_config_class: LiteLLMConfig`), and give the config's name."
            )
    if not names:
        raise LLMConfigsNotAvailable("No model was named. Give the name of a config, or a litellm model id.")
    return names


def _new_text(seen: Sequence[Event]) -> str:
    """The text that the newest event brings. A config that does not stream, and a turn that was answered before, bring
    all of it with their end."""
    newest = seen[-1]
    if isinstance(newest, TextDelta):
        return newest.text
    if isinstance(newest, TurnFinished):
        came = next((event for event in reversed(seen) if isinstance(event, TextDelta | StreamReset)), None)
        return "" if isinstance(came, TextDelta) else str(newest.reply)
    return ""


async def _threaded(function: Any, *args: Any) -> Any:
    return await sync_to_async(function)(*args)
