"""Renders hostile templates, each in a process of its own, and prints what it took.

`python -m tests.prompts.exhaust 0 6` runs every sixth from the first on. It is a program, since only a small
process with one thread may be forked.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from django.conf import settings

GIB = 1024**3


def context() -> dict[str, Any]:
    return {
        "text": "lorem ip" * 5000,
        "doc": "lo re\nЖm " * 266_000,
        "xs": list(range(10_000)),
        "words": [f"w{number * 7919 % 5000}" for number in range(5000)],
    }


def run(template: str, values: dict[str, Any], pipe: int) -> None:
    from llm_wrapper.errors import PromptError
    from llm_wrapper.prompts import render_system
    from llm_wrapper.types import PromptSpec

    resource.setrlimit(resource.RLIMIT_AS, (2 * GIB, 2 * GIB))
    start = time.monotonic()
    try:
        outcome = f"{len(render_system(PromptSpec('p', system=template), values))} characters"
    except PromptError as error:
        outcome = error.code
    os.write(pipe, json.dumps({"outcome": outcome, "seconds": time.monotonic() - start}).encode())


def measure(template: str, values: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if child == 0:
        try:
            run(template, values, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        answer = result.read()
    _, _, usage = os.wait4(child, 0)
    found: dict[str, Any] = json.loads(answer) if answer else {"outcome": "crashed", "seconds": 0.0}
    return found | {"mebibytes": max(usage.ru_maxrss - before, 0) / 1024}


def main(start: int, step: int) -> None:
    settings.configure()
    from llm_wrapper import prompts  # noqa: F401 - before forking, so that it is not measured
    from tests.prompts.corpus import DOS

    values = context()
    for number in range(start, len(DOS), step):
        print(json.dumps({"number": number, **measure(DOS[number], values)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
