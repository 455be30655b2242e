"""The samples of the persistent-chats README, run as they stand there but for the import root and its slips, which
docs/documents/0-persistent-chats.md lists; and what the model's server got of them."""

import pytest

from llm_wrapper.models import Chat, LLMCall, Message

pytestmark = [pytest.mark.wire, pytest.mark.django_db]

USER = """
from django.contrib.auth import get_user_model

User = get_user_model()
user = User.objects.create_user(username="testuser", password="12345")
"""

CREATE = """
from llm_wrapper.chat import Chat
chat = Chat.create()
"""

SEND = """
from llm_wrapper.models import Message, LLMCall

user_query = "Hi, tell me who you are."
model_name = "ollama_chat/qwen3:4b"

ai_msg: Message
user_msg: Message
llm_call: LLMCall
ai_msg, user_msg = chat.send_user_msg_to_llm(
    model_name=model_name, text=user_query, user=user, include_chat_history=True
)  # sends all messages in chat history to LLM

print(ai_msg.text)  # prints LLM response text
"""

COUNT = """
from llm_wrapper.models import Chat as ChatDBModel

chat_db_model = ChatDBModel.objects.get(id=chat.chat_db_model.id)
print(chat_db_model.input_tokens_count)  # total input tokens in this chat
print(chat_db_model.output_tokens_count)  # total output tokens in this chat
"""

LOOK = """
from llm_wrapper.models import LLMCall

llm_call = LLMCall.objects.get(id=chat.llm_call.id)
print(llm_call.messages.all())
"""

ASKED = ("user", "Hi, tell me who you are.")


@pytest.fixture(autouse=True)
def server(fake, monkeypatch):
    """A server where litellm looks for Ollama and for OpenAI."""
    monkeypatch.setenv("OLLAMA_API_BASE", fake.base)
    monkeypatch.setenv("OPENAI_API_BASE", f"{fake.base}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-0123456789")
    usage = {"prompt_tokens": 40, "completion_tokens": 5}
    fake.script({"match": {}, "response": {"content": "I am a model.", "usage": usage}})
    return fake


def chats(server):
    """What was asked of the model; for Ollama, litellm also asks what a model can do."""
    return [request for request in server.requests if not request["path"].endswith("/api/show")]


def said(messages):
    return [(message["role"], message["content"]) for message in messages]


def run(*samples):
    names = {}
    for sample in samples:
        exec(sample, names)  # noqa: S102 (the samples are text above)
    return names


def test_the_samples_in_their_order(server, capsys):
    """As they stand, on Ollama: what they print, what the server got, and whose messages are stored."""
    names = run(USER, CREATE, SEND, COUNT, LOOK)
    (request,) = chats(server)
    assert request["path"] == "/api/chat"
    assert request["body"]["model"] == "qwen3:4b"
    assert said(request["body"]["messages"]) == [ASKED]
    assert (names["user_msg"].user, names["ai_msg"].user) == (names["user"], names["chat"].llm_user)
    row, printed = Chat.objects.get(), capsys.readouterr().out.splitlines()
    assert printed == [
        "I am a model.",
        str(row.input_tokens_count),
        str(row.output_tokens_count),
        "<QuerySet [<Message: user 1: Hi, tell me who you are.>]>",
    ]


def test_the_tokens_of_a_chat(server, capsys):
    """The counters are what the provider reported, summed over the calls; here for another model id."""
    on_openai = SEND.replace("ollama_chat/qwen3:4b", "openai/gpt-4o-mini")
    run(USER, CREATE, on_openai, on_openai, COUNT)
    assert capsys.readouterr().out.splitlines()[2:] == ["80", "10"]
    assert [request["path"] for request in chats(server)] == ["/v1/chat/completions"] * 2
    assert list(LLMCall.objects.values_list("input_tokens", "output_tokens")) == [(40, 5)] * 2
    assert Chat.objects.get().cost > 0


def test_the_whole_history_is_sent_with_each_message(server):
    """A second message goes out with the first and its answer; one without the history goes out by itself."""
    names = run(USER, CREATE, SEND, SEND)
    names["chat"].send_user_msg_to_llm(names["model_name"], "Only this.", include_chat_history=False)
    sent = [said(request["body"]["messages"]) for request in chats(server)]
    assert sent == [[ASKED], [ASKED, ("assistant", "I am a model."), ASKED], [("user", "Only this.")]]
    assert [said(call.sent_messages()) for call in LLMCall.objects.order_by("pk")] == sent


def test_the_models_that_the_document_shows():
    """Message has the document's fields and types, and the chat its counters."""
    assert {"type", "chat", "text", "user", "date_created", "date_updated"} <= {
        field.name for field in Message._meta.fields
    }
    assert {"user", "assistant", "system"} <= set(Message.Type.values)
    assert Message._meta.get_field("type").max_length == 10
    assert Message._meta.get_field("chat").remote_field.related_name == "messages"
    assert {"input_tokens_count", "output_tokens_count"} <= {field.name for field in Chat._meta.fields}
    assert Message._meta.get_field("date_created").auto_now_add
    assert Message._meta.get_field("date_updated").auto_now
