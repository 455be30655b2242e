"""A process that sends messages until it is killed, for the tests of what a crash leaves in the database.

`write NAME` prints the text of each message once it is committed. `kill N`, on a new database, forks such a process N
times, kills it, and prints all that was acknowledged. `look` ends what crashed and prints what the database holds.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time

import django
from django.core.management import call_command

django.setup()

from django.db import connection  # noqa: E402 - needs the settings

from llm_wrapper.events import TurnStarted  # noqa: E402
from llm_wrapper.history import audit  # noqa: E402
from llm_wrapper.models import ChatHistory, LLMConfigName, Message, PromptTemplate, Turn  # noqa: E402
from llm_wrapper.repositories import LLMCommunicationWrapper  # noqa: E402
from llm_wrapper.testing import scripted_model  # noqa: E402


def setup() -> None:
    call_command("migrate", verbosity=0)
    prompt = PromptTemplate.objects.create(name="support", system_prompt_template="S")
    prompt.llm_config_names.add(LLMConfigName.objects.create(name="demo"))
    prompt.current_version()


def write(name: str, output: int = 1) -> None:
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(*["an answer of some words"] * 10_000):
        for number in itertools.count():
            text = f"{name}-{number}"
            for event in wrapper.stream_user_message(text):
                if isinstance(event, TurnStarted):
                    os.write(output, f"{text}\n".encode())


def kill(rounds: int) -> None:
    generator = random.Random(7)
    for number in range(rounds):
        connection.close()
        read, output = os.pipe()
        pid = os.fork()
        if not pid:
            write(f"round-{number}", output)
        os.close(output)
        with os.fdopen(read) as acknowledged:
            for _ in range(generator.randint(1, 5)):
                os.write(1, acknowledged.readline().encode())
            time.sleep(generator.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.write(1, acknowledged.read().encode())


def look() -> None:
    Turn.objects.filter(status="running").update(lease_expires_at="2026-01-01T00:00:00Z")
    call_command("llm_resume", "--fail", stdout=sys.stderr)
    held = {
        "texts": list(Message.objects.filter(type="user").values_list("text", flat=True)),
        "running": Turn.objects.filter(status="running").count(),
        "differences": [line for chat in ChatHistory.objects.all() for line in audit.differences(chat)],
    }
    print(json.dumps(held))  # noqa: T201 - read by the test


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    if task == "setup":
        setup()
    elif task == "write":
        write(arguments[0])
    elif task == "kill":
        setup()
        kill(int(arguments[0]))
    else:
        look()
