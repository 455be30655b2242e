"""A turn whose worker died, and two sends at once."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from llm_wrapper import errors, history, transport
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, Message, ToolCall, Turn
from llm_wrapper.models.loading import load_prompt
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model, tool_calls
from llm_wrapper.turn import TurnJob, run_turn
from llm_wrapper.turn.drivers import Listening, _perform
from llm_wrapper.turn.effects import CallModel, Do, RunTool

pytestmark = pytest.mark.django_db


def run_until(machine, number):
    """Carry out the first `number` effects of a turn and then drop it, as a killed process does."""
    sent = None
    for _ in range(number):
        wanted = machine.send(sent)
        sent = None
        if isinstance(wanted, Do | RunTool):
            sent = _perform(wanted)
        elif isinstance(wanted, CallModel):
            listening = Listening(wanted)
            sent = listening.outcome(transport.current().complete(wanted.request), None)
    return machine


def effects_of(job):
    count, machine, sent = 0, run_turn(job, history), None
    try:
        while True:
            wanted = machine.send(sent)
            count += 1
            sent = None
            if isinstance(wanted, Do | RunTool):
                sent = _perform(wanted)
            elif isinstance(wanted, CallModel):
                sent = Listening(wanted).outcome(transport.current().complete(wanted.request), None)
    except StopIteration:
        return count


def test_a2_a_turn_dropped_at_any_effect_is_repaired_by_the_next_send(make_prompt, make_tool):
    """A2, A4, C10: wherever the worker dies, the message is kept, no tool runs again, every tool call has a result, the
    transcript equals the rows, and the next send works."""
    from tests import host_tools

    make_prompt(tools=[make_tool("tests.host_tools.order_state")])
    prompt, version, *_ = load_prompt("support")

    def job(chat_id):
        return TurnJob(
            chat_id=chat_id,
            message="hello",
            spec=version.spec(),
            version=version,
            config_names=["demo"],
            context={"user_id": 1},
        )

    script = [tool_calls(("order_state", {"order": 1}), ("order_state", {"order": 2})), "Done."]
    with scripted_model(*script):
        total = effects_of(job(history.create_chat().pk))
    assert total > 15
    # The first effect renders, the second commits the message: from there on nothing may be lost.
    for stop in range(2, total):
        host_tools.SEEN.clear()
        chat_id = history.create_chat(prompt_template_id=prompt.pk).pk
        with scripted_model(*script, "After.", "After."):
            run_until(run_turn(job(chat_id), history), stop)
            ran = len(host_tools.SEEN)
            finished = not Turn.objects.filter(chat=chat_id, status="running").exists()
            wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat_id)
            if not finished:
                with pytest.raises(errors.TurnInProgress):
                    wrapper.send_user_message_and_get_response("next")
            Turn.objects.filter(chat=chat_id).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
            # The script goes on where the dead worker left it, so the last answers may be tool calls again.
            with scripted_model("After.") as model:
                assert wrapper.send_user_message_and_get_response("next") == "After."
        assert len(host_tools.SEEN) == ran, f"a tool ran again after a stop at effect {stop}"
        assert Message.objects.filter(chat=chat_id, type="user", text="hello").count() == 1
        assert not LLMCall.objects.filter(turn__chat=chat_id, status="running").exists()
        assert not ToolCall.objects.filter(turn__chat=chat_id, status__in=["pending", "running"]).exists()
        chat = ChatHistory.objects.get(pk=chat_id)
        assert chat.chat_history == chat.full_history()
        assert_tool_calls_are_paired(model.requests[0].messages)


def assert_tool_calls_are_paired(messages):
    """Every tool call is followed by its result, as providers demand."""
    open_calls = []
    for message in messages:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"no result for {open_calls}"
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
    assert not open_calls


def test_a6_a_worker_that_wakes_up_after_its_turn_was_taken_over_cannot_write(make_prompt):
    """A6: a worker that slept past its lease is refused its writes."""
    make_prompt()
    _, version, *_ = load_prompt("support")
    chat = history.create_chat()
    job = TurnJob(chat_id=chat.pk, message="hello", spec=version.spec(), version=version, config_names=["demo"])
    with scripted_model("late", "Fine."):
        machine = run_until(run_turn(job, history), 6)
        Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        wrapper = LLMCommunicationWrapper(prompt_name="support", chat_history_id=chat.pk)
        with scripted_model("Taken over."):
            wrapper.send_user_message_and_get_response("next")
        before = list(Message.objects.values())
        with pytest.raises(errors.TurnLost):
            run_until(machine, 20)
    assert list(Message.objects.values()) == before


def test_b1_a_second_send_while_a_turn_runs_is_refused(make_prompt):
    """B1: one turn at a time: the second send is refused at once and leaves nothing behind."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one two three"):
        stream = wrapper.stream_user_message("first")
        next(stream)
        with pytest.raises(errors.TurnInProgress):
            wrapper.send_user_message_and_get_response("second")
        list(stream)
    assert list(Message.objects.filter(type="user").values_list("text", flat=True)) == ["first"]


def test_b1_a_send_may_wait_for_the_running_turn(make_prompt, monkeypatch):
    """With `wait` a send is answered once the running turn has ended, and refused when the time is up."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one two", "Second."):
        stream = wrapper.stream_user_message("first")
        next(stream)
        with pytest.raises(errors.TurnInProgress):
            wrapper.send_user_message_and_get_response("second", wait=0.3)
        # The running turn ends while the other one waits.
        monkeypatch.setattr("llm_wrapper.turn.drivers.time.sleep", lambda seconds: seconds and list(stream))
        assert wrapper.send_user_message_and_get_response("second", wait=5) == "Second."


def crashed_at(make_tool, make_prompt, tool, stop):
    """A turn with one tool call whose worker died after `stop` effects; gives the turn."""
    make_prompt(tools=[tool])
    prompt, version, *_ = load_prompt("support")
    chat = history.create_chat(prompt_template_id=prompt.pk)
    job = TurnJob(
        chat_id=chat.pk,
        message="hello",
        spec=version.spec(),
        version=version,
        config_names=["demo"],
        context={"user_id": 1},
    )
    with scripted_model(tool_calls((tool.tool_json_spec["name"], {"order": 5}))):
        machine, sent = run_turn(job, history), None
        while True:
            wanted = machine.send(sent)
            sent = None
            if isinstance(wanted, RunTool) and stop == "before the tool ran":
                break
            if isinstance(wanted, Do) and wanted.function.__name__ == "start_tool" and stop == "before its start":
                break
            if isinstance(wanted, Do | RunTool):
                sent = _perform(wanted)
            elif isinstance(wanted, CallModel):
                sent = Listening(wanted).outcome(transport.current().complete(wanted.request), None)
    Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    return Turn.objects.get()


def test_a4_resuming_tells_the_model_of_an_unknown_outcome(make_prompt, make_tool):
    """A4: an interrupted tool is not run again; the model is told that its outcome is unknown, and answers."""
    from tests import host_tools

    host_tools.SEEN.clear()
    turn = crashed_at(make_tool, make_prompt, make_tool("tests.host_tools.order_state"), "before the tool ran")
    with scripted_model("I am not sure.") as model:
        assert resume(turn) == "I am not sure."
    assert host_tools.SEEN == []
    assert '"Unknown"' in model.requests[0].messages[-1]["content"]
    assert ToolCall.objects.get().status == "unknown"
    turn.refresh_from_db()
    assert (turn.status, turn.fence) == ("done", 2)
    assert list(audit.differences(turn.chat)) == []


def test_a4_an_idempotent_tool_runs_again_with_the_same_key(make_prompt, make_tool):
    """A4: a tool that is declared idempotent runs again, under the key of its first run."""
    from tests import host_tools

    host_tools.KEYS.clear()
    tool = make_tool("tests.host_tools.pay_once", idempotent=True)
    turn = crashed_at(make_tool, make_prompt, tool, "before the tool ran")
    with scripted_model("Paid."):
        assert resume(turn) == "Paid."
    assert [f"{turn.pk}:{ToolCall.objects.get().pk}"] == host_tools.KEYS


def test_a_tool_that_was_not_started_is_run_on_resuming(make_prompt, make_tool):
    """A tool call that was only planned is run by whoever resumes the turn; values that were never stored are gone."""
    from tests import host_tools

    host_tools.KEYS.clear()
    turn = crashed_at(make_tool, make_prompt, make_tool("tests.host_tools.pay_once"), "before its start")
    with scripted_model("Paid."):
        assert resume(turn) == "Paid."
    assert len(host_tools.KEYS) == 1
    host_tools.SEEN.clear()


def test_a_living_turn_is_not_resumed(make_prompt):
    """Resuming leaves a turn alone whose lease has not run out."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("one two"):
        stream = wrapper.stream_user_message("first")
        next(stream)
        assert resume(Turn.objects.get()) is None
        assert [event.type for event in stream][-1] == "turn_finished"


def test_a6_the_former_worker_of_a_resumed_turn_cannot_write(make_prompt):
    """A6: after a take-over that keeps the turn running, the fencing number refuses the former worker."""
    make_prompt()
    prompt, version, *_ = load_prompt("support")
    chat = history.create_chat(prompt_template_id=prompt.pk)
    job = TurnJob(chat_id=chat.pk, message="hello", spec=version.spec(), version=version, config_names=["demo"])
    with scripted_model("late"):
        machine = run_until(run_turn(job, history), 7)
        Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        assert history.take_over(Turn.objects.get().pk) is not None
        with pytest.raises(errors.TurnLost):
            run_until(machine, 20)
    assert not Message.objects.filter(type="assistant").exists()


def test_llm_resume_settles_what_crashed_and_llm_check_history_agrees(make_prompt, make_tool, capsys):
    """`llm_resume` answers crashed turns, and `llm_check_history` finds and repairs a transcript that differs."""
    turn = crashed_at(make_tool, make_prompt, make_tool("tests.host_tools.order_state"), "before the tool ran")
    with scripted_model("Sorry."):
        call_command("llm_resume")
    assert "answered" in capsys.readouterr().out
    call_command("llm_check_history")
    ChatHistory.objects.update(chat_history=[], input_tokens_count=999)
    with pytest.raises(CommandError, match="--repair"):
        call_command("llm_check_history")
    assert "input_tokens_count is 999" in capsys.readouterr().err
    call_command("llm_check_history", "--repair")
    call_command("llm_check_history")
    assert turn.chat.full_history() == ChatHistory.objects.get().chat_history
