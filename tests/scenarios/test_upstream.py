"""Limited, slow and dead providers: what a turn does about them, and what it costs. Group C, G5 to G7."""

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from django.db import connection

from llm_wrapper import configs, errors, events
from llm_wrapper.models import LLMCall, Message, ToolCall, Turn
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import failure, rate_limit, scripted_model, tool_calls
from llm_wrapper.tools import llm_tool
from tests.transport.provider import fails, message, says, sends, silent, streams, text_chunks

from .test_async import run
from .test_recovery import assert_tool_calls_are_paired

pytestmark = pytest.mark.django_db


def ask(wrapper, text="hi", fail_over=True):
    return wrapper.send_user_message_and_get_response(text, retry_on_openai_time_limit=fail_over)


@llm_tool
def dawdle(seconds: float) -> str:
    """Take some time.

    Args:
        seconds: How much.
    """
    time.sleep(seconds)
    return "done"


def rest_of(name):
    found = configs.cooling([name]).get(name)
    return found.seconds_left if found is not None else None


def slowly(answer, seconds):
    def wait(handler):
        handler.server.release.wait(seconds)
        answer(handler)

    return wait


# -- C1: Retry-After -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "shortest", "longest"),
    [
        ("7", 6, 7),
        ("12.5", 12, 13),
        ("date", 38, 41),
        ("0", 0, 30),
        ("-1", 29, 30),
        ("99999", 899, 900),
        ("in a while", 29, 30),
        ("", 29, 30),
        ("nan", 29, 30),
        ("inf", 29, 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 29, 30),
    ],
)
def test_c1_a_limited_config_rests_as_it_asked_and_the_other_answers(upstream, chat_on, header, shortest, longest):
    """Whatever Retry-After says, the user gets an answer from the other config, and the limited one is left alone for
    that time, within bounds."""
    value = formatdate(time.time() + 40, usegmt=True) if header == "date" else header
    upstream.answers["limited"] = fails(429, retry_after=value)
    assert ask(chat_on("limited", "well")) == "Here."
    assert shortest <= rest_of("limited") <= longest
    assert ask(chat_on("limited", "well")) == "Here."
    assert (upstream.asked("limited"), upstream.asked("well")) == (1, 2)


# -- C2, C3, G5, G6: limits ------------------------------------------------------------------------------


def test_c2_after_a_rest_one_call_probes_the_config(upstream, chat_on, later):
    """The first turn after a rest tries the config; a bad probe costs its user nothing but time, and a good one opens
    the config again."""
    upstream.answers["limited"] = fails(429, retry_after="10")
    ask(chat_on("limited", "well"))
    for asked in (2, 3):
        later(11)
        wrappers = [chat_on("limited", "well") for _ in range(3)]
        assert [ask(wrapper) for wrapper in wrappers] == ["Here."] * 3
        assert upstream.asked("limited") == asked
    upstream.answers["limited"] = says("Back.")
    later(11)
    assert [ask(chat_on("limited", "well")) for _ in range(3)] == ["Back."] * 3
    probes = [call.config_name for call in LLMCall.objects.all() if call.route.get("probe")]
    assert probes == ["limited"] * 3


def test_c2_a_probe_is_not_taken_by_a_new_instance(upstream, chat_on, later):
    """An instance that is made and never used does not keep the config from those who would use it."""
    upstream.answers["limited"] = [fails(429, retry_after="5"), says("Back.")]
    ask(chat_on("limited", "well"))
    later(6)
    for _ in range(3):
        chat_on("limited", "well")
    assert ask(chat_on("limited", "well")) == "Back."


def test_c3_a_single_limited_config_is_told_at_once_and_left_alone(upstream, chat_on, later):
    """With one config, the caller learns within 250 ms when to come back, and the provider is not asked meanwhile."""
    upstream.answers["only"] = fails(429, retry_after="10")
    with pytest.raises(errors.RateLimited):
        ask(chat_on("only"), fail_over=False)
    seconds = []
    for number in range(9):
        wrapper = chat_on("only")
        started = time.monotonic()
        with pytest.raises(errors.AllConfigsUnavailable) as caught:
            ask(wrapper, fail_over=bool(number % 2))
        seconds.append(time.monotonic() - started)
        assert 1 <= caught.value.retry_after <= 10
    assert sorted(seconds)[4] < 0.25
    assert upstream.asked("only") == 1
    assert {turn.error_code for turn in Turn.objects.all()} == {"rate_limited", "all_configs_unavailable"}
    assert Message.objects.filter(type="user").count() == 10
    later(11)
    upstream.answers["only"] = says("Back.")
    assert ask(wrapper) == "Back."


def test_c3_while_a_single_config_is_probed_others_are_told_at_once(make_prompt):
    """The second caller does not wait for the first one's probe, which may take as long as a call may."""
    make_prompt()
    configs.cool("demo", retry_after=1, reason="rate_limited")
    time.sleep(1.05)
    first, second = (LLMCommunicationWrapper(prompt_name="support") for _ in range(2))
    with scripted_model("Back.", "Open.") as model:
        stream = first.stream_user_message("hi")
        for event in stream:
            if isinstance(event, events.LLMCallStarted):
                break
        started = time.monotonic()
        with pytest.raises(errors.AllConfigsUnavailable, match="being probed after rate_limited") as caught:
            ask(second)
        assert time.monotonic() - started < 0.25
        assert caught.value.retry_after == 1
        assert [event.reply for event in stream if isinstance(event, events.TurnFinished)] == ["Back."]
        assert ask(second) == "Open."
    assert len(model.requests) == 2


def test_c2_a_stream_that_flows_opens_the_config_before_it_ends(make_prompt, monkeypatch):
    """Others need not wait for the end of a long answer: after a second of it the probe counts as good."""
    monkeypatch.setattr("llm_wrapper.turn.drivers.KEEP_EVERY", 0.0)
    make_prompt()
    configs.cool("demo", retry_after=1, reason="rate_limited")
    time.sleep(1.05)
    first, second = (LLMCommunicationWrapper(prompt_name="support") for _ in range(2))
    with scripted_model("a long answer", "Open."):
        stream = first.stream_user_message("hi")
        texts = (event for event in stream if isinstance(event, events.TextDelta))
        next(texts)
        next(texts)
        assert ask(second) == "Open."
        stream.close()


@pytest.mark.parametrize("left", [events.TurnStarted, events.LLMCallStarted, events.TextDelta])
def test_c2_a_probe_that_is_cancelled_is_given_to_the_next(make_prompt, left):
    """A caller that goes away in the middle of a probe keeps nobody from the config."""
    make_prompt()
    configs.cool("demo", retry_after=1, reason="rate_limited")
    time.sleep(1.05)
    with scripted_model("one two three", "Back."):
        stream = LLMCommunicationWrapper(prompt_name="support").stream_user_message("hi")
        while not isinstance(next(stream), left):
            pass
        stream.close()
        with scripted_model("Back.") as model:
            assert ask(LLMCommunicationWrapper(prompt_name="support")) == "Back."
    call = LLMCall.objects.latest("pk")
    assert call.route["probe"] is True
    assert len(model.requests) == 1


@pytest.mark.parametrize("kind", [errors.AuthenticationFailed, errors.BadProviderRequest, errors.ContentRefused])
def test_c2_a_probe_that_is_refused_for_what_it_asks_is_given_to_the_next(make_prompt, kind):
    """An error that is not the config's load neither opens it nor lets it rest."""
    make_prompt()
    configs.cool("demo", retry_after=1, reason="rate_limited")
    time.sleep(1.05)
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(failure(kind("No.")), "Back."):
        with pytest.raises(kind):
            ask(wrapper)
        assert ask(wrapper) == "Back."
    assert [call.route.get("probe") for call in LLMCall.objects.order_by("pk")] == [True, True]


def in_threads(number, function):
    """What each call of the function returned or raised."""

    def run(index):
        try:
            return function(index)
        except Exception as error:  # noqa: BLE001 - what the tests look at
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


@pytest.mark.django_db(transaction=True)
def test_c2_many_threads_at_the_end_of_a_rest_make_one_probe(upstream, chat_on):
    """However many turns meet the end of a rest at once, one of them asks the config, and all are answered."""
    upstream.answers["limited"] = fails(429, retry_after="1")
    ask(chat_on("limited", "well"))
    upstream.answers["limited"] = slowly(fails(429, retry_after="1"), 0.3)
    time.sleep(1.1)
    wrappers = [chat_on("limited", "well") for _ in range(8)]
    assert in_threads(8, lambda number: ask(wrappers[number])) == ["Here."] * 8
    assert upstream.asked("limited") == 2


@pytest.mark.django_db(transaction=True)
def test_g5_g7_a_total_outage_costs_no_more_attempts_than_requests(upstream, chat_on):
    """While every config fails, the attempts stay within 1.1 times the requests plus the configs, also from parallel
    workers, and each caller gets a typed error."""
    names = ("one", "two", "three")
    for name in names:
        upstream.answers[name] = slowly(fails(503), 0.02)
    wrappers = [chat_on(*names) for _ in range(4)]

    def send(number):
        found = []
        for _ in range(15):
            try:
                ask(wrappers[number])
            except errors.AllConfigsUnavailable as error:
                found.append(error.retry_after)
        return found

    outcomes = in_threads(4, send)
    requests = sum(len(found) for found in outcomes)
    assert requests == 60
    assert len(upstream.requests) <= 1.1 * requests + len(names)
    assert len(upstream.requests) <= 4 * len(names)
    assert all(wait is not None for found in outcomes for wait in found)


def test_c4_after_an_outage_the_first_turn_is_answered(upstream, chat_on, later):
    """Attempts in an outage follow the rests and not the requests; when the provider is back, so is the chat."""
    for name in ("one", "two"):
        upstream.answers[name] = fails(500)
    wrapper = chat_on("one", "two")
    for _ in range(10):
        for _ in range(3):
            with pytest.raises(errors.AllConfigsUnavailable):
                ask(wrapper)
        later(6)
    # Both at the beginning, and both when their 30 seconds were over.
    assert len(upstream.requests) == 4
    upstream.answers.clear()
    later(61)
    assert [ask(wrapper) for _ in range(3)] == ["Here."] * 3
    assert configs.cooling(["one", "two"]) == {}


def test_c7_a_bad_answer_gives_a_short_rest(upstream, chat_on):
    """One user's message that makes a model say nothing does not shut out the others for long."""
    upstream.answers["main"] = sends(message(None, finish="length"))
    for _ in range(3):
        with pytest.raises(errors.InvalidProviderResponse):
            ask(chat_on("main"), fail_over=False)
        assert rest_of("main") <= 1
        time.sleep(1.05)
    upstream.answers.clear()
    assert ask(chat_on("main")) == "Here."


# -- bounds of a turn ------------------------------------------------------------------------------------


def test_attempts_are_bounded_also_with_many_configs(make_prompt, settings, tmp_path):
    """A call tries LLM_WRAPPER_MAX_ATTEMPTS configs at most, says so with every cause, and the next begins with the
    others."""
    settings.LLM_CONFIGS_PATH = tmp_path
    names = [f"c{number}" for number in range(6)]
    for name in names:
        (tmp_path / f"{name}.yml").write_text("llm_config_class: DemoConfig\n")
    make_prompt(configs=names)
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(*[rate_limit(60)] * 5, "Here.") as model:
        with pytest.raises(errors.AllConfigsUnavailable, match="LLM_WRAPPER_MAX_ATTEMPTS") as caught:
            ask(wrapper)
        tried = [request.config.name for request in model.requests]
        assert len(set(tried)) == 4
        assert {name: cause.code for name, cause in caught.value.causes.items()} == dict.fromkeys(tried, "rate_limited")
        assert caught.value.retryable
        assert ask(wrapper) == "Here."
        assert {request.config.name for request in model.requests} == set(names)


def test_when_all_were_tried_the_error_says_when_to_come_back(make_prompt, settings):
    """Where the bound and the number of configs are the same, the soonest time is told as ever."""
    settings.LLM_WRAPPER_MAX_ATTEMPTS = 2
    make_prompt(configs=("demo", "demo-b"))
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(60), rate_limit(20)):
        with pytest.raises(errors.AllConfigsUnavailable) as caught:
            ask(wrapper)
        assert set(caught.value.causes) == {"demo", "demo-b"}
        assert caught.value.retry_after == pytest.approx(20, abs=2)


def test_an_attempt_past_the_bound_takes_no_probe(make_prompt, settings):
    """A turn that may try no more does not keep a config from those who may."""
    settings.LLM_WRAPPER_MAX_ATTEMPTS = 1
    make_prompt(configs=("demo", "demo-b"))
    for name in ("demo", "demo-b"):
        configs.cool(name, retry_after=1, reason="rate_limited")
    time.sleep(1.05)
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(rate_limit(60), "Here."):
        with pytest.raises(errors.AllConfigsUnavailable):
            ask(wrapper)
        assert ask(wrapper) == "Here."


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("door", ["sync", "async", "stream"])
def test_c5_a_turn_ends_when_its_time_is_up(upstream, chat_on, settings, door):
    """A call gets no more than what is left of the turn's time; the config is not blamed, and the chat goes on."""
    upstream.answers["main"] = [silent, says("Here.")]
    wrapper = chat_on("main", "well")
    settings.LLM_WRAPPER_TURN_TIMEOUT = 0.6
    doors = {
        "sync": lambda: ask(wrapper),
        "stream": lambda: list(wrapper.stream_user_message("hi", None, True)),
        "async": lambda: run(wrapper.asend_user_message_and_get_response("hi", None, True)),
    }
    started = time.monotonic()
    with pytest.raises(errors.TurnTimeout, match=r"longer than 0\.6 s .LLM_WRAPPER_TURN_TIMEOUT."):
        doors[door]()
    assert 0.3 < time.monotonic() - started < 2.5
    turn = Turn.objects.get()
    assert (turn.status, turn.error_code) == ("failed", "turn_timeout")
    call = turn.llm_calls.get()
    assert (call.status, call.error_code) == ("failed", "turn_timeout")
    assert configs.cooling(["main"]) == {}
    settings.LLM_WRAPPER_TURN_TIMEOUT = 300
    assert ask(wrapper, "again") == "Here."
    assert upstream.asked("main") == 2


def test_c5_a_slow_config_leaves_the_next_what_is_left(upstream, chat_on, settings):
    """Attempts share the turn's time: the second one does not get a new start."""
    settings.LLM_WRAPPER_TURN_TIMEOUT = 1.0
    upstream.add("slow", timeout=0.6)
    upstream.answers |= {"slow": silent, "spare": silent}
    wrapper = chat_on("slow", "spare")
    started = time.monotonic()
    with pytest.raises(errors.TurnTimeout):
        ask(wrapper)
    assert time.monotonic() - started < 2.5
    codes = list(LLMCall.objects.order_by("pk").values_list("config_name", "error_code"))
    assert codes == [("slow", "provider_timeout"), ("spare", "turn_timeout")]
    assert set(configs.cooling(["slow", "spare"])) == {"slow"}


def test_c5_a_providers_own_timeout_is_not_the_turns(upstream, chat_on, settings):
    """A provider that says at once that it timed out is left for another, also where the turn has little time."""
    settings.LLM_WRAPPER_TURN_TIMEOUT = 20
    upstream.answers["main"] = fails(504)
    assert ask(chat_on("main", "well")) == "Here."
    assert set(configs.cooling(["main", "well"])) == {"main"}


def test_c10_time_that_runs_out_between_tools_leaves_no_call_without_a_result(make_prompt, make_tool, settings):
    """Tools that were asked for and not begun are told as not run, so that the provider takes the next message."""
    make_prompt(tools=[make_tool("tests.scenarios.test_upstream.dawdle")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    settings.LLM_WRAPPER_TURN_TIMEOUT = 0.5
    with scripted_model(tool_calls(*[("dawdle", {"seconds": 0.3})] * 3), "Fine.") as model:
        with pytest.raises(errors.TurnTimeout):
            ask(wrapper)
        assert list(ToolCall.objects.order_by("pk").values_list("status", flat=True)) == ["done", "done", "refused"]
        settings.LLM_WRAPPER_TURN_TIMEOUT = 300
        assert ask(wrapper, "again") == "Fine."
    assert_tool_calls_are_paired(model.requests[1].messages)
    assert Turn.objects.earliest("pk").error_code == "turn_timeout"


def drips(handler):
    """Headers without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.release.wait(0.05):
        handler.wfile.write(b"x-more: yes\r\n")
    handler.close_connection = True


TOO_SLOW = {
    "half-open connection": silent,
    "dripping headers": drips,
    "dripping text": streams(*text_chunks(*["x "] * 400), pause=0.02),
}


@pytest.mark.parametrize("how", TOO_SLOW)
def test_c5_a_call_that_takes_too_long_is_left_for_another(upstream, chat_on, how):
    """Silence and drops end at the call's timeout, the other config answers, and the slow one rests."""
    upstream.add("slow", timeout=0.6)
    upstream.answers["slow"] = TOO_SLOW[how]
    wrapper = chat_on("slow", "well")
    started = time.monotonic()
    seen = list(wrapper.stream_user_message("hi", None, True))
    assert time.monotonic() - started < 4
    assert seen[-1].reply.strip() == "Here."
    resets = [event.reason for event in seen if isinstance(event, events.StreamReset)]
    assert resets == (["provider_timeout"] if how == "dripping text" else [])
    codes = list(LLMCall.objects.order_by("pk").values_list("config_name", "error_code"))
    assert codes == [("slow", "provider_timeout"), ("well", "")]
    assert 0 < rest_of("slow") <= 30
    assert ask(wrapper) == "Here."
    assert upstream.asked("slow") == 1
