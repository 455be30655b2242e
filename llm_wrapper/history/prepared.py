"""Statements that every turn runs, built by the ORM once and then only filled in.

Building a query costs Django ten times what running it does, and a turn runs the same dozen each time. So a statement
is compiled once per database with a marker for each value, and kept under its shape: the table, the columns, and what
kind of value each one gets. What is sent to the database is what the ORM would have sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connections, router
from django.db.models import (
    AutoField,
    BooleanField,
    CharField,
    DurationField,
    Expression,
    F,
    Field,
    FloatField,
    ForeignKey,
    IntegerField,
    JSONField,
    Model,
    QuerySet,
    TextField,
    sql,
)
from django.db.models.expressions import SQLiteNumericMixin
from django.db.models.functions import Now

from llm_wrapper.models import ChatHistory


@dataclass(frozen=True)
class Marker:
    """Where a value goes; `field` says how the database wants it."""

    name: str
    field: Field[Any, Any] | None = None


class Given(SQLiteNumericMixin, Expression):
    """A value that is known only when the statement runs. Without a field it goes to the database as it is."""

    def __init__(self, name: str, field: Field[Any, Any] | None) -> None:
        super().__init__(output_field=field)
        self.marker = Marker(name, field)

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self.marker]


class Part:
    """A new value of a column that is more than a constant: the statement's part of it, and what fills that in."""

    def shape(self) -> Any:
        """What of it is in the statement's text; parts of equal shape share a statement. None: it is not kept."""
        return type(self)

    def expression(self, name: str, field: Field[Any, Any]) -> Any:
        raise NotImplementedError

    def values(self, name: str) -> dict[str, Any]:
        return {}


class DatabaseNow(Part):
    """The database's time."""

    def expression(self, name: str, field: Field[Any, Any]) -> Any:
        return Now()


@dataclass(frozen=True)
class InSeconds(Part):
    """The database's time and so many seconds more."""

    seconds: float

    def shape(self) -> Any:
        return InSeconds

    def expression(self, name: str, field: Field[Any, Any]) -> Any:
        return Now() + Given(name, DurationField())

    def values(self, name: str) -> dict[str, Any]:
        return {name: timedelta(seconds=self.seconds)}


@dataclass(frozen=True)
class Plus(Part):
    """The column's value and so much more, added in the database."""

    amount: Any

    def shape(self) -> Any:
        return Plus

    def expression(self, name: str, field: Field[Any, Any]) -> Any:
        return F(name) + Given(name, field)

    def values(self, name: str) -> dict[str, Any]:
        return {name: self.amount}


@dataclass
class _Compiled:
    text: str
    params: Sequence[Any]
    converters: Sequence[tuple[int, Callable[..., Any], Any]] = ()

    def fill(self, connection: Any, values: Mapping[str, Any]) -> list[Any]:
        return [
            _for_database(param.field, values[param.name], connection) if isinstance(param, Marker) else param
            for param in self.params
        ]


# What goes to the database as it is, by the type of the value: no field of these kinds would change it.
_AS_IT_IS: dict[type, Any] = {
    type(None): Field,
    str: (CharField, TextField),
    int: (IntegerField, ForeignKey, AutoField),
    float: FloatField,
    bool: BooleanField,
}


def _for_database(field: Field[Any, Any] | None, value: Any, connection: Any) -> Any:
    if field is None or isinstance(field, _AS_IT_IS.get(type(value), ())):
        return value
    return field.get_db_prep_save(value, connection)


_statements: dict[Any, _Compiled] = {}


def _compiled(key: Any, connection: Any, build: Callable[[], _Compiled]) -> _Compiled:
    key = (connection.alias, connection.vendor, *key)
    found = _statements.get(key)
    if found is None:
        found = _statements[key] = build()
    return found


def _connection() -> Any:
    # A turn reads what it has just written, so all of it goes to where the chats are written.
    return connections[router.db_for_write(ChatHistory)]


def _field(model: type[Model], name: str) -> Any:
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def update(model: type[Model], where: Mapping[str, Any], columns: Mapping[str, Any]) -> int:
    """Set `columns` (constants or `Part`s) in the rows whose columns equal `where` (None: are null); the number of
    rows."""
    connection = _connection()
    statement = _update(connection, model, where, columns)
    with connection.cursor() as cursor:
        cursor.execute(statement.text, statement.fill(connection, _values(where, columns)))
        return int(cursor.rowcount)


def update_many(model: type[Model], changes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """`update` for each pair of `where` and `columns`, all of the same names, as one statement."""
    connection = _connection()
    statement = _update(connection, model, *changes[0])
    with connection.cursor() as cursor:
        cursor.executemany(statement.text, [statement.fill(connection, _values(*change)) for change in changes])


def _update(connection: Any, model: type[Model], where: Mapping[str, Any], columns: Mapping[str, Any]) -> _Compiled:
    def expression(name: str) -> Any:
        value, field = columns[name], _field(model, name)
        return value.expression(name, field) if isinstance(value, Part) else Given(name, field)

    def build() -> _Compiled:
        matching: dict[str, Any] = {
            name: Given(f"where {name}", _field(model, name)) for name, value in where.items() if value is not None
        }
        matching |= {f"{name}__isnull": True for name, value in where.items() if value is None}
        query: Any = model._default_manager.filter(**matching).query.chain(sql.UpdateQuery)
        query.add_update_values({name: expression(name) for name in columns})
        return _Compiled(*query.get_compiler(connection=connection).as_sql())

    shapes = {name: value.shape() for name, value in columns.items() if isinstance(value, Part)}
    matched = tuple((name, value is None) for name, value in where.items())
    key = ("update", model, matched, tuple((name, shapes.get(name)) for name in columns))
    return build() if None in shapes.values() else _compiled(key, connection, build)


def _values(where: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    values = {f"where {name}": value for name, value in where.items()}
    for name, value in columns.items():
        values.update(value.values(name) if isinstance(value, Part) else {name: value})
    return values


def insert(row: Model, **parts: Part) -> None:
    """Insert the row and set its primary key. `parts` are columns whose values the database makes."""
    connection = _connection()
    model = type(row)
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]

    def build() -> _Compiled:
        sample = model()
        for field in fields:
            part = parts.get(field.name)
            value = part.expression(field.name, field) if part is not None else Given(field.attname, field)
            setattr(sample, field.attname, value)
        query = sql.InsertQuery(model)
        # `raw`: no pre_save of the fields, which would overwrite the markers.
        query.insert_values(fields, [sample], raw=True)
        compiler: Any = query.get_compiler(connection=connection)
        compiler.returning_fields = [model._meta.pk]
        ((text, params),) = compiler.as_sql()
        return _Compiled(text, params)

    shapes = tuple((name, part.shape()) for name, part in parts.items())
    statement = _compiled(("insert", model, shapes), connection, build)
    values = {field.attname: field.pre_save(row, add=True) for field in fields if field.name not in parts}
    for name, part in parts.items():
        values.update(part.values(name))
    with connection.cursor() as cursor:
        cursor.execute(statement.text, statement.fill(connection, values))
        row.pk = cursor.fetchone()[0]
    row._state.adding, row._state.db = False, connection.alias


def select(build_queryset: Callable[[], QuerySet[Any, Any]], *variant: Any, **values: Any) -> list[tuple[Any, ...]]:
    """Rows of a `values_list` queryset in which each value is a `Given`. It is built once per `variant`."""
    connection = _connection()

    def build() -> _Compiled:
        compiler = build_queryset().query.get_compiler(connection=connection)
        text, params = compiler.as_sql()
        columns = [column for column, _, _ in compiler.select]
        converters = [
            (index, convert, column)
            for index, (converts, column) in compiler.get_converters(columns).items()
            for convert in converts
        ]
        return _Compiled(text, params, converters)

    statement = _compiled(("select", build_queryset, *variant), connection, build)
    with connection.cursor() as cursor:
        cursor.execute(statement.text, statement.fill(connection, values))
        rows = cursor.fetchall()
    if not statement.converters:
        return list(rows)
    return [_converted(row, statement.converters, connection) for row in rows]


def _converted(row: Sequence[Any], converters: Any, connection: Any) -> tuple[Any, ...]:
    values = list(row)
    for index, convert, column in converters:
        # Most JSON of most rows is the empty object, and a long chat has thousands of them.
        empty = values[index] == "{}" and isinstance(column.output_field, JSONField)
        values[index] = {} if empty else convert(values[index], column, connection)
    return tuple(values)
