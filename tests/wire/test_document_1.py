"""The samples of the prompt-template wrapper's README, run as they stand there but for the import root and the
endpoint in the YAML."""

import pytest

from llm_wrapper.models import ChatHistory, LLMConfigName, PromptTemplate
from llm_wrapper.repositories import ChatHistoryRepository

pytestmark = [pytest.mark.wire, pytest.mark.django_db]

YAML = """
name: "gpt-4-32k-azure"
llm_config_class: "AzureOpenAILLMConfig"
endpoint: "https://example.com"
deployment_name: "gpt-4"
api_key: "your_api_key"
api_version: "2024-01-01"
tools_enabled: true
"""

EXAMPLE_1 = """
from llm_wrapper.repositories import LLMCommunicationWrapper

llm_wrapper = LLMCommunicationWrapper(
    prompt_name="dsa_approach_prompt",
    chat_history_id=None,
    initialize=True,
    initializing_context_vars={"question": "Print something in Python"},
)
"""

EXAMPLE_2 = """
from llm_wrapper.repositories import LLMCommunicationWrapper

llm_wrapper = LLMCommunicationWrapper(
    prompt_name="dsa_approach_prompt",
    chat_history_id=6,
    initialize=False,
    initializing_context_vars={"question": "Find sum of digits of the given number"},
)
"""

SEND = """
response_text = llm_wrapper.send_user_message_and_get_response(
    "Is my solution correct so far?",
    {"question": "Find sum of digits"},
    retry_on_openai_time_limit=True
)
print(response_text)
"""

SYSTEM = "You help with this exercise: {{ question }}."


@pytest.fixture(autouse=True)
def rows(fake, write_config):
    """The rows and the file that the README tells its reader to make."""
    write_config("gpt-4-32k-azure", YAML.replace("https://example.com", fake.base))
    prompt = PromptTemplate.objects.create(
        name="dsa_approach_prompt",
        required_kwargs=["question"],
        initial_messages_templates=[{"role": "assistant", "content": "Hello! How can I help you today?"}],
        system_prompt_template=SYSTEM,
    )
    prompt.llm_config_names.set(LLMConfigName.objects.all())
    usage = {"prompt_tokens": 40, "completion_tokens": 5}
    fake.script({"match": {}, "response": {"content": "Yes, go on.", "usage": usage}})


def run(*samples):
    names = {}
    for sample in samples:
        exec(sample, names)  # noqa: S102 (the samples are text above)
    return names


def test_a_new_chat(fake, capsys):
    """YAML, example 1 and the send example: prints the answer; Azure got the rendered prompt under the YAML's key."""
    names = run(EXAMPLE_1, SEND)
    assert capsys.readouterr().out == "Yes, go on.\n"
    assert isinstance(names["response_text"], str)
    (request,) = fake.requests
    assert request["path"] == "/openai/deployments/gpt-4/chat/completions?api-version=2024-01-01"
    assert request["headers"]["api-key"] == "your_api_key"
    assert request["body"]["messages"] == [
        {"role": "system", "content": "You help with this exercise: Find sum of digits."},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
        {"role": "user", "content": "Is my solution correct so far?"},
    ]


def test_an_existing_chat(fake, capsys):
    """Example 2 and the send example go on with chat 6, whose earlier messages are sent along."""
    ChatHistory.objects.create(pk=6)
    ChatHistoryRepository(6).add_msgs_to_chat_history(
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi! What do you have?"}]
    )
    run(EXAMPLE_2, SEND)
    assert capsys.readouterr().out == "Yes, go on.\n"
    messages = fake.requests[0]["body"]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"] == "Hi."
    chat = ChatHistory.objects.get()
    assert (chat.pk, chat.prompt_template.name) == (6, "dsa_approach_prompt")
    assert chat.current_context_variables == {"question": "Find sum of digits"}
    assert (chat.input_tokens_count, chat.output_tokens_count) == (40, 5)
