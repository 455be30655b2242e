"""The transcript's expressions, on whichever database the suite runs."""

import pytest
from django.db.models import F

from llm_wrapper.history.text import storable
from llm_wrapper.history.transcript import Append, DropOldest, MergeObject, SetInEntry
from llm_wrapper.models import ChatHistory

pytestmark = pytest.mark.django_db

HOSTILE = {
    "content": 'quote " backslash \\ newline \n unicode \u2028 é {"a": [1]} $[0] %s',
    "n": None,
    "t": True,
}


@pytest.fixture
def chat():
    return ChatHistory.objects.create(chat_history=[{"id": 1}, {"id": 2}])


def history_after(chat, **columns):
    ChatHistory.objects.filter(pk=chat.pk).update(**columns)
    chat.refresh_from_db()
    return chat.chat_history


def test_append_adds_entries_in_order_and_unchanged(chat):
    """Entries are appended in order, whatever their text holds."""
    appended = history_after(chat, chat_history=Append([HOSTILE, {"id": 3}]))
    assert appended == [{"id": 1}, {"id": 2}, HOSTILE, {"id": 3}]


def test_drop_and_append_in_one_statement(chat):
    """The oldest entries go and new ones come in one statement, so no reader sees a transcript in between."""
    assert history_after(chat, chat_history=Append([HOSTILE], DropOldest(1))) == [{"id": 2}, HOSTILE]


def test_drop_all(chat):
    """Dropping everything leaves an empty list, not null."""
    assert history_after(chat, chat_history=DropOldest(2)) == []


def test_set_in_entry_counts_from_the_end(chat):
    """One key of one entry is set; an entry that is no longer there leaves the transcript as it is."""
    assert history_after(chat, chat_history=SetInEntry(1, "thumb", -1)) == [{"id": 1}, {"id": 2, "thumb": -1}]
    assert history_after(chat, chat_history=SetInEntry(1, "thumb", None))[1] == {"id": 2, "thumb": None}
    before = list(chat.chat_history)
    assert history_after(chat, chat_history=SetInEntry(9, "thumb", 1)) == before


def test_merge_lays_values_over_and_keeps_the_rest(chat):
    """Values are laid over the object; null is a value; other keys stay."""
    ChatHistory.objects.filter(pk=chat.pk).update(current_context_variables={"a": 1, "b": {"x": 1}})
    overlay = MergeObject("current_context_variables", {"b": [1, 2], "c": None, "größe": HOSTILE})
    ChatHistory.objects.filter(pk=chat.pk).update(current_context_variables=overlay, last_position=F("last_position"))
    chat.refresh_from_db()
    assert chat.current_context_variables == {"a": 1, "b": [1, 2], "c": None, "größe": HOSTILE}


def test_storable_replaces_only_what_cannot_be_stored():
    """NUL and lone surrogates become U+FFFD anywhere in a value; all else is left alone."""
    value = {"a\x00": ["\ud800x", 1, None, ("é😀", 2.5)]}
    assert storable(value) == {"a\ufffd": ["\ufffdx", 1, None, ["é😀", 2.5]]}


def test_many_entries_at_once(chat):
    """Any number of entries can be appended in one statement, also where a function takes few arguments."""
    entries = [{"id": number} for number in range(3, 203)]
    assert history_after(chat, chat_history=Append(entries)) == [{"id": 1}, {"id": 2}, *entries]
    values = {f"name_{number}": number for number in range(200)}
    history_after(chat, current_context_variables=MergeObject("current_context_variables", values))
    assert chat.current_context_variables == values
