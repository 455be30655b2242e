"""Prompt templates: rows of group E that docs/reliability.md lists and that no other file covers."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llm_wrapper import errors, transport
from llm_wrapper.history import audit
from llm_wrapper.models import ChatHistory, LLMCall, LLMConfigName, Message, PromptTemplate, Tool, Turn
from llm_wrapper.recovery import resume
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import ScriptedModel, scripted_model, tool_call
from tests import host_tools

pytestmark = pytest.mark.django_db

EDITED = '''
def order_state(order: int) -> str:
    """Edited.

    Args:
        order: Number of the order.
    """
    return "edited"
'''


class Editing(ScriptedModel):
    """A scripted model during whose first call somebody does something to the rows."""

    def __init__(self, edit, *steps):
        super().__init__(steps)
        self.edit = edit

    def complete(self, request):
        if not self.requests:
            self.edit()
        return super().complete(request)


def edit_everything():
    PromptTemplate.objects.update(system_prompt_template="new", model_params={"temperature": 1}, history_window=1)
    Tool.objects.update(tool_code=EDITED, tool_json_spec={"name": "order_state"}, context_params=[])
    PromptTemplate.objects.get().current_version()


def test_e6_an_edit_in_the_middle_of_a_turn_waits_for_the_next(make_prompt, make_tool):
    """E6: prompt and tool that are edited while a turn runs change nothing of that turn, and all of the next."""
    host_tools.SEEN.clear()
    make_prompt(system_prompt_template="old", tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    asked = tool_call("order_state", order=1)
    model = Editing(edit_everything, asked, "First.", "Second.")
    with transport.using(model):
        reply = wrapper.send_user_message_and_get_response("hi", {"user_id": 7})
        assert wrapper.send_user_message_and_get_response("again", {"user_id": 7}) == "Second."
    assert host_tools.SEEN == [(1, 7)]
    assert "shipped" in reply.tool_calls[0]["content"]
    first, second, third = model.requests
    assert second.messages[0] == first.messages[0] == {"role": "system", "content": "old"}
    assert (second.tools, second.params) == (first.tools, first.params)
    assert third.messages[0] == {"role": "system", "content": "new"}
    assert third.tools != first.tools
    assert [call.prompt_version.number for call in LLMCall.objects.order_by("pk")] == [1, 1, 2]
    assert [call.sent_messages() for call in LLMCall.objects.order_by("pk")] == [r.messages for r in model.requests]


def delete_prompt():
    PromptTemplate.objects.all().delete()
    Tool.objects.all().delete()


def delete_configs():
    LLMConfigName.objects.all().delete()


@pytest.mark.parametrize("delete", [delete_prompt, delete_configs])
def test_e7_what_a_turn_uses_may_be_deleted_under_it(make_prompt, make_tool, delete):
    """E7: a turn ends as it began where its prompt, tools or config names are deleted meanwhile; the next send says
    what is missing, and the history can be read."""
    make_prompt(system_prompt_template="S", tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with transport.using(Editing(delete, tool_call("order_state", order=1), "Done.")):
        assert wrapper.send_user_message_and_get_response("hi", {"user_id": 7}) == "Done."
        gone = PromptTemplate.DoesNotExist if delete is delete_prompt else errors.LLMConfigsNotAvailable
        with pytest.raises(gone, match=r"[Nn]o (prompt template|LLM configs)"):
            wrapper.send_user_message_and_get_response("again", {"user_id": 7})
    chat = ChatHistory.objects.get()
    assert [entry["content"] for entry in chat.full_history()][-1] in ("Done.", "again")
    assert list(audit.differences(chat)) == []


def test_e7_a_crashed_turn_whose_prompt_is_gone_is_ended(make_prompt):
    """E7: recovery ends a turn whose prompt was deleted as failed, without a call, and keeps the message."""
    make_prompt()
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("never") as model:
        stream = wrapper.stream_user_message("hello")
        next(stream)
        Turn.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        PromptTemplate.objects.all().delete()
        assert resume(Turn.objects.get()) is None
        stream.close()
    assert not model.requests
    assert (Turn.objects.get().status, Message.objects.get(type="user").text) == ("failed", "hello")
