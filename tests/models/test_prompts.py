"""Prompt versions, and migrations on a filled database."""

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from llm_wrapper.errors import TemplateInvalid, ToolDefinitionError
from llm_wrapper.models import LLMCall, PromptTemplate, Tool
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model
from llm_wrapper.validation import prompt_errors


@pytest.mark.django_db
def test_a_tool_edit_makes_a_new_version_of_the_prompts_that_use_it(make_prompt, make_tool):
    """A version holds the tools too, so editing one by any path shows in the next version."""
    tool = make_tool(
        "def double(n: int) -> int:\n    '''Double.\n\n    Args:\n        n: A number.\n    '''\n    return n * 2\n"
    )
    prompt = make_prompt(tools=[tool])
    first = prompt.current_version()
    assert prompt.current_version() == first
    Tool.objects.filter(pk=tool.pk).update(tool_code=tool.tool_code.replace("* 2", "* 3"))
    second = PromptTemplate.objects.get(pk=prompt.pk).current_version()
    assert (first.number, second.number) == (1, 2)
    assert "* 2" in first.spec().tools[0].code
    assert "* 3" in second.spec().tools[0].code


@pytest.mark.django_db
def test_e7_calls_and_history_outlive_a_deleted_prompt(make_prompt):
    """E7: deleting a prompt leaves its chats and what was sent readable."""
    prompt = make_prompt(system_prompt_template="S")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model("hello"):
        wrapper.send_user_message_and_get_response("hi")
    prompt.delete()
    call = LLMCall.objects.get()
    assert call.prompt_version.content["system"] == "S"
    assert call.sent_messages()[0] == {"role": "system", "content": "S"}
    with pytest.raises(PromptTemplate.DoesNotExist):
        wrapper.send_user_message_and_get_response("again")
    assert len(wrapper.get_chat_history_object().chat_history) == 3


@pytest.mark.django_db
def test_the_demo_fixture_loads_into_an_empty_database():
    """`loaddata` of the demo set works on an empty database, and its prompts have versions that run."""
    call_command("loaddata", "fixtures/demo.json", verbosity=0)
    for prompt in PromptTemplate.objects.all():
        assert prompt.current_version().spec().tools


@pytest.mark.django_db(transaction=True)
def test_migrations_undo_and_redo():
    """The migrations run backwards and forwards again."""
    newest = [key for key in MigrationExecutor(connection).loader.graph.leaf_nodes() if key[0] == "llm_wrapper"]
    MigrationExecutor(connection).migrate([("llm_wrapper", None)])
    assert "llm_wrapper_message" not in connection.introspection.table_names()
    MigrationExecutor(connection).migrate(newest)
    assert "llm_wrapper_message" in connection.introspection.table_names()


@pytest.mark.django_db
def test_a_tool_saved_without_a_spec_gets_one_from_its_code():
    """`Tool.objects.create` with code alone gives a whole tool; code that gives no spec is refused, not stored."""
    tool = Tool.objects.create(name="Order state", tool_code="tests.host_tools.order_state")
    assert tool.tool_json_spec["name"] == "order_state"
    assert tool.context_params == ["user_id"]
    with pytest.raises(ToolDefinitionError):
        Tool.objects.create(name="Broken", tool_code="def f(x): return x")
    assert Tool.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["api_base", "api_key", "base_url", "extra_headers", "mock_response", "model", "messages"]
)
def test_a_prompt_cannot_send_the_call_elsewhere(make_prompt, name):
    """Whoever edits prompts cannot set where a call goes or what it carries: refused on save, and before a call."""
    prompt = make_prompt(model_params={name: "http://127.0.0.1:1/"})
    assert "model_params" in prompt_errors(prompt.current_version().spec())
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    with scripted_model() as model, pytest.raises(TemplateInvalid, match=name):
        wrapper.send_user_message_and_get_response("hi")
    assert not model.requests
