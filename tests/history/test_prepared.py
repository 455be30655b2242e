"""Prepared statements do what the ORM's own would have done, and are kept under their shape alone."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.db.models import F, Model
from django.db.models.functions import Now

from llm_wrapper.history import prepared
from llm_wrapper.history.transcript import Append, DropOldest, MergeObject
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, PromptVersion, Turn

WHEN = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
ODD = "naïve 漢字 👩‍👩‍👧 '\"\\ %s %% \n\t \ufffd"
JSON = {"a": [1, 2.5, None, True, ODD], ODD: {"deep": {"er": "x"}}, "": "", "number": 12345678901234567890}

VALUES: dict[str, list[Any]] = {
    "CharField": ["", ODD[:40]],
    "TextField": ["", ODD * 50],
    "JSONField": [JSON, [], {}, [JSON], "text", 0, False, None],
    "DecimalField": [Decimal("0"), Decimal("0.0000000001"), Decimal("12345.6789012345"), Decimal("3E-7"), None],
    "UUIDField": [uuid.UUID(int=0), uuid.UUID("12345678-1234-5678-1234-567812345678")],
    "DateTimeField": [WHEN, WHEN.replace(microsecond=0), None],
    "FloatField": [0.1, 1e-300, 123456789.125, None],
    "BooleanField": [True, False],
    "PositiveIntegerField": [0, 2_147_483_647, None],
    "PositiveBigIntegerField": [0, 2**62],
    "SmallIntegerField": [1, -1, None],
}
MODELS = (ChatHistory, Turn, Message, LLMCall)
# Unique values, which two rows cannot share.
OWN = {"public_id", "number", "position", "attempt", "idempotency_key", "chat", "turn"}


def raw(row: Model) -> dict[str, Any]:
    """The row as the database itself gives it, without Django's converters."""
    columns = [field.column for field in row._meta.concrete_fields]
    quoted = ", ".join(connection.ops.quote_name(column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {quoted} FROM {row._meta.db_table} WHERE id = %s", [row.pk])  # noqa: S608
        return dict(zip(columns, cursor.fetchone(), strict=True))


class Pairs:
    """Two rows of each model, in two chats, to which the same is done in two ways."""

    def __init__(self) -> None:
        self.user = get_user_model().objects.create(username="ada")
        self.prompt = PromptTemplate.objects.create(name="support")
        self.version = self.prompt.current_version()
        self.chats = [ChatHistory.objects.create() for _ in range(2)]
        self.turns = [Turn.objects.create(chat=chat, number=1, status="done") for chat in self.chats]
        self.others = [Turn.objects.create(chat=chat, number=2, status="done") for chat in self.chats]
        self.messages = [Message.objects.create(chat=chat, position=1, type="user") for chat in self.chats]
        self.calls = [self._call(turn) for turn in self.turns]

    def _call(self, turn: Turn) -> LLMCall:
        return LLMCall.objects.create(
            turn=turn, attempt=1, config_name="a", model="m", first_position=1, last_position=1
        )

    def of(self, model: type[Model]) -> list[Any]:
        rows: dict[Any, list[Any]] = {
            ChatHistory: self.chats,
            Turn: self.turns,
            Message: self.messages,
            LLMCall: self.calls,
        }
        return rows[model]

    def values(self, field: Any) -> list[Any]:
        if field.is_relation:
            related: dict[Any, Any] = {
                get_user_model(): self.user,
                PromptTemplate: self.prompt,
                PromptVersion: self.version,
                Turn: self.others[0],
                Message: self.messages[0],
                LLMCall: self.calls[0],
                LLMConfigName: None,
            }
            return [related[field.related_model].pk, *([None] if field.null else [])]
        found = VALUES[field.get_internal_type()]
        if field.max_length:
            found = [value[: field.max_length] for value in found]
        if field.choices:
            found = [key for key, _ in field.flatchoices]
        return [value for value in found if value is not None or field.null]


@pytest.fixture
def pairs(db: None) -> Pairs:
    return Pairs()


def columns(model: type[Model]) -> list[Any]:
    return [field for field in model._meta.concrete_fields if not field.primary_key and field.name not in OWN]


@pytest.mark.parametrize("model", MODELS)
def test_an_update_writes_what_the_orm_would(model: type[Model], pairs: Pairs) -> None:
    """Every column of every table that a turn writes, with ordinary, odd and null values: the stored row is the same,
    to the type in which the database holds it."""
    one, other = pairs.of(model)
    for field in columns(model):
        for value in pairs.values(field):
            assert model._default_manager.filter(pk=one.pk).update(**{field.attname: value}) == 1
            assert prepared.update(model, {"pk": other.pk}, {field.attname: value}) == 1
            mine, orms = raw(other)[field.column], raw(one)[field.column]
            assert (mine, type(mine)) == (orms, type(orms)), (field.name, value)


@pytest.mark.parametrize("model", MODELS)
def test_an_insert_writes_what_the_orm_would(model: type[Model], pairs: Pairs) -> None:
    """A row that is inserted is stored as `save()` would store it, with defaults, choices and nulls, and knows its
    primary key."""
    for number in range(10):
        chosen = {}
        for field in columns(model):
            found = pairs.values(field)
            chosen[field.attname] = found[number % len(found)]
        chosen.pop("created_at", None), chosen.pop("updated_at", None)  # those that are the moment of saving
        rows = []
        for chat, turn in zip(pairs.chats, pairs.turns, strict=True):
            own: dict[Any, Any] = {
                ChatHistory: {},
                Turn: {"chat": chat, "number": 10 + number, "status": "done"},
                Message: {"chat": chat, "position": 10 + number, "turn": turn},
                LLMCall: {"turn": turn, "attempt": 10 + number},
            }
            rows.append(model(**{**chosen, **own[model]}))
        one, other = rows
        one.save()
        prepared.insert(other)
        assert other.pk
        assert not other._state.adding
        mine, orms = raw(other), raw(one)
        for field in columns(model):
            if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
                assert mine[field.column] is not None
                assert type(mine[field.column]) is type(orms[field.column])
            else:
                assert mine[field.column] == orms[field.column], field.name
        assert model._default_manager.filter(pk=other.pk).exists()


def test_values_that_the_database_makes(pairs: Pairs) -> None:
    """Its clock, additions, and changes of JSON columns are those that the ORM's expressions make."""
    one, other = pairs.chats
    for rounds in range(3):
        amount = Decimal("0.1000000001") * (rounds + 1)
        entry = {"role": "user", "content": ODD, "nested": JSON}
        ChatHistory.objects.filter(pk=one.pk).update(
            cost=F("cost") + amount,
            turn_count=F("turn_count") + 3,
            chat_history=Append([entry, entry]),
            current_context_variables=MergeObject("current_context_variables", {"a b": JSON, ODD: rounds}),
            updated_at=Now(),
        )
        changed = prepared.update(
            ChatHistory,
            {"pk": other.pk},
            {
                "cost": prepared.Plus(amount),
                "turn_count": prepared.Plus(3),
                "chat_history": Append([entry, entry]),
                "current_context_variables": MergeObject("current_context_variables", {"a b": JSON, ODD: rounds}),
                "updated_at": prepared.DatabaseNow(),
            },
        )
        assert changed == 1
        mine, orms = raw(other), raw(one)
        for name in ("cost", "turn_count", "chat_history", "current_context_variables"):
            assert (mine[name], type(mine[name])) == (orms[name], type(orms[name]))
    prepared.update(ChatHistory, {"pk": other.pk}, {"chat_history": Append([entry], DropOldest(4))})
    other.refresh_from_db()
    assert other.chat_history == [entry] * 3
    assert other.cost == Decimal("0.6000000006")


def test_a_row_is_matched_by_value_and_by_null(pairs: Pairs) -> None:
    """`where` matches equal values, None only null, and the statement for one is not used for the other."""
    turn = pairs.turns[0]
    for key in (None, "k", None, "k"):
        Turn.objects.filter(pk=turn.pk).update(idempotency_key=key)
        for asked in ("other", None, "k"):
            found = prepared.update(Turn, {"pk": turn.pk, "idempotency_key": asked}, {"error_code": "e"})
            assert found == int(asked == key)


def test_many_rows_are_updated_at_once(pairs: Pairs) -> None:
    """`update_many` gives each row its own values."""
    prepared.update_many(
        Message, [({"pk": row.pk}, {"token_counts": {"t": number}}) for number, row in enumerate(pairs.messages)]
    )
    assert [row.token_counts for row in Message.objects.order_by("pk")] == [{"t": 0}, {"t": 1}]


def _everything(model: type[Model]) -> Any:
    names = [field.attname for field in model._meta.concrete_fields]
    given = prepared.Given("pk", model._meta.pk)
    return lambda: model._default_manager.filter(pk=given).order_by().values_list(*names)


@pytest.mark.parametrize("model", MODELS)
def test_a_select_reads_what_the_orm_would(model: type[Model], pairs: Pairs) -> None:
    """Values come back as Python has them: JSON, decimals, UUIDs, times with their zone, nulls."""
    row, _ = pairs.of(model)
    build = _everything(model)
    for field in columns(model):
        for value in pairs.values(field):
            model._default_manager.filter(pk=row.pk).update(**{field.attname: value})
            (mine,) = prepared.select(build, pk=row.pk)
            names = [field.attname for field in model._meta.concrete_fields]
            (expected,) = model._default_manager.filter(pk=row.pk).values_list(*names)
            assert mine == expected, field.name
            assert [type(item) for item in mine] == [type(item) for item in expected]
    assert prepared.select(build, pk=0) == []


def test_statements_are_kept_by_shape_alone(pairs: Pairs) -> None:
    """What is kept does not grow with values, texts, keys or the number of entries."""
    chat = pairs.chats[0]

    def work(number: int) -> None:
        entries = [{"n": number}] * (number % 30 + 1)
        names = {f"key {number} {name}": number for name in range(number % 30 + 1)}
        prepared.update(
            ChatHistory,
            {"pk": chat.pk, "llm_config_name": ""},
            {
                "title": f"title {number}",
                "cost": prepared.Plus(number),
                "chat_history": Append(entries, DropOldest(number) if number % 2 else None),
                "current_context_variables": MergeObject("current_context_variables", names),
            },
        )
        prepared.insert(Message(chat=chat, position=1000 + number, type="user", text=f"text {number}", payload=names))
        prepared.update(Turn, {"pk": number}, {"lease_expires_at": prepared.InSeconds(number)})

    for number in range(60):
        work(number)
    known = len(prepared._statements)
    for number in range(60, 400):
        work(number)
    assert len(prepared._statements) == known


@pytest.mark.django_db(transaction=True)
def test_threads_share_statements() -> None:
    """Many threads that compile and run the same statements at the same time each write their own values."""
    prepared._statements.clear()
    chats = [ChatHistory.objects.create().pk for _ in range(8)]
    failures: list[BaseException] = []
    gate = threading.Barrier(len(chats))

    def work(pk: int) -> None:
        try:
            gate.wait(10)
            for number in range(20):
                prepared.update(ChatHistory, {"pk": pk}, {"title": f"{pk}: {number}", "cost": prepared.Plus(pk)})
                prepared.insert(Message(chat_id=pk, position=number, type="user", text=f"{pk}: {number}"))
        except BaseException as error:  # noqa: BLE001 (asserted below)
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[pk]) for pk in chats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    for pk in chats:
        chat = ChatHistory.objects.get(pk=pk)
        assert (chat.title, chat.cost) == (f"{pk}: 19", pk * 20)
        assert [row.text for row in chat.messages.order_by("position")] == [f"{pk}: {number}" for number in range(20)]


class ChatsElsewhere:
    """A router that reads from a replica and writes to the database called `chats`."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return "chats"

    def allow_relation(self, *args: Any, **hints: Any) -> bool:
        return True


@pytest.fixture
def second_database(tmp_path: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A further database, SQLite whatever the first one is. Without `db`, which knows the databases of the settings
    only; so the test cleans up by itself."""
    settings = {**connections["default"].settings_dict, "ENGINE": "django.db.backends.sqlite3", "OPTIONS": {}}
    connections.settings["chats"] = {**settings, "NAME": str(tmp_path / "chats.sqlite3")}
    needed = (PromptTemplate, PromptVersion, get_user_model(), ChatHistory, Turn, LLMCall, Message)
    with django_db_blocker.unblock():
        try:
            other = connections["chats"]
            with other.constraint_checks_disabled(), other.schema_editor() as editor:
                for model in needed:
                    editor.create_model(model)
            yield
        finally:
            ChatHistory.objects.all().delete()
            connections["default"].close()
            connections["chats"].close()
            del connections["chats"]
            del connections.settings["chats"]


def test_chats_may_live_in_another_database(second_database: None, settings: Any) -> None:
    """Statements go where Django's router has chats written, and those of one database are not run on another."""
    here = ChatHistory(title="here")
    prepared.insert(here)
    settings.DATABASE_ROUTERS = [f"{__name__}.ChatsElsewhere"]
    there = ChatHistory(title="there")
    prepared.insert(there)
    assert there._state.db == "chats"
    assert prepared.update(ChatHistory, {"pk": there.pk}, {"title": "there, too"}) == 1
    build = _everything(ChatHistory)
    assert len(prepared.select(build, pk=there.pk)) == 1
    settings.DATABASE_ROUTERS = []
    assert [chat.title for chat in ChatHistory.objects.using("chats")] == ["there, too"]
    assert [chat.title for chat in ChatHistory.objects.all()] == ["here"]
