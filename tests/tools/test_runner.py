"""Rules of running a prepared call."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from django.db import connection

from llm_wrapper.errors import MissingExtra, SyncInAsyncContext
from llm_wrapper.tools import PreparedCall, arun, llm_tool, prepare, run
from llm_wrapper.types import ToolResult, ToolSpec

from . import shop
from .shop import PATH, SECRET, tool

STRING = {"type": "string"}


def ready(stored: ToolSpec, arguments: str = "{}", context: dict[str, Any] | None = None) -> PreparedCall:
    call = prepare(stored, arguments, context or {})
    assert isinstance(call, PreparedCall), call
    return call


@pytest.fixture(params=["run", "arun"])
def go(request: pytest.FixtureRequest) -> Callable[[PreparedCall], ToolResult]:
    """Both doors: what holds for one holds for the other."""
    return run if request.param == "run" else lambda call: asyncio.run(arun(call))


def message(result: ToolResult) -> str:
    content = json.loads(result.content)
    assert content["status"] == ("OK" if result.ok else "Failed")
    return str(content["message"])


Go = Callable[[PreparedCall], ToolResult]


def test_source_runs_with_arguments_and_context(go: Go) -> None:
    """The function of the source is called by keyword with the model's and the system's values."""
    code = (
        "import json\ndef f(a, __b__, c=3):\n    return helper([a, __b__, c])\ndef helper(x):\n    return json.dumps(x)"
    )
    result = go(ready(tool(code, {"a": STRING}), '{"a": "ü\\"); x"}', {"b": 7}))
    assert result.ok
    assert json.loads(message(result)) == ['ü"); x', 7, 3]


def test_async_source_runs(go: Go) -> None:
    """An `async def` is awaited, and may await host functions, also several at once."""
    code = (
        "import asyncio\nasync def f():\n"
        "    both = await asyncio.gather(shop_stock_async('pen'), shop_stock_async(article='pen'))\n"
        "    return [await shop_stock_async('pen'), *both]"
    )
    assert message(go(ready(tool(code)))) == "[3, 3, 3]"


def test_plain_host_functions_are_called_plainly(go: Go) -> None:
    """Source calls a plain host function without await, under its own or another local name."""
    code = (
        "def f():\n    look = shop_stock\n"
        "    return [shop_stock('pen'), look(article='pen'), [shop_stock(x) for x in ['pen']]]"
    )
    assert message(go(ready(tool(code)))) == "[3, 3, [3]]"


def test_a_registered_function_runs(go: Go) -> None:
    """A dotted path runs the function itself, sync or async; its values become JSON."""
    call = ready(tool(f"{PATH}refund", {"order_id": {"type": "integer"}}), '{"order_id": 5}', {"user_id": 7})
    assert json.loads(message(go(call))) == {"order": 5, "user": 7, "reason": "late", "amount": "9.90"}
    orders = ready(tool(f"{PATH}orders", {"status": STRING}), '{"status": "open"}')
    assert json.loads(message(go(orders))) == ["order in state open"]


def test_an_async_function_is_stopped_in_time(go: Go, caplog: pytest.LogCaptureFixture) -> None:
    """The timeout of the row bounds an async function."""
    stored = tool(f"{PATH}slow", {"seconds": {"type": "number"}}, bounds={"timeout": 0.2})
    started = time.monotonic()
    result = go(ready(stored, '{"seconds": 30}'))
    assert time.monotonic() - started < 2
    assert (result.status, result.code) == ("failed", "tool_timeout")
    assert "longer than 0.2 seconds" in message(result)


def test_a_timeout_of_the_function_itself_is_an_error_of_its_own(go: Go) -> None:
    """Only the tool's own clock makes a timeout; a TimeoutError from inside is a failure like others."""
    result = go(ready(tool(f"{PATH}slow", {"seconds": {"type": "number"}}), '{"seconds": -1}'))
    assert result.code == "tool_error"
    assert "TimeoutError" in message(result)


def test_printed_text_goes_nowhere(go: Go, capfd: pytest.CaptureFixture[str]) -> None:
    """What source prints reaches neither the model nor this process's output."""
    code = "import sys\ndef f():\n    print('loud')\n    print('loud', file=sys.stderr)\n    return 'quiet'"
    assert message(go(ready(tool(code)))) == "quiet"
    assert "loud" not in "".join(capfd.readouterr())


def test_source_is_stopped_in_time(go: Go) -> None:
    """An endless loop ends at the timeout, and the setting counts where the row has none."""
    stored = tool("def f():\n    while True: pass", bounds={"timeout": 0.2})
    started = time.monotonic()
    result = go(ready(stored))
    assert 0.15 < time.monotonic() - started < 1.2
    assert (result.status, result.code) == ("failed", "tool_timeout")


def test_the_settings_bound_a_tool(go: Go, settings: LazySettings) -> None:
    """Timeout, memory and output of the settings apply where the row sets none."""
    settings.LLM_WRAPPER_TOOL_TIMEOUT = 0.2
    settings.LLM_WRAPPER_TOOL_MAX_MEMORY = 5_000_000
    settings.LLM_WRAPPER_TOOL_MAX_OUTPUT = 100
    assert go(ready(tool("def f():\n    while True: pass", bounds={}))).code == "tool_timeout"
    assert "MemoryError" in message(go(ready(tool("def f():\n    return len('x' * 6_000_000)", bounds={}))))
    assert len(message(go(ready(tool("def f():\n    return 'x' * 6_000", bounds={}))))) == 100
    assert len(message(go(ready(tool("def f():\n    return 'x' * 6_000", bounds={"max_output": 50}))))) == 50


def test_a_slow_host_function_counts_against_the_timeout() -> None:
    """Time spent in host functions is not free: the next step finds the time used up."""
    code = "def f():\n    for _ in range(100): shop_block(0.1)"
    started = time.monotonic()
    result = run(ready(tool(code, bounds={"timeout": 0.3})))
    assert time.monotonic() - started < 1
    assert result.code == "tool_timeout"


def test_f10_an_exception_of_source_reaches_the_model_without_context_values(
    go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    """Class and message of what the source raised are told, bounded; context values are masked everywhere."""
    code = "def f(__token__):\n    g(__token__)\ndef g(token):\n    raise ValueError('no ' + token + 'x' * 9000)"
    result = go(ready(tool(code), context={"token": SECRET}))
    assert (result.status, result.code) == ("failed", "tool_error")
    assert message(result).startswith("The tool failed: ValueError: no [hidden]xxx")
    assert len(result.content) < 700
    assert "line 2 in f; line 4 in g" in caplog.text
    assert SECRET not in result.content + caplog.text


def test_f10_an_exception_of_a_registered_function_tells_its_class_only(
    go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    """The message of an exception may hold anything, so the model gets the class, the log the traceback."""
    stored = tool(f"{PATH}fail", {"how": STRING}, context_params=("token",))
    result = go(ready(stored, '{"how": "raise"}', {"token": SECRET}))
    assert (result.status, result.code) == ("failed", "tool_error")
    assert message(result) == "The tool failed with an internal error (ValueError)."
    assert "ValueError: bad token [hidden]" in caplog.text
    assert "shop.py" in caplog.text
    assert SECRET not in caplog.text
    assert all(record.exc_info is None for record in caplog.records if record.name == "llm_wrapper.tools")


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("purpose", "tool_failure", "Order 7 is closed; ask for another number."),
        ("exit", "tool_error", "SystemExit"),
        ("timeout", "tool_error", "TimeoutError"),
    ],
)
def test_whatever_a_function_raises_is_a_result(go: Go, how: str, code: str, words: str) -> None:
    """A ToolFailure speaks to the model; no other exception, not even SystemExit, ends the process."""
    stored = tool(f"{PATH}fail", {"how": STRING}, context_params=("token",))
    result = go(ready(stored, json.dumps({"how": how}), {"token": "t"}))
    assert (result.status, result.code) == ("failed", code)
    assert words in message(result)


def test_a_host_function_that_fails_is_an_exception_in_the_source(go: Go, caplog: pytest.LogCaptureFixture) -> None:
    """Source may catch it; it learns the class, or the message of a ToolFailure, and never more."""
    code = (
        "def f(how):\n    try:\n        shop_fail(how)\n"
        "    except (ValueError, RuntimeError) as error:\n        return type(error).__name__ + ': ' + str(error)"
    )
    stored = tool(code, {"how": STRING})
    assert message(go(ready(stored, '{"how": "x"}'))) == "ValueError: shop_fail failed (ValueError)"
    assert f"password is {SECRET}" in caplog.text
    assert message(go(ready(stored, '{"how": "purpose"}'))) == "RuntimeError: The shop is closed."
    uncaught = go(ready(tool("def f():\n    return shop_fail('x')")))
    assert message(uncaught) == "The tool failed: ValueError: shop_fail failed (ValueError)"


def test_a_host_value_that_cannot_enter_the_sandbox_is_an_error(go: Go) -> None:
    """Only plain data crosses into the sandbox, also as a context param."""
    assert "TypeError" in message(go(ready(tool("def f():\n    return shop_object()"))))
    result = go(ready(tool("def f(__user__):\n    return 1"), context={"user": object()}))
    assert (result.status, result.code) == ("failed", "tool_error")


@pytest.mark.parametrize("value", ["object", "nan", "set"])
def test_f10_a_result_that_is_not_text_or_json_is_told(go: Go, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model gets words and not an object's repr."""
    monkeypatch.setattr(shop, "RETURNS", {"object": object(), "nan": float("nan"), "set": {1}})
    result = go(ready(tool(f"{PATH}echo", {"value": STRING}), json.dumps({"value": value})))
    assert (result.status, result.code) == ("failed", "tool_error")
    assert "neither text nor JSON" in message(result)


def test_f5_a_call_leaves_nothing_to_the_next(go: Go) -> None:
    """Globals, modules and builtins that one call changes are whole again in the next."""
    poison = "import json\nCOUNT = []\ndef f():\n    COUNT.append(1)\n    json.dumps = lambda x: 'evil'"
    go(ready(tool(poison)))
    look = "import json\nCOUNT = []\ndef f():\n    COUNT.append(1)\n    return json.dumps(len(COUNT))"
    for _ in range(3):
        assert message(go(ready(tool(look)))) == "1"


def test_the_sync_door_works_for_async_functions_outside_a_loop_only() -> None:
    """Inside a running loop the sync door names the async one instead of blocking the loop."""
    call = ready(tool(f"{PATH}orders", {"status": STRING}), '{"status": "open"}')

    async def inside() -> None:
        with pytest.raises(SyncInAsyncContext, match="arun"):
            run(call)

    asyncio.run(inside())
    assert run(call).ok


def test_an_async_run_does_not_block_the_loop() -> None:
    """While the sandbox works, the event loop goes on."""

    async def both() -> int:
        task = asyncio.create_task(arun(ready(tool("def f():\n    while True: pass", bounds={"timeout": 0.3}))))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert (await task).code == "tool_timeout"
        return ticks

    assert asyncio.run(both()) > 10


def test_a_cancelled_run_stops_and_frees_its_worker() -> None:
    """Cancelling the turn cancels the tool; the next calls find workers."""

    async def cancel() -> None:
        endless = ready(tool("def f():\n    while True: pass", bounds={"timeout": 30}))
        tasks = [asyncio.create_task(arun(endless)) for _ in range(4)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        results = await asyncio.gather(*(arun(ready(tool("def f():\n    return 1"))) for _ in range(8)))
        assert all(result.ok for result in results)

    started = time.monotonic()
    asyncio.run(cancel())
    assert time.monotonic() - started < 5


def test_calls_in_many_threads_do_not_meet() -> None:
    """Threads share the workers, not their values."""
    results: dict[int, str] = {}

    def work(number: int) -> None:
        results[number] = message(run(ready(tool("def f(__n__):\n    return __n__"), context={"n": number})))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: str(number) for number in range(12)}


@llm_tool
def count_users() -> int:
    """Count."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 41 + 1")
        return int(cursor.fetchone()[0])


@llm_tool
def which_thread() -> str:
    """Tell the thread."""
    return str(threading.get_ident())


@pytest.mark.django_db
def test_a_plain_function_may_use_the_orm() -> None:
    """The sync door runs it in the caller's thread, and the async door, under async_to_sync, does too."""
    count = ready(tool(f"{__name__}.count_users", name="count_users"))
    assert message(run(count)) == "42"
    assert message(async_to_sync(arun)(count)) == "42"
    thread = ready(tool(f"{__name__}.which_thread", name="which_thread"))
    assert message(run(thread)) == message(async_to_sync(arun)(thread)) == str(threading.get_ident())


def test_without_the_sandbox_the_extra_is_named(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running source without pydantic-monty is an error of the installation that says what to install."""
    call = ready(tool("def f():\n    return 1"))
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    with pytest.raises(MissingExtra, match=r'pip install "llm_wrapper\[sandbox\]"'):
        go(call)


def test_context_values_of_every_plain_kind_enter_the_sandbox(go: Go) -> None:
    """Text, numbers, Decimal, None, lists and dicts arrive as they were."""
    values = {"a": "ü", "b": [1, None, {"c": 1.5}], "d": Decimal("1.50"), "e": 10**30}
    code = "def f(__v__):\n    return [type(__v__['d']).__name__, str(__v__['d']), __v__['a'], __v__['b'], __v__['e']]"
    assert json.loads(message(go(ready(tool(code), context={"v": values})))) == [
        "Decimal",
        "1.50",
        "ü",
        [1, None, {"c": 1.5}],
        10**30,
    ]


def test_the_log_says_what_was_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """A stopped tool leaves a line with its name."""
    with caplog.at_level(logging.WARNING, "llm_wrapper.tools"):
        run(ready(tool("def f():\n    while True: pass", bounds={"timeout": 0.1})))
    assert "Tool A tool was stopped after 0.1 s" in caplog.text
