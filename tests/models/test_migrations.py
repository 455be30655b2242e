"""Migrations on a database that is in use: what was stored before is there after, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptTemplate
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model

pytestmark = pytest.mark.django_db(transaction=True)

FIRST, CHATS_AND_MONEY, USERS = "0001_initial", "0002_chats_and_money", "0003_call_users"


def migrate(name: str) -> Any:
    """Bring the tables to a migration; gives the models as they were then."""
    executor = MigrationExecutor(connection)
    executor.migrate([("llm_wrapper", name)])
    return MigrationExecutor(connection).loader.project_state([("llm_wrapper", name)]).apps


@pytest.fixture
def at_first() -> Iterator[Any]:
    """The models of the first migration, on its tables; afterwards the tables are the newest again."""
    newest = [key for key in MigrationExecutor(connection).loader.graph.leaf_nodes() if key[0] == "llm_wrapper"]
    yield migrate(FIRST)
    MigrationExecutor(connection).migrate(newest)


class Filled:
    """Rows of a site that has run on the first migration for a while."""

    def __init__(self, apps: Any) -> None:
        model = apps.get_model
        user = model("auth", "User").objects.create
        self.ada, self.bob = user(username="ada"), user(username="bob")
        prompt = model("llm_wrapper", "PromptTemplate").objects.create(
            name="support", system_prompt_template="Be brief.", history_window=20, required_kwargs=[]
        )
        name = model("llm_wrapper", "LLMConfigName").objects.create(name="demo")
        prompt.llm_config_names.add(name)
        content = {
            "system": "Be brief.",
            "user": "",
            "initial_messages": [],
            "required_kwargs": [],
            "logged_context_vars": [],
            "model_params": {},
            "history_window": 20,
            "replay_rendered": False,
            "tools": [],
        }
        version = model("llm_wrapper", "PromptVersion").objects.create(
            prompt_template=prompt, name="support", number=1, digest="old", content=content
        )
        self.apps, self.version, self.prompt = apps, version, prompt
        # Whose chat, and who wrote in each of its turns: a colleague, or nobody, may write in somebody's chat.
        self.chats = [
            self._chat(self.ada, [self.ada, self.bob]),
            self._chat(None, [None]),
            self._chat(self.bob, [None, self.bob]),
        ]

    def _chat(self, owner: Any, authors: list[Any]) -> Any:
        model = self.apps.get_model
        chat = model("llm_wrapper", "ChatHistory").objects.create(
            user=owner,
            prompt_template=self.prompt,
            turn_count=len(authors),
            current_context_variables={"plan": "pro", "n": [1, None, "漢字"]},
        )
        steps = model("llm_wrapper", "Message").objects
        system = steps.create(chat=chat, position=1, type="system", text="Be brief.")
        position, entries = 1, [(system, "system")]
        for number, author in enumerate(authors, start=1):
            turn = model("llm_wrapper", "Turn").objects.create(chat=chat, number=number, status="done")
            asked = steps.create(chat=chat, turn=turn, position=position + 1, type="user", text="hi", user=author)
            call = model("llm_wrapper", "LLMCall").objects.create(
                turn=turn,
                attempt=1,
                config_name="demo",
                model="demo/demo",
                status="done",
                prompt_version=self.version,
                first_position=1,
                last_position=position + 1,
                system_message=system,
                input_tokens=10,
                output_tokens=5,
                cost=Decimal("0.0000000123"),
            )
            answer = steps.create(
                chat=chat, turn=turn, position=position + 2, type="assistant", text="Hello.", llm_call=call, thumb=1
            )
            entries += [(asked, "user"), (answer, "assistant")]
            position += 2
        chat.chat_history = [
            {
                "id": step.pk,
                "role": role,
                "content": step.text,
                "timestamp": round(step.date_created.timestamp(), 1),
                **({"thumb": 1} if step.thumb else {}),
            }
            for step, role in entries
        ]
        chat.system_message, chat.last_position = system, position
        chat.input_tokens_count, chat.output_tokens_count = 10 * len(authors), 5 * len(authors)
        chat.cost = Decimal("0.0000000123") * len(authors)
        chat.save()
        return chat


def everything(apps: Any) -> dict[str, list[dict[str, Any]]]:
    names = ("ChatHistory", "Turn", "Message", "LLMCall", "PromptTemplate", "PromptVersion")
    return {name: list(apps.get_model("llm_wrapper", name).objects.order_by("pk").values()) for name in names}


def test_a_filled_database_is_brought_up_to_date(at_first: Any) -> None:
    """Nothing that was stored is changed; each call gets the user whose message it answered, else the chat's own, as
    calls do from now on; rows, transcripts and counters agree; what was sent can be seen; and the chats go on."""
    filled = Filled(at_first)
    before = everything(at_first)
    after = everything(migrate(USERS))
    for name, rows in before.items():
        for old, new in zip(rows, after[name], strict=True):
            assert {key: new[key] for key in old} == old, name
    asked_by = [call.user.username if call.user else None for call in LLMCall.objects.order_by("pk")]
    assert asked_by == ["ada", "bob", None, "bob", "bob"]
    assert {call.purpose for call in LLMCall.objects.all()} == {"answer"}
    assert {(call.left_out, call.cache_hit) for call in LLMCall.objects.all()} == {(0, False)}
    assert {step.type for step in Message.objects.all()} == {"system", "user", "assistant"}
    prompt = PromptTemplate.objects.get()
    assert (prompt.api_access, prompt.history_tokens, prompt.summarise_left_out) == ("nobody", None, False)
    assert prompt.versions.get().spec().history_tokens is None
    assert LLMCall.objects.order_by("pk")[1].sent_messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "hi"},
    ]
    for chat in ChatHistory.objects.all():
        assert not list(audit.differences(chat))
    wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=filled.chats[0].pk)
    with scripted_model("Again.") as model:
        wrapper.send_user_message_and_get_response("more")
    assert len(model.requests[0].messages) == 6


def test_users_that_are_named_already_are_kept(at_first: Any) -> None:
    """A call that was made between the two migrations, and has its user, keeps it."""
    filled = Filled(at_first)
    between = migrate(CHATS_AND_MONEY)
    calls = between.get_model("llm_wrapper", "LLMCall").objects
    first = calls.order_by("pk").first()
    calls.filter(pk=first.pk).update(user=filled.bob.pk)
    assert calls.filter(user=None).count() == 4
    migrate(USERS)
    assert LLMCall.objects.get(pk=first.pk).user.username == "bob"


def test_the_way_back_loses_only_what_is_new(at_first: Any) -> None:
    """Back at the first migration all that it knows is as it was; and the way there and back can be gone again."""
    Filled(at_first)
    before = everything(at_first)
    for _ in range(2):
        migrate(USERS)
        assert everything(migrate(FIRST)) == before


def test_summaries_do_not_stand_in_the_way_back(at_first: Any) -> None:
    """Chats that have been used with what is new can be taken back: their steps stay."""
    filled = Filled(at_first)
    migrate(USERS)
    chat = filled.chats[0].pk
    Message.objects.create(chat_id=chat, position=6, type="summary", text="They spoke.", pinned=True, comment="nice")
    LLMCall.objects.filter(turn__chat=chat).update(purpose="summary", cache_hit=True)
    back = migrate(FIRST)
    assert back.get_model("llm_wrapper", "Message").objects.get(position=6).text == "They spoke."
