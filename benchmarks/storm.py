"""One process of a storm: sends at a steady rate, whether or not the earlier ones have been answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import workload

THREADS = 24


def prompt_on(configs: Sequence[str]) -> str:
    """The name of a prompt on these configs; the rows are made where they are missing."""
    from llm_wrapper.models import LLMConfigName, PromptTemplate

    prompt, _ = PromptTemplate.objects.get_or_create(
        name=f"storm {' '.join(configs)}", defaults={"system_prompt_template": workload.SYSTEM_TEMPLATE}
    )
    for name in configs:
        prompt.llm_config_names.add(LLMConfigName.objects.get_or_create(name=name)[0])
    return str(prompt.name)


def warm_up(configs: Sequence[str]) -> None:
    """Load what the first turn loads, on a config that is not part of the storm, and let none of these rest."""
    from llm_wrapper.configs import warm_up as end_rest
    from llm_wrapper.repositories import LLMCommunicationWrapper

    prompt_on(configs)
    wrapper = LLMCommunicationWrapper(
        prompt_name=prompt_on(["OpenAICompatibleConfig"]), initializing_context_vars=workload.CONTEXT
    )
    wrapper.send_user_message_and_get_response(workload.MESSAGE)
    for name in configs:
        end_rest(name)


def send(configs: Sequence[str], rate: float, seconds: float, start_at: float) -> dict[str, Any]:
    """New conversations at `rate` a second from the wall-clock time `start_at` on: how long each caller waited
    from the moment it was due, and what became of it."""
    from llm_wrapper.errors import AllConfigsUnavailable, LLMWrapperError
    from llm_wrapper.repositories import LLMCommunicationWrapper

    prompt = prompt_on(configs)

    def one(due: float) -> tuple[float, str]:
        time.sleep(max(0.0, due - time.time()))
        try:
            LLMCommunicationWrapper(
                prompt_name=prompt, initializing_context_vars=workload.CONTEXT
            ).send_user_message_and_get_response(workload.MESSAGE, retry_on_openai_time_limit=True)
            outcome = "answered"
        except AllConfigsUnavailable as error:
            outcome = "told when to come back" if error.retry_after else "AllConfigsUnavailable without a time"
        except LLMWrapperError as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        return time.time() - due, outcome

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(one, [start_at + number / rate for number in range(round(rate * seconds))]))
    return {"wall": [wall for wall, _ in found], "outcomes": [outcome for _, outcome in found]}
