"""A conversation that a command runs: on a prompt, or on models alone."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.management import CommandError

from llm_wrapper import configs, history
from llm_wrapper.chat import Chat
from llm_wrapper.errors import LLMWrapperError, MissingContextVariables
from llm_wrapper.events import Event, TurnFinished
from llm_wrapper.models import ChatHistory, PromptTemplate, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper


class Conversation(ABC):
    """One session, and how its messages are answered. `models` are the names that may answer."""

    models: list[str]

    def __init__(self, chat_id: int, *, is_new: bool) -> None:
        self.chat_id, self.is_new = chat_id, is_new

    @abstractmethod
    def send(self, text: str) -> Generator[Event, None, None]:
        """Send a message; gives the turn's events, and raises what the turn raises."""

    @abstractmethod
    def regenerate(self) -> Generator[Event, None, None]:
        """Have the newest message answered anew."""

    @abstractmethod
    def use_model(self, name: str) -> None:
        """Have the next messages answered by this model. Raises CommandError where it may not be used."""

    @abstractmethod
    def set_variable(self, name: str, value: Any) -> None:
        """Set a context variable for the next messages. Raises CommandError where there is no prompt to use it."""

    def row(self) -> ChatHistory:
        chats = ChatHistory.objects.select_related("prompt_template", "user")
        return chats.defer("chat_history").get(pk=self.chat_id)

    def newest_turn(self) -> int:
        """The number of the turn that was opened last, 0 where there is none."""
        numbers = Turn.objects.filter(chat=self.chat_id).order_by("-number").values_list("number", flat=True)
        return numbers.first() or 0

    def end_after(self, number: int) -> None:
        """End a turn that was opened after turn `number` and is still open, as cancelled."""
        if Turn.objects.filter(chat=self.chat_id, number__gt=number, status=Turn.Status.RUNNING).exists():
            history.stop_turn(self.chat_id, wait=0)

    def forget_if_empty(self) -> bool:
        """Delete a session that was made here if nothing was said in it."""
        if self.is_new and not self.newest_turn():
            ChatHistory.objects.filter(pk=self.chat_id).delete()
            return True
        return False


class OnModels(Conversation):
    """A session without a prompt."""

    def __init__(self, chat: Chat, models: Sequence[str], user: Any, *, is_new: bool) -> None:
        super().__init__(chat.chat_db_model.pk, is_new=is_new)
        self.chat, self.models, self.user = chat, list(models), user

    def send(self, text: str) -> Generator[Event, None, None]:
        return self.chat.stream_events(self.models, text, self.user)

    def regenerate(self) -> Generator[Event, None, None]:
        return self.chat.regenerate_events(self.models)

    def use_model(self, name: str) -> None:
        self.models = [name]

    def set_variable(self, name: str, value: Any) -> None:
        raise CommandError("Context variables are for prompts, and this session has none.")


class OnPrompt(Conversation):
    """A session on a prompt template, whose configs answer."""

    def __init__(self, wrapper: LLMCommunicationWrapper, variables: dict[str, Any], *, is_new: bool) -> None:
        super().__init__(wrapper.chat_history_id, is_new=is_new)
        self.wrapper, self.variables = wrapper, variables
        names = PromptTemplate.objects.get(name=wrapper.prompt_name).llm_config_names
        self.models = list(names.order_by("name").values_list("name", flat=True))

    def send(self, text: str) -> Generator[Event, None, None]:
        return self.wrapper.stream_user_message(text, self.variables, retry_on_openai_time_limit=True)

    def regenerate(self) -> Generator[Event, None, None]:
        reply = self.wrapper.regenerate_response(self.variables, retry_on_openai_time_limit=True)
        ids = {"turn_id": reply.turn.pk, "chat_id": reply.chat_id}
        yield TurnFinished(reply=reply, message_id=reply.id, usage=reply.usage, cost=reply.cost, **ids)

    def use_model(self, name: str) -> None:
        if name not in self.models:
            raise CommandError(
                f"{name!r} is not a config of the prompt {self.wrapper.prompt_name!r}; it has {', '.join(self.models)}."
            )
        # The config that a chat stays with while it can be used.
        ChatHistory.objects.filter(pk=self.chat_id).update(llm_config_name=name)

    def set_variable(self, name: str, value: Any) -> None:
        self.variables[name] = value


def find_user(name: str) -> Any:
    """The user of that name. Raises CommandError."""
    model = get_user_model()
    user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    if user is None:
        raise CommandError(f"There is no user {name!r}.")
    return user


def find_session(session_id: str) -> ChatHistory:
    """The session with that `public_id`, or that number. Raises CommandError."""
    sessions = ChatHistory.objects.select_related("prompt_template", "user").defer("chat_history")
    if session_id.isdecimal() and len(session_id) < 19:
        found = sessions.filter(pk=int(session_id)).first()
    else:
        try:
            found = sessions.filter(public_id=UUID(session_id)).first()
        except ValueError:
            found = None
    if found is None:
        raise CommandError(f"There is no session {session_id!r}. `manage.py llm_sessions` lists them.")
    return found


def read_variable(text: str) -> tuple[str, Any]:
    """`name=text` or `name:=JSON` as a pair. Raises CommandError."""
    name, equals, value = text.partition("=")
    as_json = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not equals or not name.isidentifier():
        raise CommandError(f"{text!r} is not a variable. Write name=text, or name:=JSON for a number or a list.")
    if not as_json:
        return name, value
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise CommandError(f"What stands after {name}:= is not JSON: {error}.") from None


def open_conversation(
    *, session: ChatHistory | None, prompt: str | None, model: str | None, user: Any, variables: Mapping[str, Any]
) -> Conversation:
    """Open a session, or begin one. Raises CommandError."""
    if session is not None:
        user = user or session.user
        if prompt is None and session.prompt_template is not None:
            prompt = session.prompt_template.name
    conversation: Conversation
    if prompt is not None:
        conversation = _on_prompt(prompt, session, user, dict(variables))
        if model is not None:
            conversation.use_model(model)
        return conversation
    if variables:
        raise CommandError("--var is for prompts: give one with --prompt.")
    models = [model] if model is not None else sorted(configs.get_configs().names())
    if not models:
        raise CommandError(
            "There is no LLM config. Put YAML files into LLM_CONFIGS_PATH, or name a litellm model id with --model."
        )
    chat = Chat.create(user=user) if session is None else Chat.open(session.pk)
    return OnModels(chat, models, user, is_new=session is None)


def _on_prompt(prompt: str, session: ChatHistory | None, user: Any, variables: dict[str, Any]) -> OnPrompt:
    try:
        wrapper = LLMCommunicationWrapper(
            prompt_name=prompt,
            chat_history_id=None if session is None else session.pk,
            initializing_context_vars=variables,
            user=user,
        )
    except PromptTemplate.DoesNotExist as error:
        raise CommandError(str(error)) from None
    except MissingContextVariables as error:
        wanted = " ".join(f"{name}=..." for name in error.names)
        raise CommandError(f"The prompt {prompt!r} wants values: give them with --var {wanted}") from None
    except LLMWrapperError as error:
        raise CommandError(f"{error} ({error.code})") from None
    return OnPrompt(wrapper, variables, is_new=session is None)
