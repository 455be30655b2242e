"""`manage.py llm_chat`, its input from a pipe."""

from __future__ import annotations

import io
import re

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from llm_wrapper import configs, errors
from llm_wrapper.chat import Chat
from llm_wrapper.models import ChatHistory, LLMCall, Message
from llm_wrapper.testing import cut_stream, failure, rate_limit, scripted_model, text, tool_call
from llm_wrapper.types import Usage

pytestmark = pytest.mark.django_db


@pytest.fixture
def talk(monkeypatch):
    """Run the command on these lines; gives what it wrote, and what it complained of."""

    def run(*lines, **options):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("llm_chat", stdout=out, stderr=err, **options)
        except CommandError as error:
            err.write(f"CommandError: {error}\n")
        return out.getvalue(), err.getvalue()

    return run


def test_a_conversation(talk):
    """Each line is a message; its answer, the model, tokens and cost follow, and at the end how to go on."""
    with scripted_model(text("Hello you.", usage=Usage(1200, 3), cost=0), "two") as model:
        shown, complaints = talk("Hi", "", "and on \\", "the next line", model="demo")
    row = ChatHistory.objects.get()
    assert re.sub(r"\d+\.\d s$", "0.1 s", shown, flags=re.MULTILINE).splitlines() == [
        f"Session {row.public_id}",
        "Models: demo",
        "/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.",
        "you > Hi",
        "demo > Hello you.",
        "  1,200 tokens in, 3 out, cost 0.000000, 0.1 s",
        "you > and on the next line",
        "demo > two",
        "  10 tokens in, 1 out, cost unknown, 0.1 s",
        f"To go on: manage.py llm_chat --session {row.public_id}",
    ]
    assert complaints == ""
    assert model.requests[1].messages[-1]["content"] == "and on \nthe next line"
    assert model.requests[0].stream


def test_a_session_is_continued(talk):
    """Its steps are shown, and sent; by id or public_id. Only the newest are shown of a long one."""
    chat = Chat.create()
    with scripted_model(*(f"answer {number}" for number in range(13))):
        for number in range(12):
            chat.call_llm("demo", f"question {number}")
        shown, _ = talk("go on", session=str(chat.chat_db_model.public_id), model="demo")
    assert "… 4 earlier step(s): /history shows them" in shown
    assert "you > question 1\n" not in shown
    assert shown.index("you > question 2\n") < shown.index("demo > answer 11\n") < shown.index("demo > answer 12\n")
    again, _ = talk("/history", session=str(chat.chat_db_model.pk))
    assert "you > question 0\ndemo > answer 0\n" in again
    assert ChatHistory.objects.count() == 1


def test_a_session_in_which_nothing_was_said_is_not_kept(talk):
    """Who only looks leaves no empty session behind; one that was there before stays."""
    kept = Chat.create(title="kept").chat_db_model
    shown, _ = talk("/help", "/exit", "never read")
    talk(session=str(kept.pk))
    assert "To go on" not in shown
    assert "never read" not in shown
    assert list(ChatHistory.objects.all()) == [kept]


def test_a_prompt_with_its_variables(talk, make_prompt, make_tool):
    """The prompt's initial message is shown, its tools are used with what --var says, and /var changes it."""
    make_prompt(
        tools=[make_tool("tests.host_tools.order_state", context_params=["user_id"])],
        system_prompt_template="Plan: {{ plan }}, {{ age + 1 }}",
        initial_messages_templates=[{"role": "assistant", "content": "Hello {{ plan }}!"}],
    )
    with scripted_model(tool_call("order_state", order=7), "It is there.", "two") as model:
        shown, complaints = talk(
            "Where?",
            "/var plan=free",
            "And now?",
            "/history",
            prompt="support",
            var=["plan=pro", "age:=41", "user_id:=7"],
        )
    assert "prompt support\n" in shown
    assert "assistant > Hello pro!\n" in shown
    assert 'demo > asks for order_state({"order": 7})\n  done: ' in shown
    assert "demo > It is there.\n" in shown
    systems = [request.messages[0]["content"] for request in model.requests]
    assert systems == ["Plan: pro, 42", "Plan: pro, 42", "Plan: free, 42"]
    assert "tool order_state > " in shown
    assert complaints == ""


def test_an_answer_of_a_prompt_is_given_anew(talk, make_prompt):
    """/regenerate works on prompts, too."""
    make_prompt()
    with scripted_model("one", "two"):
        shown, _ = talk("a", "/regenerate", "/history", prompt="support")
    assert "demo > one\n" in shown
    assert "demo > two\n  10 tokens in, 1 out" in shown
    assert "demo > one  (no longer sent)\n" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": "none"}, "no prompt template named 'none'"),
        ({"prompt": "support"}, "The prompt 'support' wants values: give them with --var age=... plan=..."),
        ({"prompt": "support", "var": ["plan"]}, "'plan' is not a variable. Write name=text"),
        ({"prompt": "support", "var": ["plan:=x"]}, "after plan:= is not JSON"),
        ({"var": ["plan=x"]}, "--var is for prompts"),
        ({"session": "17"}, "There is no session '17'. `manage.py llm_sessions` lists them"),
        ({"session": "nonsense"}, "There is no session 'nonsense'"),
        ({"user": "nobody"}, "There is no user 'nobody'"),
        (
            {"prompt": "support", "var": ["plan=x", "age=1"], "model": "demo-b"},
            "'demo-b' is not a config of the prompt 'support'; it has demo.",
        ),
    ],
)
def test_bad_arguments_say_what_to_do(talk, make_prompt, options, words):
    """A mistake is one line, and leaves no session."""
    make_prompt(system_prompt_template="{{ plan }} {{ age }}")
    shown, complaints = talk("never sent", **options)
    assert words in complaints
    assert complaints.count("\n") == 1
    assert "never sent" not in shown
    assert not Message.objects.filter(type="user").exists()


def test_without_any_config(talk, settings, tmp_path):
    """Where there is no model the command says how to get one."""
    settings.LLM_CONFIGS_PATH = tmp_path
    assert "Put YAML files into LLM_CONFIGS_PATH" in talk("a")[1]


# -- what goes wrong in a turn ----------------------------------------------------------------------------------


def test_an_error_is_one_line_and_the_conversation_goes_on(talk):
    """The line has the reason and the code. The message is kept, and at the end a script is told that one had no
    answer."""
    with scripted_model(failure(errors.ContentRefused("It refused\nto say.")), "fine"):
        shown, complaints = talk("a", "b", model="demo")
    assert complaints.splitlines() == [
        "It refused to say. (content_refused)",
        "CommandError: 1 message(s) got no answer.",
    ]
    assert "demo > (content_refused)\nyou > b\ndemo > fine\n" in shown
    assert Message.objects.get(text="a").turn.status == "failed"


def test_a_limited_model_is_left_for_another(talk):
    """Without --model any config may answer, and what happened is seen: on a limit, and where an answer breaks off."""
    with scripted_model(rate_limit(), cut_stream("on"), "one"):
        shown, complaints = talk("a")
    calls = re.findall(r"^(demo\S*) > (.*)$", shown, re.MULTILINE)
    assert [said for _, said in calls] == ["(rate_limited)", "on(stream_cut)", "one"]
    assert len({name for name, _ in calls}) == 3
    assert complaints == ""


def test_a_prompt_that_is_deleted_meanwhile(talk, make_prompt, monkeypatch):
    """What vanishes under the conversation is an error in a line, too."""
    prompt = make_prompt()

    def gone(self, *args, **kwargs):
        prompt.delete()
        return real(self, *args, **kwargs)

    from llm_wrapper.repositories import LLMCommunicationWrapper

    real = LLMCommunicationWrapper.stream_user_message
    monkeypatch.setattr(LLMCommunicationWrapper, "stream_user_message", gone)
    _, complaints = talk("a", prompt="support")
    assert "There is no prompt template named 'support'" in complaints


def test_what_a_model_says_cannot_steer_the_terminal(talk):
    """Escape sequences, also those that are cut in two by the stream, carriage returns and marks that turn the
    writing are shown as U+FFFD; line breaks, tabs, accents and emoji stay."""
    with scripted_model("\x1b[2J\x1b ]0;title\x07 a\rb \u202egpj.exe\r\nline\tÄ 👩\u200d🚀\u3000"):
        shown, _ = talk("a", "/history", model="demo")
    assert not set("\x1b\x07\r\u202e") & set(shown)
    assert shown.count("�[2J� ]0;title� a�b �gpj.exe\nline\tÄ 👩\u200d🚀\u3000") == 2


# -- commands ---------------------------------------------------------------------------------------------------


def test_help_lists_every_command(talk):
    """/help names all commands; one that there is not is refused with the way to say it."""
    shown, complaints = talk("/help", "/nonsense", "/")
    for name in ["help", "history", "sent", "cost", "regenerate", "rate", "model", "models", "var", "title", "exit"]:
        assert re.search(rf"^  /{name}\b.*  \w", shown, re.MULTILINE)
    assert "There is no command /nonsense. /help lists them; a message that begins with / is written with //." in (
        complaints
    )
    with scripted_model("fine") as model:
        talk("//etc is a folder", model="demo")
    assert model.requests[0].messages[0]["content"] == "/etc is a folder"


def test_what_was_sent_can_be_seen(talk):
    """/sent shows the newest call's messages and parameters, also of a call that failed; /cost what it all took."""
    with scripted_model("one", failure(errors.ContentRefused("no"))):
        shown, _ = talk("/sent", "a", "/sent", "b", "/sent", "/cost", model="demo")
    assert "demo (demo); done; timeout=60.0\nuser | a\nyou > b\n" in shown.replace("(demo/demo)", "(demo)")
    assert "failed; timeout=60.0\nuser | a\nassistant | one\nuser | b\n" in shown
    assert "2 turn(s), 10 tokens in, 1 out, cost unknown\n  demo: 2 call(s), 1 without an answer, 10 tokens in" in shown


def test_an_answer_is_rated(talk):
    """/rate sets the thumb of the last answer, and takes it back."""
    with scripted_model("one"):
        shown, complaints = talk("/rate up", "a", "/rate up", "/history", "/rate maybe", model="demo")
    assert "demo > one  (rated up)\n" in shown
    assert Message.objects.get(type="assistant").thumb == 1
    assert complaints.splitlines() == ["There is no answer to rate yet.", "Write /rate up, /rate down or /rate off."]
    talk("/rate down", "/rate off", session=str(ChatHistory.objects.get().pk))
    assert Message.objects.get(type="assistant").thumb is None


def test_the_model_is_changed(talk):
    """/models marks those in use, with what they rest for; /model changes it, also to an id that no config has."""
    configs.cool("demo-b", reason="rate_limited", retry_after=60)
    with scripted_model("one", "two") as model:
        shown, _ = talk("/models", "a", "/model demo-no-tools", "b", "/model openai/gpt-x", "/models", model="demo")
    configs.warm_up("demo-b")
    assert "* demo: demo/demo\n" in shown
    assert re.search(r"^  demo-b: demo/demo-b, resting for (60|59) s \(rate_limited\)$", shown, re.MULTILINE)
    assert [request.config.name for request in model.requests] == ["demo", "demo-no-tools"]
    assert "There is no config openai/gpt-x: it is taken as a litellm model id.\nAnswered by openai/gpt-x from" in shown


def test_the_model_of_a_prompt_is_one_of_its_own(talk, make_prompt):
    """A prompt's session changes between the prompt's configs, and takes no other."""
    make_prompt(configs=("demo", "demo-b"))
    with scripted_model("one", "two") as model:
        _, complaints = talk("/model demo", "a", "/model demo-b", "b", "/model demo-no-tools", prompt="support")
    assert [request.config.name for request in model.requests] == ["demo", "demo-b"]
    assert "'demo-no-tools' is not a config of the prompt 'support'; it has demo, demo-b." in complaints


def test_a_session_gets_a_title(talk):
    """/title names it without moving it in the list; a title that does not fit is refused."""
    with scripted_model("one"):
        talk("a", model="demo")
    row = ChatHistory.objects.get()
    _, complaints = talk("/title Trains to Ulm", "/title " + "x" * 201, "/title", session=str(row.pk))
    again = ChatHistory.objects.get()
    assert (again.title, again.updated_at) == ("Trains to Ulm", row.updated_at)
    assert complaints.splitlines() == ["Write /title and a title of at most 200 characters."] * 2


def test_whose_messages_they_are(talk):
    """--user owns the session and writes in it; who continues it writes as its owner, or as who they say they are."""
    ada, bob = (get_user_model().objects.create_user(name) for name in ("ada", "bob"))
    with scripted_model("one", "two", "three"):
        talk("a", user="ada", model="demo")
        row = ChatHistory.objects.get()
        talk("b", session=str(row.pk), model="demo")
        shown, _ = talk("c", session=str(row.pk), user="bob", model="demo")
    assert row.user == ada
    assert [step.user for step in row.messages.filter(type="user")] == [ada, ada, bob]
    assert "ada > a\n" in shown
    assert "you > c\n" in shown
    assert [call.user for call in LLMCall.objects.order_by("pk")] == [ada, ada, bob]
