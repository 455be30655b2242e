"""What `manage.py check` says of logs that would hold conversations."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from llm_wrapper.checks import litellm_log


@pytest.fixture(autouse=True)
def quiet(settings, monkeypatch):
    """Production, with a litellm that nobody told to be verbose."""
    settings.DEBUG = False
    monkeypatch.delenv("LITELLM_LOG", raising=False)
    monkeypatch.setitem(sys.modules, "litellm", SimpleNamespace(set_verbose=False))
    logger = logging.getLogger("LiteLLM")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def test_i7_a_quiet_litellm_gives_no_message():
    """I7: where nobody asked for more there is nothing to say."""
    assert litellm_log(None) == []


@pytest.mark.parametrize("value", ["DEBUG", "debug", " Debug "])
def test_i7_litellms_environment_variable_is_told(monkeypatch, value):
    """I7: LITELLM_LOG=DEBUG in production is a warning that says what to do."""
    monkeypatch.setenv("LITELLM_LOG", value)
    (message,) = litellm_log(None)
    assert message.id == "llm_wrapper.W012"
    assert "LITELLM_LOG" in message.msg
    assert "LITELLM_LOG" in message.hint


@pytest.mark.parametrize("value", ["INFO", "WARNING", ""])
def test_i7_other_levels_are_no_matter(monkeypatch, value):
    """I7: a level at which litellm writes no prompts is not warned of."""
    monkeypatch.setenv("LITELLM_LOG", value)
    assert litellm_log(None) == []


def test_i7_litellms_switch_is_told(monkeypatch):
    """I7: so is litellm.set_verbose, where the project has imported litellm and set it."""
    monkeypatch.setattr(sys.modules["litellm"], "set_verbose", True)
    (message,) = litellm_log(None)
    assert "set_verbose" in message.msg


@pytest.mark.parametrize("name", ["LiteLLM", "root"])
def test_i7_a_logger_at_debug_is_told(name):
    """I7: and the logging configuration, which litellm's logger inherits from the root."""
    logger, child = logging.getLogger(None if name == "root" else name), logging.getLogger("LiteLLM")
    level = logger.level
    child.setLevel(logging.NOTSET)
    logger.setLevel(logging.DEBUG)
    try:
        (message,) = litellm_log(None)
    finally:
        logger.setLevel(level)
    assert "LOGGING" in message.hint


def test_i7_in_debug_nothing_is_said(settings, monkeypatch):
    """I7: a developer's machine may be verbose."""
    settings.DEBUG = True
    monkeypatch.setenv("LITELLM_LOG", "DEBUG")
    assert litellm_log(None) == []


def test_i7_the_check_does_not_import_litellm():
    """I7: `manage.py check` names it without the seconds that the import of litellm takes."""
    script = (
        "import sys, django; django.setup(); from django.conf import settings; settings.DEBUG = False\n"
        "from llm_wrapper.checks import litellm_log\n"
        "print(litellm_log(None)[0].id, 'litellm' in sys.modules)"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "example.test_settings", "LITELLM_LOG": "DEBUG"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "llm_wrapper.W012 False\n", done.stderr
