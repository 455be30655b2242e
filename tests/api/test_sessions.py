"""Sessions and messages: what a user does with them besides sending."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from llm_wrapper.models import ChatHistory, LLMCall, Message, Turn
from llm_wrapper.testing import delayed, scripted_model, tool_call

from .callers import by_token, make_user


def titles(response) -> list[str]:
    return [item["title"] for item in response.json()["items"]]


def test_sessions_are_listed_page_by_page_the_last_used_first(owner, stranger):
    """Each of a user's sessions is on exactly one page; those of others are on none."""
    for number in range(7):
        owner.start(title=f"s{number}")
    stranger.start(title="not yours")
    used = owner.get("/sessions?search=s2").json()["items"][0]["session_id"]
    with scripted_model("ok"):
        owner.send(f"/sessions/{used}", "hi")
    found, cursor = [], ""
    while cursor is not None:
        page = owner.get(f"/sessions?limit=3&cursor={cursor}" if cursor else "/sessions?limit=3")
        found, cursor = found + titles(page), page.json()["next"]
    assert found == ["s2", "s6", "s5", "s4", "s3", "s1", "s0"]


@pytest.mark.parametrize("cursor", ["x", "e30", "bnVsbA", "WyJ4IiwxXQ", "WyIyMDI2LTAxLTAxIiwxXQ", "%00", "WzFlOTld"])
def test_a_cursor_of_ones_own_making_is_422(owner, cursor):
    """Text that is no cursor of the list is refused, in both lists."""
    session = owner.start()
    for path in (f"/sessions?cursor={cursor}", f"{session}/messages?cursor={cursor}"):
        response = owner.get(path)
        assert (response.status_code, response.json()["code"]) == (422, "bad_request"), path


def test_sessions_are_found_by_title_and_text(owner):
    """Search looks at titles and at what was said, whatever the case; not at what is hidden."""
    owner.start(title="Invoices of May")
    session = owner.start(title="other")
    with scripted_model("The parcel is in Lisbon."):
        owner.send(session, "Where is it?")
    Message.objects.create(
        chat=ChatHistory.objects.get(title="other"), position=9, type="system", text="secret instructions"
    )
    assert titles(owner.get("/sessions?search=invoices")) == ["Invoices of May"]
    assert titles(owner.get("/sessions?search=LISBON")) == ["other"]
    assert titles(owner.get("/sessions?search=secret")) == []
    assert titles(owner.get("/sessions?search=100%25_")) == []
    assert owner.get("/sessions?search=%00").status_code == 200


def test_a_session_is_renamed_archived_and_deleted(owner):
    """A new name and status are kept; an archived session takes no message; a deleted one is gone, its cost is not."""
    session = owner.start()
    with scripted_model("ok"):
        owner.send(session, "hi")
    changed = owner("PATCH", session, {"title": "Mine", "status": "archived"})
    assert (changed.json()["title"], changed.json()["status"]) == ("Mine", "archived")
    refused = owner.send(session, "more")
    assert (refused.status_code, refused.json()["code"]) == (409, "session_archived")
    assert titles(owner.get("/sessions?status=archived")) == ["Mine"]
    assert titles(owner.get("/sessions?status=active")) == []
    assert owner("PATCH", session, {"status": "active"}).json()["title"] == "Mine"
    assert owner("DELETE", session).status_code == 204
    assert owner.get(session).status_code == 404
    assert not Message.objects.exists()
    assert owner.get("/usage").json()["calls"] == 1


@pytest.mark.parametrize("field", ["id", "user", "user_id", "cost", "total_cost", "role", "public_id", "created_at"])
def test_h6_nothing_else_can_be_set(owner, stranger, field):
    """A field that is not offered is refused by name, and nothing is changed."""
    session = owner.start(title="before")
    before = ChatHistory.objects.values().get()
    bodies = {
        ("POST", "/sessions/"): {},
        ("PATCH", session): {"title": "after"},
        ("POST", f"{session}/messages"): {"message": "hi"},
    }
    for (method, path), body in bodies.items():
        response = owner(method, path, {**body, field: stranger.user.pk})
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][-1] == field
    assert ChatHistory.objects.values().get() == before


def test_f8_a_message_has_no_role_and_a_session_no_code(owner):
    """A caller cannot speak as the system, nor name a path of code."""
    session = owner.start()
    for body in ({"message": "hi", "role": "system"}, {"message": "hi", "agent_path": "os.system"}):
        assert owner.post(f"{session}/messages", body).status_code == 422
    assert owner.post("/sessions/", {"agent_path": "os.system"}).status_code == 422
    assert not Message.objects.exists()


def test_an_answer_is_rated(owner, stranger):
    """A thumb and a comment are kept with the answer, replaced as a whole, and only its own session has them."""
    session = owner.start()
    with scripted_model("ok"):
        reply = owner.send(session, "hi").json()["reply"]["id"]
    path = f"{session}/messages/{reply}/rating"
    rated = owner("PUT", path, {"thumb": "down", "comment": "Too short\x00."}).json()
    assert (rated["thumb"], rated["comment"]) == ("down", "Too short\ufffd.")
    assert ChatHistory.objects.get().chat_history[-1]["thumb"] == -1
    assert owner("PUT", path, {}).json()["thumb"] is None
    assert owner.get(session).json()["messages"][-1]["comment"] == ""
    asked = Message.objects.get(type="user").pk
    for wrong in (asked, 10**12, 0, -1, "x", 2**70):
        response = owner("PUT", f"{session}/messages/{wrong}/rating", {"thumb": "up"})
        assert response.status_code in (404, 422), wrong
    assert owner("PUT", path, {"thumb": 1}).status_code == 422
    other = stranger.start()
    assert stranger("PUT", f"{other}/messages/{reply}/rating", {"thumb": "up"}).status_code == 404


def test_the_last_answer_is_given_anew(owner):
    """Regenerating puts a new answer in the old one's place; both are paid for, and the old one is not sent."""
    session = owner.start()
    with scripted_model("First.", "Old.", "New.") as model:
        owner.send(session, "one")
        owner.send(session, "two")
        anew = owner.post(f"{session}/regenerate").json()
    assert anew["reply"]["content"] == "New."
    assert [message["content"] for message in anew["messages"]] == ["one", "First.", "two", "New."]
    assert [message["content"] for message in model.requests[2].messages] == ["one", "First.", "two"]
    assert owner.get(f"{session}/usage").json()["calls"] == 3


def test_without_a_message_there_is_nothing_to_give_anew(owner):
    """A session without messages says so."""
    response = owner.post(f"{owner.start()}/regenerate")
    assert (response.status_code, response.json()["code"]) == (409, "cannot_regenerate")


# -- idempotency -----------------------------------------------------------------------------------------


def test_b2_a_repeated_key_gives_the_stored_reply(owner):
    """The same key and message give the first reply again, also after others; another message with that key is refused;
    one that failed says so."""
    session = owner.start()
    with scripted_model("One.", "Two.") as model:
        first = owner.send(session, "hi", Idempotency_Key="a")
        owner.send(session, "more", Idempotency_Key="b")
        again = owner.send(session, "hi", Idempotency_Key="a")
    assert again.json()["reply"] == first.json()["reply"]
    assert len(model.requests) == 2
    other = owner.send(session, "something else", Idempotency_Key="a")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert owner.send(owner.start(), "other", Idempotency_Key="a").status_code == 200


@pytest.mark.parametrize("key", ["", " " * 201, "x" * 201, "caf\xe9", "tab\there"])
def test_b2_a_key_that_cannot_be_one_is_refused(owner, key):
    """Keys are short and printable."""
    response = owner.send(owner.start(), "hi", Idempotency_Key=key)
    assert response.status_code == 422
    assert not Turn.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_b2_two_sends_with_one_key_at_once_are_one_message():
    """While the first is answered the second is 409 and may come back; after that it gets the same reply. One call."""
    owner = by_token(make_user("owner"))
    session = owner.start()
    barrier = threading.Barrier(2)

    def send(_):
        try:
            caller = type(owner)(owner.user, owner.key)
            barrier.wait(10)
            return caller.send(session, "hi", Idempotency_Key="k")
        finally:
            connections.close_all()

    with scripted_model(delayed(0.5, "Once.")), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(send, range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        again = owner.send(session, "hi", Idempotency_Key="k")
    assert again.json()["reply"]["content"] == "Once."
    assert LLMCall.objects.count() == 1
    assert Message.objects.filter(type="user").count() == 1


WHOSE = """
def whose(user_id: int) -> str:
    '''Say whose it is.'''
    return f"user {user_id}"
"""


# -- prompts ---------------------------------------------------------------------------------------------


@pytest.fixture
def support(make_prompt, make_tool):
    """A prompt that users may use, with one variable that they may set, and a tool that is given the user's id."""
    return make_prompt(
        system_prompt_template="Plan {{ plan }}.",
        initial_messages_templates=[{"role": "assistant", "content": "Hello!"}],
        tools=[make_tool(WHOSE, context_params=["user_id"])],
        api_access="users",
        api_context_vars=["plan", "user_id"],
    )


def test_a_session_runs_on_a_prompt(owner, support):
    """A session on a prompt begins with what the prompt says, which is sent and not shown; its variables hold on."""
    session = owner.start(prompt="support", context_vars={"plan": "pro"})
    with scripted_model("ok", "ok") as model:
        owner.send(session, "hi")
        shown = owner.send(session, "more").json()["messages"]
    assert [message["content"] for message in model.requests[1].messages] == ["Plan pro.", "Hello!", "hi", "ok", "more"]
    assert [message["content"] for message in shown] == ["hi", "ok", "more", "ok"]


def test_f8_the_server_says_who_the_user_is(owner, support):
    """Identity comes from the login. It cannot be sent, even where a prompt lists it, and tools get it."""
    session = owner.start(prompt="support", context_vars={"plan": "pro"})
    for path, body in (
        ("/sessions/", {"prompt": "support", "context_vars": {"plan": "pro", "user_id": 1}}),
        (f"{session}/messages", {"message": "hi", "context_vars": {"user_id": 1}}),
        (f"{session}/regenerate", {"context_vars": {"user_id": 1}}),
    ):
        if path.endswith("regenerate"):
            with scripted_model("ok"):
                owner.send(session, "hi")
        response = owner.post(path, body)
        assert (response.status_code, response.json()["code"]) == (422, "context_variable_not_allowed")
        assert "user_id" in response.json()["detail"]
        assert "Allowed: plan." in response.json()["detail"]
    with scripted_model(tool_call("whose"), "Done."):
        owner.send(session, "whose?")
    results = Message.objects.filter(type="tool").values_list("text", flat=True)
    assert [f"user {owner.user.pk}" in result for result in results] == [True]


def test_missing_variables_are_all_named(owner, support):
    """A prompt's variables that are missing are 422 with their names, and no session is made."""
    response = owner.post("/sessions/", {"prompt": "support"})
    assert (response.status_code, response.json()["code"]) == (422, "missing_context_variables")
    assert "plan" in response.json()["detail"]
    assert not ChatHistory.objects.exists()


def test_a_prompt_is_for_whom_it_is_open_to(owner, support):
    """A prompt is used by those that `api_access` names, and by nobody from the moment it is closed."""
    member = by_token(make_user("staff", is_staff=True))
    session = owner.start(prompt="support", context_vars={"plan": "pro"})
    for access, statuses in (("users", [200, 200]), ("staff", [422, 200]), ("nobody", [422, 422])):
        type(support).objects.filter(pk=support.pk).update(api_access=access)
        body = {"prompt": "support", "context_vars": {"plan": "pro"}}
        assert [caller.post("/sessions/", body).status_code for caller in (owner, member)] == statuses
        assert ("support" in owner.get("/prompts").content.decode()) is (access == "users")
    refused = owner.send(session, "hi")
    assert (refused.status_code, refused.json()["code"]) == (422, "not_available")


def test_e7_a_session_whose_prompt_was_deleted_can_be_read(owner, support):
    """It takes no message that would be answered without its prompt, and says so."""
    session = owner.start(prompt="support", context_vars={"plan": "pro"})
    with scripted_model("ok"):
        owner.send(session, "hi")
    support.delete()
    refused = owner.send(session, "more")
    assert (refused.status_code, refused.json()["code"]) == (409, "prompt_gone")
    assert owner.get(session).json()["messages"][-1]["content"] == "ok"


def test_what_a_tool_call_took_is_part_of_its_answer(owner, support):
    """The tokens of the calls that asked for tools are in the answer's, so that messages add up to the total."""
    session = owner.start(prompt="support", context_vars={"plan": "pro"})
    with scripted_model(tool_call("whose"), "All done."):
        sent = owner.send(session, "whose?").json()
    assert [message["content"] for message in sent["messages"]] == ["whose?", "All done."]
    assert sent["reply"]["tokens"] == 5 + 2
    assert sum(message["tokens"] for message in sent["messages"]) == sent["total_tokens"] == 7


def test_unknown_prompts_and_configs_are_named(owner, make_prompt):
    """A prompt or config that does not exist is told the same way as one that is not open."""
    make_prompt("closed")
    for body in ({"prompt": "closed"}, {"prompt": "no\x00ne"}, {"config": "none"}):
        response = owner.post("/sessions/", body)
        assert (response.status_code, response.json()["code"]) == (422, "not_available")


def test_a_session_begins_with_the_config_that_was_asked_for(owner, settings):
    """`config` answers first; LLM_WRAPPER_API_CONFIGS says which ones there are."""
    settings.LLM_WRAPPER_API_CONFIGS = ["demo", "demo-b", "gone"]
    for name in ("demo", "demo-b"):
        with scripted_model("ok"):
            assert owner.send(owner.start(config=name), "hi").json()["reply"]["config"] == name
    assert [item["config"] for item in owner.get("/models").json()] == ["demo", "demo-b"]
    assert owner.post("/sessions/", {"config": "demo-no-tools"}).status_code == 422


def test_a_project_says_what_the_server_knows_of_a_caller(owner, stranger, make_prompt, settings):
    """LLM_WRAPPER_API_CONTEXT names a function whose variables reach the prompt, and that callers cannot overrule."""
    settings.LLM_WRAPPER_API_CONTEXT = "tests.api.callers.tenant_of"
    make_prompt(system_prompt_template="{{ tenant }}", api_access="users", api_context_vars=["tenant"])
    for caller in (owner, stranger):
        with scripted_model("ok") as model:
            caller.send(caller.start(prompt="support"), "hi")
        assert model.requests[0].messages[0]["content"] == f"tenant of {caller.user.username}"
    refused = owner.post("/sessions/", {"prompt": "support", "context_vars": {"tenant": "acme"}})
    assert (refused.status_code, refused.json()["code"]) == (422, "context_variable_not_allowed")
    assert owner.get("/prompts").json() == [{"prompt": "support", "context_vars": [], "required": []}]
