"""The whole schema under random requests: whatever is sent, what comes back is what the schema says, and no 5xx."""

from __future__ import annotations

import itertools
import os

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from llm_wrapper.api.urls import api
from llm_wrapper.models import ChatHistory, Message
from llm_wrapper.testing import ScriptedModel
from llm_wrapper.transport import using

from .callers import Caller, by_token, make_user

pytestmark = [pytest.mark.wire, pytest.mark.django_db(transaction=True)]

# Requests in all, shared out among what takes any input.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10000"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = {
    operation["operationId"]: bool(operation["parameters"] or "requestBody" in operation)
    for path in api.get_openapi_schema(path_prefix="")["paths"].values()
    for operation in path.values()
}
WITH_INPUT = [name for name, takes_input in OPERATIONS.items() if takes_input]
CASES = [(name, GenerationMode.POSITIVE) for name in OPERATIONS] + [
    (name, GenerationMode.NEGATIVE) for name in WITH_INPUT
]


@pytest.fixture
def schema(transactional_db):
    return schemathesis.openapi.from_wsgi("/openapi.json", get_wsgi_application())


@pytest.fixture
def sender(make_prompt) -> Caller:
    make_prompt(system_prompt_template="{{ plan }}", api_access="users", api_context_vars=["plan"])
    return by_token(make_user("owner"))


@pytest.mark.parametrize(("name", "mode"), CASES, ids=lambda value: str(value))
def test_h8_any_request_gets_an_answer_of_the_schema(name, mode, schema, sender):
    """No request makes a server error, or a status, a type or a body that the schema does not name; one that does not
    fit it is refused. Half of those that name a session name one that is there."""
    operation = schema.find_operation_by_id(name)
    answers = ScriptedModel(["An answer."] * 100_000)
    count = itertools.count()

    @seed(4711)
    @settings(
        max_examples=EXAMPLES // (2 * len(WITH_INPUT)) + 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case, known):
        next(count)
        if known and "session_id" in case.path_parameters and mode.is_positive:
            case.path_parameters["session_id"] = str(_answered(sender).public_id)
            if "message_id" in case.path_parameters:
                case.path_parameters["message_id"] = Message.objects.get(type="assistant").pk
        response = case.call(headers={"Authorization": f"Bearer {sender.key}"})
        case.validate_response(response, checks=CHECKS)

    with using(answers):
        ask()
    asked = next(count)
    assert asked >= EXAMPLES // (2 * len(WITH_INPUT)) or not OPERATIONS[name]


def _answered(sender: Caller) -> ChatHistory:
    """The sender's session with an answer; a new one where the last was deleted, archived or grew long."""
    chat = ChatHistory.objects.filter(status="active", turn_count__range=(1, 20)).first()
    if chat is None:
        ChatHistory.objects.all().delete()
        sender.send(sender.start(), "hi")
        chat = ChatHistory.objects.get()
    return chat
