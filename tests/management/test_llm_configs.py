"""`manage.py llm_configs` and the system checks."""

from io import StringIO

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command

from llm_wrapper import configs
from llm_wrapper.models import LLMConfigName
from llm_wrapper.repositories import LLMCommunicationWrapper
from llm_wrapper.testing import scripted_model

pytestmark = pytest.mark.django_db

DEMO = "llm_config_class: DemoConfig\n"


@pytest.fixture
def folder(tmp_path, settings):
    settings.LLM_CONFIGS_PATH = tmp_path
    (tmp_path / "one.yml").write_text(DEMO)
    return tmp_path


def run(*args):
    out, err = StringIO(), StringIO()
    call_command("llm_configs", *args, stdout=out, stderr=err)
    return out.getvalue() + err.getvalue()


def found():
    return {message.id: message for message in run_checks(tags=["llm_wrapper"])}


def test_sync_adds_rows_and_prunes_only_when_told(folder):
    """sync fills the table from the files, and deletes rows without a file only with --prune."""
    LLMConfigName.objects.create(name="gone")
    assert "added one" in run("sync")
    assert "kept gone" in run("sync")
    assert "deleted gone" in run("sync", "--prune")
    assert list(LLMConfigName.objects.values_list("name", flat=True)) == ["one"]
    assert "Nothing to do" in run("sync")


def test_check_reports_every_problem_and_fails(folder):
    """check names each bad file with its reason and exits with an error."""
    assert "no problem" in run("check")
    (folder / "two.yml").write_text("llm_config_class: Nope\n")
    (folder / "three.yml").write_text("a: [")
    err = StringIO()
    with pytest.raises(CommandError, match="2 problem"):
        call_command("llm_configs", "check", stderr=err)
    assert "two.yml" in err.getvalue()
    assert "three.yml" in err.getvalue()


def test_list_shows_what_cools(folder):
    """list shows each config with its model, and the ones that cool with the time left."""
    configs.cool("one", retry_after=50, reason="rate_limited")
    shown = run("list")
    assert "one: DemoConfig" in shown
    assert "cooling for 50 s (rate_limited)" in shown


def test_a_dropped_file_is_usable_at_once_and_a_broken_edit_keeps_the_last_good_one(folder, make_prompt):
    """A file that appears is usable without a restart; one that an editor breaks stays in force as it was, and the
    check says so."""
    make_prompt("two", configs=("two",))
    with pytest.raises(LLMCommunicationWrapper.LLMConfigsNotAvailable):
        LLMCommunicationWrapper(prompt_name="two")
    (folder / "two.yml").write_text(DEMO + "temperature: 0.5\n")
    with scripted_model("a", "b") as model:
        wrapper = LLMCommunicationWrapper(prompt_name="two")
        wrapper.send_user_message_and_get_response("hi")
        (folder / "two.yml").write_text(DEMO + "temperature: [")
        wrapper.send_user_message_and_get_response("hi")
    assert [request.config.params["temperature"] for request in model.requests] == [0.5, 0.5]
    (problem,) = configs.get_configs().problems()
    assert "two.yml" in str(problem.file)
    assert any("two.yml" in message.msg for message in run_checks(tags=["llm_wrapper"]))


def test_checks_name_rows_that_files_contradict(folder, make_prompt, make_tool):
    """A row without a file, a prompt without a config, and tools on a config that forbids them are reported."""
    (folder / "mute.yml").write_text(DEMO + "tools_enabled: false\n")
    make_prompt("bare", configs=())
    make_prompt("tooled", configs=("mute", "nofile"), tools=[make_tool("tests.host_tools.order_state")])
    messages = found()
    assert "nofile" in messages["llm_wrapper.E010"].msg
    assert "bare" in messages["llm_wrapper.W010"].msg
    assert "mute" in messages["llm_wrapper.W011"].msg
