"""One process of a storm: sends at a steady rate, whether or not the earlier ones were answered.

Arguments: seconds, sends per second, prompt. Says "ready", waits for a line, and prints what came of it as JSON. Its
transport is the plainest there can be, so that the process starts fast and what is measured is the wrapper.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import django

django.setup()

from llm_wrapper import errors, transport  # noqa: E402
from llm_wrapper.repositories import LLMCommunicationWrapper  # noqa: E402
from llm_wrapper.types import Completion  # noqa: E402


class Plain:
    def complete(self, request):
        target = urlsplit(request.config.credentials["api_base"])
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=request.timeout)
        body = {"model": request.config.name, "messages": request.messages}
        connection.request("POST", f"{target.path}/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status == 429:
            raise errors.RateLimited("Limited.", retry_after=float(answer.headers["retry-after"]))
        return Completion(text=json.loads(content)["choices"][0]["message"]["content"], finish_reason="stop")


def send(due, prompt):
    """What came of it, the seconds of the whole send from its due time on, and the wait that was told."""
    time.sleep(max(0.0, due - time.monotonic()))
    told = None
    try:
        wrapper = LLMCommunicationWrapper(prompt_name=prompt)
        outcome = str(wrapper.send_user_message_and_get_response("hi", retry_on_openai_time_limit=True))
    except errors.AllConfigsUnavailable as error:
        outcome, told = error.code, error.retry_after
    except Exception as error:  # noqa: BLE001 - shown by the test
        outcome = repr(error)
    return outcome, time.monotonic() - due, told


def main(seconds, rate, prompt):
    # What a process loads at its first send is not part of the storm.
    LLMCommunicationWrapper(prompt_name="warm").send_user_message_and_get_response("hi")
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        dues = [start + number / rate for number in range(round(seconds * rate))]
        results = list(pool.map(lambda due: send(due, prompt), dues))
    print(json.dumps(results), flush=True)  # noqa: T201


if __name__ == "__main__":
    with transport.using(Plain()):
        main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
