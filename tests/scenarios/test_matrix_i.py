"""Secrets and configs: rows of group I that docs/reliability.md lists and that no other file covers."""

import json
import logging
import pickle
import sys
import traceback

import pytest
import yaml
from django.apps import apps
from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.views.debug import ExceptionReporter

from llm_wrapper import errors, signals
from llm_wrapper.models import LLMCall, LLMConfigName
from llm_wrapper.repositories import LLMCommunicationWrapper
from tests.admin import rows
from tests.transport.provider import Provider, fails, message, sends, silent, streams, text_chunks, tool_call
from tests.transport.test_secrets import everything_in

pytestmark = pytest.mark.django_db

KEY = "sk-canary-0123456789abcdef"
CLASSES = {
    "OpenAIConfig": {"endpoint": "{base}", "model_name": "gpt-4o-mini"},
    "AzureOpenAILLMConfig": {"endpoint": "{base}", "deployment_name": "x", "api_version": "2024-10-21"},
    "AnthropicConfig": {"endpoint": "{base}", "model_name": "claude-sonnet-4-5"},
    "GeminiConfig": {"endpoint": "{base}", "model_name": "gemini-2.5-flash"},
    "OpenAICompatibleConfig": {"endpoint": "{base}", "model_name": "x"},
}
FAILURES = {
    "refused key": fails(401, f"Incorrect API key provided: {KEY}."),
    "bad request": fails(400, f"Bad header: Bearer {KEY}"),
    "limited": fails(429, f"{KEY} is limited.", retry_after="3"),
    "server error": fails(500, KEY),
    "no JSON": sends(f"<html>{KEY}</html>".encode()),
    "no answer": sends(message("", finish="stop")),
    "cut off": streams(*text_chunks("Hello")[:-2], cut=True),
    "silent": silent,
}


@pytest.fixture
def provider():
    server = Provider()
    yield server
    server.stop()


@pytest.fixture
def write_config(provider, tmp_path, settings, db):
    """Write the config `main`, with its key in the file."""
    folder = tmp_path / "llm_configs"
    folder.mkdir()
    settings.LLM_CONFIGS_PATH = folder

    LLMConfigName.objects.create(name="main")

    def write(cls="OpenAIConfig", key=KEY, **more):
        keys = {name: value.format(base=provider.base) for name, value in CLASSES[cls].items()}
        text = yaml.safe_dump({"name": "main", "llm_config_class": cls, "api_key": key, **keys, **more})
        new = folder / "main.new"
        new.write_text(text)
        new.rename(folder / "main.yml")

    return write


def stored():
    """Every row of every table, with how Django would print it."""
    found = []
    for model in apps.get_models():
        for row in model._default_manager.all():
            found += [str(row), repr(row), *(f"{key}={value!r}" for key, value in vars(row).items())]
    return "\n".join(found)


def admin_pages():
    """All that the admin shows of the package's rows."""
    client = Client()
    client.force_login(rows.make_user("boss", superuser=True))
    found = []
    for model in apps.get_app_config("llm_wrapper").get_models():
        if not admin.site.is_registered(model):
            continue
        name = f"admin:llm_wrapper_{model._meta.model_name}"
        found.append(client.get(reverse(f"{name}_changelist")).content.decode())
        found += [client.get(reverse(f"{name}_change", args=[row.pk])).content.decode() for row in model.objects.all()]
    found += [
        client.get(reverse("admin:llm_wrapper_llmcall_sent", args=[call.pk])).content.decode()
        for call in LLMCall.objects.all()
    ]
    return "\n".join(found)


def pickled(value):
    try:
        return pickle.dumps(value).decode("latin-1")
    except Exception as error:  # noqa: BLE001 - what cannot be pickled carries nothing away, but its error might
        return "".join(traceback.format_exception(error))


# Every failure with one provider after the other; tests/transport/test_secrets.py has all pairs of them.
@pytest.mark.parametrize(("failure", "cls"), list(zip(FAILURES, [*CLASSES] * 2, strict=False)))
def test_i1_a_failed_turn_leaves_its_key_nowhere(
    provider, write_config, make_prompt, caplog, capfd, settings, cls, failure
):
    """I1: 8 failures of 5 providers, the key in the file and in the provider's own words: it is in no row, event, log
    line, output, error report, pickle or page of the admin."""
    settings.DEBUG = True  # the report of the error page is then at its longest
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="LiteLLM")
    write_config(cls, timeout=0.3 if failure == "silent" else 10)
    make_prompt(configs=("main",), system_prompt_template="S")
    provider.answers = [FAILURES[failure]]
    seen = []

    def listen(sender, event, **kwargs):
        seen.append(json.dumps(event.as_dict()) + repr(event))

    for signal in signals.SIGNAL_OF.values():
        signal.connect(listen)
    try:
        wrapper = LLMCommunicationWrapper(prompt_name="support")
        list(wrapper.stream_user_message("hi"))
    except errors.LLMWrapperError as error:
        report = ExceptionReporter(None, *sys.exc_info())
        found = report.get_traceback_html() + report.get_traceback_text() + pickled(error) + everything_in(error)
    else:
        pytest.fail("the turn did not fail")
    finally:
        for signal in signals.SIGNAL_OF.values():
            signal.disconnect(listen)
    assert provider.requests, "the provider was not asked"
    assert LLMCall.objects.get().status == "failed"
    assert len(seen) == 4
    assert any(record.name == "LiteLLM" for record in caplog.records), "litellm's own log was not looked at"
    captured = capfd.readouterr()
    sinks = {
        "error": found,
        "events": "\n".join(seen),
        "rows": stored(),
        "admin": admin_pages(),
        "wrapper": repr(wrapper) + repr(vars(wrapper)) + pickled(wrapper) + repr(wrapper.get_llm_config()),
        "log": caplog.text + repr([record.args for record in caplog.records]),
        "output": captured.out + captured.err,
    }
    assert [name for name, text in sinks.items() if KEY in text] == []


def test_i3_a_key_that_is_rotated_in_a_turn_counts_from_the_next_call(provider, write_config, make_prompt, make_tool):
    """I3: a file that is replaced while a call is under way does not disturb that call, and the very next call of the
    same turn sends the new key."""
    write_config(key="sk-old")
    make_prompt(configs=("main",), tools=[make_tool("tests.host_tools.order_state")])
    asks = message(None, finish="tool_calls", tool_calls=[tool_call("order_state", '{"order": 1}')])

    def rotates(handler):
        write_config(key="sk-new")
        handler.whole(asks)

    provider.answers = [rotates, sends(message("Done."))]
    wrapper = LLMCommunicationWrapper(prompt_name="support")
    assert wrapper.send_user_message_and_get_response("hi", {"user_id": 7}) == "Done."
    keys = [request["headers"]["authorization"] for request in provider.requests]
    assert keys == ["Bearer sk-old", "Bearer sk-new"]


def test_i7_debug_in_production_is_told_by_the_deploy_check(settings, capsys):
    """I7: `manage.py check --deploy` names DEBUG, which is Django's own check."""
    settings.DEBUG = True
    call_command("check", "--deploy", "--tag", "security")
    assert "security.W018" in capsys.readouterr().err
