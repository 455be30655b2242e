"""How many SQL statements a turn takes."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model, tool_call

# On SQLite and PostgreSQL alike: inside a test's transaction BEGIN and COMMIT would be savepoints.
pytestmark = pytest.mark.django_db(transaction=True)


def statements(wrapper, *steps):
    with scripted_model(*steps), CaptureQueriesContext(connection) as captured:
        wrapper.send_user_message_and_get_response("hi", {"user_id": 1})
    return captured.captured_queries


def test_a_plain_turn_takes_at_most_20_statements(make_prompt):
    """A plain turn takes at most 20 SQL statements, and no more in a long chat than in a new one. The very first turn
    of a process on a prompt reads the prompt's parts, too."""
    make_prompt(system_prompt_template="S")
    statements(LLMCommunicationWrapper(prompt_name="support"), "the first of the process")
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    first = statements(wrapper, "one")
    for _ in range(10):
        statements(wrapper, "more")
    last = statements(wrapper, "last")
    listed = "\n".join(query["sql"][:100] for query in last)
    assert len(last) <= len(first) <= 20, listed


def test_a_turn_with_one_tool_takes_at_most_30_statements(make_prompt, make_tool):
    """A turn with one tool call takes at most 30 SQL statements, not counting where transactions begin and end."""
    make_prompt(system_prompt_template="S", tools=[make_tool("tests.host_tools.order_state")])
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    statements(wrapper, "the first of the process")
    made = statements(wrapper, tool_call("order_state", order=1), "done")
    made = [query for query in made if not query["sql"].startswith(("BEGIN", "COMMIT"))]
    listed = "\n".join(query["sql"][:100] for query in made)
    assert len(made) <= 30, listed
