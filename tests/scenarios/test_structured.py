"""Structured answers, answers outside any chat, and the views of a chat."""

import pytest
from pydantic import BaseModel

from llm_wrapper import errors
from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.repositories import ChatHistoryRepository, LLMCommunicationWrapper
from llm_wrapper.testing import rate_limit, scripted_model, tool_call

pytestmark = pytest.mark.django_db


class Verdict(BaseModel):
    refund: bool
    euros: float


def test_a_valid_answer_is_parsed(make_prompt):
    """`.parsed` is a validated instance of the response format, which the request carries."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support", response_format_class=Verdict)
    with scripted_model('{"refund": true, "euros": 5}') as model:
        reply = wrapper.send_user_message_and_get_response("Refund?")
    assert reply.parsed == Verdict(refund=True, euros=5.0)
    assert model.requests[0].response_format is Verdict


def test_one_repair_round_tells_the_model_what_was_wrong(make_prompt):
    """An answer that does not fit is sent back once with the problems; the repair is on record."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support", response_format_class=Verdict)
    with scripted_model('{"refund": true}', '{"refund": true, "euros": 1}') as model:
        assert wrapper.send_user_message_and_get_response("Refund?").parsed.euros == 1
    assert "euros: Field required" in model.requests[1].messages[-1]["content"]
    shown = ChatHistoryRepository(wrapper.chat_history_id).get_processed_chat_messages()
    assert [entry["type"] for entry in shown] == ["user", "bot", "bot"]


def test_a_second_bad_answer_is_an_error_that_keeps_the_answers(make_prompt):
    """After one repair the turn fails with what is wrong; both answers stay on record with their usage."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support", response_format_class=Verdict)
    with scripted_model("no json", "still none"), pytest.raises(errors.ResponseFormatError):
        wrapper.send_user_message_and_get_response("Refund?")
    assert list(Message.objects.filter(type="assistant").values_list("text", flat=True)) == [
        "no json",
        "still none",
    ]
    assert Turn.objects.get().error_code == "response_format_error"
    assert set(LLMCall.objects.values_list("status", flat=True)) == {"done"}


def test_an_answer_without_a_chat_stores_nothing(make_prompt, make_tool):
    """A one-shot answer renders, fails over and uses tools as a turn does, and leaves no row."""
    make_prompt(
        configs=("demo", "demo-b"),
        system_prompt_template="Rate {{ product }}",
        tools=[make_tool("tests.host_tools.order_state")],
    )
    steps = (rate_limit(5), tool_call("order_state", order=3), '{"refund": false, "euros": 0}')
    with scripted_model(*steps) as model:
        reply = LLMCommunicationWrapper.get_response_without_chathistory(
            "support", Verdict, {"product": "a lamp", "user_id": 3}, retry_on_openai_time_limit=True
        )
    assert reply.parsed.refund is False
    assert model.requests[0].messages == [{"role": "system", "content": "Rate a lamp"}]
    assert model.requests[2].messages[-1]["role"] == "tool"
    assert not ChatHistory.objects.exists()
    assert not LLMCall.objects.exists()


def test_the_views_of_a_chat(make_prompt, make_tool):
    """The processed view hides system and tool steps; thumbs reach row and transcript; counts are right."""
    make_prompt(
        system_prompt_template="S",
        initial_messages_templates=[{"role": "assistant", "content": "Hello"}],
        tools=[make_tool("tests.host_tools.order_state")],
    )
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model(tool_call("order_state", order=1), '{"message": "Shipped."}'):
        reply = wrapper.send_user_message_and_get_response("Where?", {"user_id": 1})
    repository = ChatHistoryRepository(wrapper.chat_history_id)
    assert [(entry["type"], entry["message"]) for entry in repository.get_processed_chat_messages()] == [
        ("user", "Where?"),
        ("bot", "Shipped."),
    ]
    (tool,) = repository.get_processed_chat_messages(is_superuser=True)[1]["tool_data"]
    assert (tool["name"], "order 1: shipped" in tool["result"]) == ("order_state", True)
    assert repository.update_message_thumb_rating(reply.id, 1) is True
    assert repository.update_message_thumb_rating(reply.id + 999, 1) is False
    with pytest.raises(ValueError, match="thumb"):
        repository.update_message_thumb_rating(reply.id, 5)
    chat = wrapper.get_chat_history_object()
    assert chat.chat_history[-1]["thumb"] == 1
    assert chat.chat_history == chat.full_history()
    assert repository.get_thumbs_counts() == {"thumbs_up": 1, "thumbs_down": 0}
    assert repository.get_user_message_count() == 1


def test_messages_can_be_added_from_outside(make_prompt):
    """A host app may add its own messages; they get ids and are part of the next call."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    repository = ChatHistoryRepository(wrapper.chat_history_id)
    assert repository.is_chat_history_empty()
    (step_id,) = repository.add_msgs_to_chat_history(
        [{"role": "assistant", "content": "Still there?", "system_generated": True}]
    )
    with pytest.raises(ValueError, match="role"):
        repository.add_msgs_to_chat_history([{"role": "robot", "content": "x"}])
    with scripted_model("Good.") as model:
        wrapper.send_user_message_and_get_response("Yes")
    assert model.requests[0].messages[0] == {"role": "assistant", "content": "Still there?"}
    assert wrapper.get_chat_history_object().chat_history[0]["id"] == step_id
    assert [m["role"] for m in repository.get_msg_list_for_llm()] == ["assistant", "user", "assistant"]
