"""What `manage.py check` says of configs."""

import pytest

from llm_wrapper.configs import check_cache, check_files

from .conftest import CANARY

GROQ = "llm_config_class: GroqConfig\nmodel_name: m\napi_key: {}\n"


def found(messages) -> list[str]:
    assert all(message.hint for message in messages)
    assert "CANARY" not in "".join(f"{message.msg} {message.hint}" for message in messages)
    return [message.id.removeprefix("llm_wrapper.") for message in messages]


def test_i2_every_problem_is_an_error_of_its_own(write):
    """One run of the checks lists all mistakes of all files."""
    write("a.yml", "llm_config_class: GroqConfig\n")
    write("b.yml", f"api_key: [{CANARY}")
    write("c.yml")
    messages = check_files()
    assert found(messages) == ["E001", "E001", "E001"]
    assert all(message.is_serious() for message in messages)
    assert "a.yml: api_key is required" in "".join(message.msg for message in messages)


def test_good_files_give_no_message(write):
    """A folder in order is silent, and so are demo configs, which have no key."""
    write("a.yml")
    assert check_files() == []


def test_a_folder_that_cannot_be_read(settings, tmp_path):
    """A wrong LLM_CONFIGS_PATH is an error that shows the path; one that is not set is a warning."""
    settings.LLM_CONFIGS_PATH = tmp_path / "nope"
    messages = check_files()
    assert found(messages) == ["E002"]
    assert str(tmp_path / "nope") in messages[0].hint
    settings.LLM_CONFIGS_PATH = None
    assert found(check_files()) == ["W004"]


@pytest.mark.parametrize(
    ("key", "debug", "ids"),
    [
        (CANARY, False, ["W001"]),
        (CANARY, True, []),
        ("${LLM_TEST_KEY}", False, []),
        ("${LLM_TEST_KEY:-}", False, []),
        ("${LLM_TEST_KEY:-" + CANARY + "}", False, ["W001"]),
    ],
)
def test_i2_a_key_in_clear_text_is_warned_of_outside_debug(write, settings, monkeypatch, key, debug, ids):
    """Keys belong into the environment; a default in the file is as clear as the key itself."""
    monkeypatch.setenv("LLM_TEST_KEY", "x")
    settings.DEBUG = debug
    write("a.yml", GROQ.format(key)).chmod(0o600)
    assert found(check_files()) == ids


def test_i2_a_clear_key_that_everyone_may_read(write, settings):
    """A world-readable file with a key in it is warned of, also while developing, until it is not."""
    settings.DEBUG = True
    path = write("a.yml", GROQ.format(CANARY))
    path.chmod(0o644)
    assert found(check_files()) == ["W002"]
    path.chmod(0o600)
    assert found(check_files()) == []


@pytest.mark.parametrize(
    ("backend", "debug", "ids"),
    [
        ("locmem.LocMemCache", False, ["W003"]),
        ("locmem.LocMemCache", True, []),
        ("dummy.DummyCache", False, ["W003"]),
        ("filebased.FileBasedCache", False, []),
    ],
)
def test_a_cache_that_workers_do_not_share(settings, tmp_path, backend, debug, ids):
    """Outside DEBUG there are several workers, and a cache of each one's own hides limits from the others."""
    settings.DEBUG = debug
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": str(tmp_path)}}
    assert found(check_cache()) == ids


def test_a_cache_alias_that_does_not_exist(settings):
    """A misspelt alias is found before the first turn."""
    settings.LLM_WRAPPER_CACHE = "nope"
    assert found(check_cache()) == ["E003"]
