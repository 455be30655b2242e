"""`manage.py llm_sessions`."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from llm_wrapper.chat import Chat
from llm_wrapper.models import ChatHistory
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model, text, tool_call
from llm_wrapper.types import Usage

pytestmark = pytest.mark.django_db


def run(*args):
    out = io.StringIO()
    call_command("llm_sessions", *args, stdout=out, no_color=True)
    return out.getvalue()


def sessions(shown):
    """The titles that are listed, in their order."""
    return [line[38:].split("  ")[0] for line in shown.splitlines() if line[8:9] == "-"]


@pytest.fixture
def ada():
    return get_user_model().objects.create_user("ada")


def say(message, *, cost=Decimal("0.5"), answer="An answer.", **columns):
    chat = Chat.create(**columns)
    with scripted_model(text(answer, usage=Usage(1500, 20), cost=cost)):
        chat.call_llm("demo", message, columns.get("user"))
    return chat.chat_db_model


def test_the_list(ada, make_prompt):
    """One line for a session, the last used first, under headings; one without a title goes by its first words."""
    make_prompt()
    trains = say("When does the train leave?", user=ada, title="Trains")
    unpriced = say("Hi there,\nhow are you?", cost=None)
    with scripted_model("one"):
        wrapper = LLMCommunicationWrapper(prompt_name="support")
        wrapper.send_user_message_and_get_response("Help!")
    prompted = wrapper.get_chat_history_object()

    def when(chat):
        return timezone.localtime(ChatHistory.objects.get(pk=chat.pk).updated_at).strftime("%Y-%m-%d %H:%M")

    cells = [
        ("session", "title", "user", "prompt", "messages", "tokens in", "out", "cost", "updated"),
        (str(prompted.public_id), "Help!", "", "support", "2", "10", "1", "unknown", when(prompted)),
        (str(unpriced.public_id), "Hi there, how are you?", "", "", "2", "1,500", "20", "unknown", when(unpriced)),
        (str(trains.public_id), "Trains", "ada", "", "2", "1,500", "20", "0.500000", when(trains)),
    ]
    assert run().splitlines() == [
        f"{a:<36}  {b:<22}  {c:<4}  {d:<7}  {e:>8}  {f:>9}  {g:>3}  {h:>8}  {i}" for a, b, c, d, e, f, g, h, i in cells
    ]


def test_a_cost_that_is_known_in_part(ada):
    """Where some calls have no price the sum is a lower bound."""
    row = say("a")
    with scripted_model("two"):
        Chat.open(row.pk).call_llm("demo", "b")
    assert "at least 0.500000" in run()


def test_filters(ada):
    """By user, by words of title and messages, and archived ones instead of the others."""
    say("When does it leave?", user=ada, title="Trains")
    say("What is for lunch?", answer="Soup, with 50% off.", title="Food")
    old = say("Old things", title="Attic")
    ChatHistory.objects.filter(pk=old.pk).update(status="archived")
    assert sessions(run()) == ["Food", "Trains"]
    assert sessions(run("--user", "ada")) == ["Trains"]
    assert sessions(run("--search", "LEAVE")) == ["Trains"]
    assert sessions(run("--search", "food")) == ["Food"]
    assert sessions(run("--search", "50% off")) == ["Food"]
    assert sessions(run("--archived")) == ["Attic"]
    assert run("--search", "no such words") == "No sessions.\n"
    assert run("--search", "nul\x00") == "No sessions.\n"


def test_a_limit_that_cuts_says_so():
    """The newest are shown, and that there are more."""
    for number in range(3):
        say("a", title=f"T{number}")
    shown = run("--limit", "2")
    assert sessions(shown) == ["T2", "T1"]
    assert shown.splitlines()[-1] == "There are more than 2: see --limit and --search."
    assert "There are more" not in run("--limit", "3")


def test_the_list_takes_as_many_queries_for_many_sessions(django_assert_num_queries):
    """A long list costs one query, whatever is in it."""
    for number in range(4):
        say("a", title=f"T{number}")
    with django_assert_num_queries(1):
        run()


def test_a_transcript(ada, make_prompt, make_tool):
    """`show` prints every step with its author, tool calls with arguments and results, and what became of it."""
    make_prompt(
        system_prompt_template="Be brief.",
        tools=[make_tool("tests.host_tools.order_state", context_params=["user_id"])],
    )
    wrapper = LLMCommunicationWrapper(prompt_name="support", user=ada)
    with scripted_model(tool_call("order_state", order=7), "It is\nthere.", "one two"):
        wrapper.send_user_message_and_get_response("Where?", {"user_id": 7})
        stream = wrapper.stream_user_message("Go on")
        for _ in range(3):
            next(stream)
        stream.close()
    chat = wrapper.get_chat_history_object()
    shown = run("show", str(chat.public_id))
    assert " support         4 " in run()  # what was said, without what the model asked of its tools
    assert f"Session {chat.public_id}, active, user ada, prompt support\n2 turn(s), 20 tokens in" in shown
    lines = shown.splitlines()[2:]
    assert lines[:3] == ["system > Be brief.", "ada > Where?", 'demo > asks for order_state({"order": 7})']
    assert lines[3].startswith("tool order_state > ")
    assert lines[4:] == ["demo > It is", "there.", "ada > Go on", "assistant > one   (broke off)"]
    assert run("show", str(chat.pk)) == shown


def test_nothing_in_a_session_steers_the_terminal(ada):
    """Titles, names and texts come from elsewhere: their control characters are not written."""
    ada.username = "a\x1b[2Jda"
    ada.save()
    row = say("b\x1b[2J\rc", user=ada, title="d\x1b]0;x\x07", answer="e\x9b2J")
    for shown in (run(), run("show", str(row.pk))):
        assert not set("\x1b\x9b\x07\r") & set(shown)
        assert "�[2J" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["show"], "Say which session"),
        (["show", "17"], "There is no session '17'"),
        (["show", "9" * 30], "There is no session"),
        (["--user", "nobody"], "There is no user 'nobody'"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["shew"], "invalid choice"),
    ],
)
def test_bad_arguments_say_what_to_do(args, words):
    """A mistake is one line that names it."""
    with pytest.raises(CommandError, match=words):
        run(*args)
