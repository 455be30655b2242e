"""`manage.py llm_chat`: a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Q, Sum

from llm_wrapper import configs, history
from llm_wrapper.history.text import storable
from llm_wrapper.management.answering import Answering
from llm_wrapper.management.conversation import (
    OnPrompt,
    find_session,
    find_user,
    open_conversation,
    read_variable,
)
from llm_wrapper.management.terminal import Terminal, clear_database_errors, cost_of, one_line, wants_colours
from llm_wrapper.management.transcript import write_sent, write_steps
from llm_wrapper.models import ChatHistory, LLMCall, Message

# Steps that are shown when a session is continued.
SHOWN_AT_FIRST = 20
THUMBS = {"up": 1, "down": -1, "off": None}


class Leave(Exception):
    """The person wants to leave."""


class Command(BaseCommand):
    help = "Talk with a model or a prompt in the terminal. Sessions are kept: go on with one by --session."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--prompt", metavar="NAME", help="The prompt template to talk to; else models alone.")
        parser.add_argument("--session", metavar="ID", help="Go on with this session (see llm_sessions).")
        parser.add_argument(
            "--model", metavar="NAME", help="The config that answers, or a litellm model id; else any config."
        )
        parser.add_argument("--user", metavar="NAME", help="Whose messages these are.")
        parser.add_argument(
            "--var",
            metavar="NAME=TEXT",
            nargs="+",
            action="extend",
            default=[],
            help="Context variables for the prompt; name:=JSON for a number or a list.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        colours = wants_colours(self.stdout) and not options["no_color"]
        self.terminal = Terminal(self, colours=colours or bool(options["force_color"]))
        with clear_database_errors():
            self.open(options)
        self.answering = Answering(self.terminal, self.conversation)
        self.unanswered = 0
        try:
            self.greet()
            self.talk()
        finally:
            empty = self.conversation.forget_if_empty()
        if not empty:
            chat = self.conversation.row()
            self.terminal.say(f"To go on: manage.py llm_chat --session {chat.public_id}", "dim")
        if self.unanswered and not self.terminal.interactive:
            raise CommandError(f"{self.unanswered} message(s) got no answer.")

    def open(self, options: dict[str, Any]) -> None:
        user = find_user(options["user"]) if options["user"] else None
        session = find_session(options["session"]) if options["session"] else None
        self.user = user or (session.user if session is not None else None)
        self.conversation = open_conversation(
            session=session,
            prompt=options["prompt"],
            model=options["model"],
            user=user,
            variables=dict(read_variable(text) for text in options["var"]),
        )

    def greet(self) -> None:
        chat = self.conversation.row()
        prompt = f", prompt {one_line(chat.prompt_template.name)}" if chat.prompt_template is not None else ""
        status = f", {chat.status}" if chat.status != ChatHistory.Status.ACTIVE else ""
        self.terminal.say(f"Session {chat.public_id}{prompt}{status}", "bold")
        self.terminal.say(f"Models: {one_line(', '.join(self.conversation.models))}", "dim")
        self.terminal.say("/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.", "dim")
        steps = chat.messages.exclude(type=Message.Type.SYSTEM)
        earlier = steps.count() - SHOWN_AT_FIRST
        if earlier > 0:
            self.terminal.say(f"… {earlier} earlier step(s): /history shows them", "dim")
        newest = steps.select_related("user").order_by("-position")[:SHOWN_AT_FIRST]
        write_steps(self.terminal, reversed(newest), me=self.user)
        for step in reversed(newest):
            if step.type == Message.Type.USER:
                self.terminal.remember(step.text)

    def talk(self) -> None:
        """Read and answer until the person leaves, or the input ends."""
        while True:
            try:
                line = self.terminal.ask("you > ")
            except (EOFError, KeyboardInterrupt):
                if self.terminal.interactive:
                    self.terminal.say()
                return
            if not self.terminal.interactive and line.strip():
                self.terminal.say(f"you > {one_line(line)}")
            try:
                self.take(line)
            except Leave:
                return
            except KeyboardInterrupt:
                self.terminal.say()
            except CommandError as error:
                self.terminal.complain(str(error))

    def take(self, line: str) -> None:
        text = line.strip()
        if not text:
            return
        if text.startswith("/") and not text.startswith("//"):
            name, _, rest = text[1:].partition(" ")
            if name not in COMMANDS:
                raise CommandError(
                    f"There is no command /{name}. /help lists them; a message that begins with / is written with //."
                )
            COMMANDS[name][0](self, rest.strip())
            return
        message = text.removeprefix("/") if text.startswith("//") else line
        self.unanswered += not self.answering.run(lambda: self.conversation.send(message))

    # -- commands ----------------------------------------------------------------------------------------

    def show_help(self, rest: str) -> None:
        width = max(len(usage) for _, usage, _ in COMMANDS.values())
        for usage, meaning in dict.fromkeys((usage, meaning) for _, usage, meaning in COMMANDS.values()):
            self.terminal.say(f"  {usage.ljust(width)}  {meaning}")
        self.terminal.say("A backslash at the end of a line continues the message; // begins one with a slash.", "dim")

    def show_history(self, rest: str) -> None:
        steps = self.conversation.row().messages.select_related("user").order_by("position")
        if not steps:
            self.terminal.say("Nothing was said yet.", "dim")
        write_steps(self.terminal, steps, me=self.user)

    def model(self, rest: str) -> None:
        if rest:
            self.conversation.use_model(rest)
            if rest not in configs.get_configs():
                self.terminal.say(f"There is no config {one_line(rest)}: it is taken as a litellm model id.", "dim")
        last = self.conversation.row().llm_config_name
        drawn = f"; {last} answered last" if last and last in self.conversation.models and not rest else ""
        when = " from the next message on" if rest else ""
        names = rest or ", ".join(self.conversation.models)
        self.terminal.say(one_line(f"Answered by {names}{when}{drawn}."))

    def show_models(self, rest: str) -> None:
        loaded = configs.get_configs()
        resting = configs.cooling(loaded.names())
        is_bound = isinstance(self.conversation, OnPrompt)
        for name in sorted(loaded.names() if not is_bound else self.conversation.models):
            mark = "*" if name in self.conversation.models else " "
            if name not in loaded:
                self.terminal.say(one_line(f"{mark} {name}: {loaded.why_missing(name)}"))
                continue
            rest_of = resting.get(name)
            cooling = f", resting for {rest_of.seconds_left:.0f} s ({rest_of.reason})" if rest_of else ""
            self.terminal.say(f"{mark} {one_line(name)}: {one_line(loaded[name].choice().model)}{cooling}")
        if not is_bound:
            self.terminal.say("Any litellm model id may be named, too.", "dim")

    def regenerate(self, rest: str) -> None:
        self.unanswered += not self.answering.run(self.conversation.regenerate)

    def rate(self, rest: str) -> None:
        if rest not in THUMBS:
            raise CommandError("Write /rate up, /rate down or /rate off.")
        answer = self.conversation.row().messages.filter(type=Message.Type.ASSISTANT, turn__isnull=False).last()
        if answer is None:
            raise CommandError("There is no answer to rate yet.")
        history.rate(self.conversation.chat_id, answer.pk, THUMBS[rest])
        self.terminal.say("The last answer is " + (f"rated {rest}." if rest != "off" else "not rated."))

    def show_cost(self, rest: str) -> None:
        chat = self.conversation.row()
        self.terminal.say(
            f"{chat.turn_count} turn(s), {chat.input_tokens_count:,} tokens in, {chat.output_tokens_count:,} out, "
            f"cost {cost_of(chat)}"
        )
        calls = LLMCall.objects.filter(turn__chat=chat).order_by("config_name").values("config_name")
        for row in calls.annotate(
            calls=Count("pk"),
            failed=Count("pk", filter=~Q(status=LLMCall.Status.DONE)),
            into=Sum("input_tokens", default=0),
            out=Sum("output_tokens", default=0),
        ):
            self.terminal.say(
                f"  {one_line(row['config_name'])}: {row['calls']} call(s), {row['failed']} without an answer, "
                f"{row['into']:,} tokens in, {row['out']:,} out",
                "dim",
            )

    def show_sent(self, rest: str) -> None:
        call = LLMCall.objects.filter(turn__chat=self.conversation.chat_id).order_by("pk").last()
        if call is None:
            raise CommandError("Nothing was sent yet.")
        write_sent(self.terminal, call)

    def title(self, rest: str) -> None:
        longest = ChatHistory._meta.get_field("title").max_length
        if not rest or len(rest) > (longest or 0):
            raise CommandError(f"Write /title and a title of at most {longest} characters.")
        # Its place in the list is that of its last use, which this is not.
        ChatHistory.objects.filter(pk=self.conversation.chat_id).update(title=storable(rest))
        self.terminal.say(f"The session is called {one_line(rest)}.")

    def variable(self, rest: str) -> None:
        name, value = read_variable(rest)
        self.conversation.set_variable(name, value)
        self.terminal.say(f"{name} is {one_line(repr(value))} from the next message on.")

    def leave(self, rest: str) -> None:
        raise Leave


COMMANDS: dict[str, tuple[Callable[[Command, str], None], str, str]] = {
    "help": (Command.show_help, "/help", "this list"),
    "history": (Command.show_history, "/history", "everything that was said"),
    "sent": (Command.show_sent, "/sent", "what was sent for the last answer"),
    "cost": (Command.show_cost, "/cost", "tokens and cost of this session"),
    "regenerate": (Command.regenerate, "/regenerate", "have the last message answered anew"),
    "rate": (Command.rate, "/rate up|down|off", "rate the last answer"),
    "model": (Command.model, "/model [NAME]", "which model answers, or have another answer"),
    "models": (Command.show_models, "/models", "the models there are; * marks those in use"),
    "var": (Command.variable, "/var NAME=TEXT", "set a context variable (NAME:=JSON for other than text)"),
    "title": (Command.title, "/title TEXT", "give the session a title"),
    "exit": (Command.leave, "/exit", "leave; the session is kept"),
    "quit": (Command.leave, "/exit", "leave; the session is kept"),
}
