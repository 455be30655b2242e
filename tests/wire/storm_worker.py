"""One of several processes that send messages at the same time; see test_storm.py.

`python -m tests.wire.storm_worker` reads a job, one line of JSON, says "ready", waits for a line, sends, and writes
what became of each message as one line of JSON. The database, the cache and the configs come from the environment.
"""

import json
import os
import sys
import time
from contextlib import nullcontext

import django
from django.conf import settings

from llm_wrapper import errors


def set_up():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.test_settings")
    from example import settings as site

    # The site's own cache is one that processes share; the tests' is not.
    settings.CACHES = site.CACHES
    settings.LLM_CONFIGS_PATH = site.LLM_CONFIGS_PATH
    django.setup()


def send(text, *, chat_id, wait):
    """Send one message; an error becomes part of the answer. A busy chat is asked again."""
    from llm_wrapper.repositories import LLMCommunicationWrapper

    started, again = time.monotonic(), -1
    outcome = {"text": text, "code": "", "error": "", "retry_after": None}
    while True:
        again += 1
        try:
            wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat_id)
            wrapper.send_user_message_and_get_response(text, retry_on_openai_time_limit=True, wait=wait)
        except errors.TurnInProgress:
            continue
        except errors.AllConfigsUnavailable as error:
            outcome |= {"code": error.code, "retry_after": error.retry_after}
        except Exception as error:  # noqa: BLE001 - the test shows it
            outcome |= {"code": "unexpected", "error": repr(error)}
        return outcome | {"again": again, "seconds": time.monotonic() - started}


def main():
    job = json.loads(sys.stdin.readline())
    set_up()
    from django.db import connection

    from llm_wrapper.testing import scripted_model
    from llm_wrapper.transport.library import litellm

    if job["scripted"]:
        model = scripted_model(*["ok"] * len(job["texts"]))
    else:
        model = nullcontext()
        litellm()  # takes seconds, and all shall begin at once
    connection.ensure_connection()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    with model:
        outcomes = [send(text, chat_id=job["chat_id"], wait=job["wait"]) for text in job["texts"]]
    print(json.dumps(outcomes), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
