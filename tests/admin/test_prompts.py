from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from llm_wrapper.models import LLMCall, PromptTemplate, PromptVersion

from . import rows

ADD = "admin:llm_wrapper_prompttemplate_add"
CHANGE = "admin:llm_wrapper_prompttemplate_change"
PREVIEW = "admin:llm_wrapper_prompttemplate_preview"


def form(**values: Any) -> dict[str, Any]:
    """A filled form as a browser posts it."""
    return {
        "name": "greeter",
        "llm_config_names": [],
        "system_prompt_template": "You greet {{ name }}.",
        "user_prompt_template": "",
        "initial_messages_templates": "[]",
        "required_kwargs": "name",
        "logged_context_vars": "",
        "tools": [],
        "model_params": "{}",
        "history_window": "",
        **values,
    }


def preview(client: Client, prompt: PromptTemplate | None = None, **values: Any) -> str:
    args = [prompt.pk] if prompt else []
    data = {"preview_message": "Hi", "preview_context": '{"name": "Ada"}', **values}
    response = client.post(reverse(PREVIEW, args=args), data)
    assert response.status_code == 200
    return response.content.decode()


def errors(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


# -- saving ----------------------------------------------------------------------------------------------


def test_a_saved_prompt_has_a_version_with_its_tools(boss: Client) -> None:
    """Saving in the admin makes a version at once, and it holds the tools that were chosen in the same form."""
    tool = rows.make_tool()
    assert boss.post(reverse(ADD), form(tools=[tool.pk])).status_code == 302
    version = PromptTemplate.objects.get().versions.get()
    assert [tool.name for tool in version.spec().tools] == ["Find orders"]
    assert version.spec().required_kwargs == ("name",)


def test_saving_without_a_change_makes_no_version(boss: Client) -> None:
    """Pressing save twice does not add a version that says the same."""
    boss.post(reverse(ADD), form())
    prompt = PromptTemplate.objects.get()
    boss.post(reverse(CHANGE, args=[prompt.pk]), form())
    assert prompt.versions.count() == 1


def test_templates_are_kept_as_written(boss: Client) -> None:
    """Blanks at the ends of a template are kept, and line ends are the same whichever browser sent them."""
    boss.post(reverse(ADD), form(system_prompt_template="  Hello\r\n{{ name }} \r\n"))
    assert PromptTemplate.objects.get().system_prompt_template == "  Hello\n{{ name }} \n"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("system_prompt_template", "Hello\r\n\r\n{{ name", "line 3: "),
        ("user_prompt_template", "{% if %}", "line 1: "),
        ("initial_messages_templates", '[\n{"role": "assistant"\n"content": ""}]', "line 3: "),
        ("initial_messages_templates", '[{"role": "assistant", "content": "a\\n{{ b"}]', "entry 1, line 2: "),
        ("initial_messages_templates", '[{"role": "tool", "content": "a"}]', "entry 1: "),
        ("initial_messages_templates", "{}", "This must be a list"),
        ("model_params", "[]", "This must be an object"),
        ("model_params", '{"temperature": NaN}', "NaN"),
        ("model_params", '{"a": "\\ud800"}', "surrogate"),
        ("model_params", '{"a": "\\u0000"}', "NUL"),
        ("model_params", "[" * 5000, "nested too deeply"),
        ("required_kwargs", "name, 100%s", "is not a name"),
        ("logged_context_vars", '["a", 1]', "is not a name"),
        ("logged_context_vars", '["a"', "not a valid list"),
    ],
)
def test_e5_an_error_stands_at_its_field_and_line(boss: Client, field: str, value: str, expected: str) -> None:
    """What is wrong with a prompt is refused on save, at the field where it is, with the line."""
    response = boss.post(reverse(ADD), form(**{field: value}))
    assert response.status_code == 200
    assert list(errors(response)) == [field]
    assert expected in errors(response)[field][0]
    assert not PromptTemplate.objects.exists()


def test_the_page_tells_the_editor_which_line_is_wrong(boss: Client) -> None:
    """The lines with errors are in the page for the marks in the editor."""
    response = boss.post(reverse(ADD), form(system_prompt_template="a\n{{ b"))
    assert 'data-llmw-field="system_prompt_template" data-llmw-line="2"' in response.content.decode()


def test_what_was_typed_comes_back_with_the_error(boss: Client) -> None:
    """A form with an error still holds the text that was typed, also where it is not JSON."""
    text = boss.post(reverse(ADD), form(model_params='{"a": <oops>}')).content.decode()
    assert "{&quot;a&quot;: &lt;oops&gt;}" in text


def test_stored_lists_of_names_are_shown_as_names(boss: Client) -> None:
    """Names are edited as words with commas, and a stored oddity is shown as it is."""
    prompt = rows.make_prompt(required_kwargs=["plan", "city"], logged_context_vars=["not a name"])
    text = boss.get(reverse(CHANGE, args=[prompt.pk])).content.decode()
    assert 'value="plan, city"' in text
    assert "[&quot;not a name&quot;]" in text


# -- preview ---------------------------------------------------------------------------------------------


def test_the_preview_renders_what_is_not_saved(boss: Client) -> None:
    """The preview shows the messages of the form as it is now, and saves nothing."""
    prompt = rows.make_prompt()
    before = list(PromptTemplate.objects.values())
    text = preview(
        boss,
        prompt,
        **form(
            user_prompt_template="Asked: {{ user_msg }}",
            initial_messages_templates='[{"role": "assistant", "content": "Welcome {{ name }}"}]',
        ),
    )
    assert "You greet Ada." in text
    assert "Welcome Ada" in text
    assert "Asked: Hi" in text
    assert list(PromptTemplate.objects.values()) == before
    assert not PromptVersion.objects.exists()
    assert not LLMCall.objects.exists()


def test_a_prompt_can_be_previewed_before_its_first_save(boss: Client) -> None:
    """The add page has a preview too, whatever is still missing from the form."""
    assert "You greet Ada." in preview(boss, **form(name=""))


def test_the_preview_names_all_missing_variables(boss: Client) -> None:
    """Variables that the example lacks are told all at once."""
    text = preview(boss, **form(system_prompt_template="{{ name }} {{ city }}", preview_context="{}"))
    assert "city, name" in text


def test_the_preview_shows_each_error_at_its_field(boss: Client) -> None:
    """Errors of several fields are shown together with field and line."""
    text = preview(boss, **form(system_prompt_template="{{ a", model_params="", preview_context="{"))
    assert "Example context variables" in text
    text = preview(boss, **form(system_prompt_template="\n{{ a", user_prompt_template="{{ b"))
    assert 'data-llmw-field="system_prompt_template" data-llmw-line="2"' in text
    assert 'data-llmw-field="user_prompt_template" data-llmw-line="1"' in text


def test_e2_an_endless_template_is_stopped_in_the_preview(boss: Client) -> None:
    """A template that would run for ever gives an error at its field."""
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    assert "System prompt template" in preview(boss, **form(system_prompt_template=loop))


def test_e4_the_example_message_is_never_a_template(boss: Client) -> None:
    """What stands for the user's message is shown as it is, not evaluated."""
    assert "{{ 7 * 191 }}" in preview(boss, **form(preview_message="{{ 7 * 191 }}"))


def test_h9_the_preview_escapes_what_it_renders(boss: Client) -> None:
    """Markup from templates, variables and messages stays text."""
    evil = "<script>alert(1)</script>"
    text = preview(
        boss,
        **form(
            system_prompt_template=evil + "{{ name }}",
            preview_context=json.dumps({"name": evil}),
            preview_message=evil,
        ),
    )
    assert text.count("&lt;script&gt;") == 3
    assert "<script>" not in text


def test_h5_the_preview_takes_post_with_csrf_only(boss: Client) -> None:
    """A preview is refused to a GET, and to a POST that another site could have made."""
    user = rows.make_user("editor", "change_prompttemplate", "add_prompttemplate")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert strict.post(reverse(PREVIEW), form()).status_code == 403
    assert strict.get(reverse(PREVIEW)).status_code == 405


def test_h1_the_preview_needs_a_permission(staff: Callable[..., Client]) -> None:
    """Staff may preview a prompt with its view or change permission, and a new one with the add permission."""
    prompt = rows.make_prompt()
    one, new = reverse(PREVIEW, args=[prompt.pk]), reverse(PREVIEW)
    allowed = {
        (): (403, 403),
        ("view_tool", "change_tool"): (403, 403),
        ("delete_prompttemplate",): (403, 403),
        ("view_prompttemplate",): (200, 403),
        ("change_prompttemplate",): (200, 200),
        ("add_prompttemplate",): (403, 200),
    }
    for codenames, expected in allowed.items():
        client = staff(*codenames)
        answers = client.post(one, form()).status_code, client.post(new, form()).status_code
        assert answers == expected, codenames


def test_who_may_only_look_previews_the_saved_prompt(staff: Callable[..., Client]) -> None:
    """Without the change permission the page has no fields to post, and the saved templates are rendered."""
    prompt = rows.make_prompt()
    text = preview(staff("view_prompttemplate"), prompt, preview_context='{"plan": "gold"}')
    assert "The customer is on the gold plan." in text


def test_a_preview_of_a_deleted_prompt_is_not_found(boss: Client) -> None:
    """A form whose row is gone gets 404."""
    assert boss.post(reverse(PREVIEW, args=[4711]), form()).status_code == 404


def test_the_form_suggests_the_variables_that_are_needed(boss: Client) -> None:
    """The example context starts with every variable the templates need."""
    prompt = rows.make_prompt(system_prompt_template="{{ plan }} {{ city }}")
    response = boss.get(reverse(CHANGE, args=[prompt.pk]))
    assert json.loads(response.context["example_context"]) == {"city": "example city", "plan": "example plan"}


def test_a_broken_row_can_still_be_opened(boss: Client) -> None:
    """A prompt that came from elsewhere with a template that does not parse can be opened and mended."""
    prompt = rows.make_prompt(system_prompt_template="{{ a", required_kwargs=["plan"])
    response = boss.get(reverse(CHANGE, args=[prompt.pk]))
    assert json.loads(response.context["example_context"]) == {"plan": "example plan"}


# -- versions --------------------------------------------------------------------------------------------


@pytest.fixture
def edited(db: None) -> PromptTemplate:
    """A prompt at version 2; version 1 had another text and a tool."""
    prompt = rows.make_prompt(tools=(rows.make_tool(),))
    prompt.current_version()
    prompt.system_prompt_template = "Something else."
    prompt.save()
    prompt.tools.clear()
    prompt.current_version()
    return prompt


def test_a_version_is_restored_into_the_form_and_not_saved(boss: Client, edited: PromptTemplate) -> None:
    """Restoring fills the form with the old content; it counts only once it is saved."""
    before = list(PromptTemplate.objects.values())
    response = boss.get(reverse(CHANGE, args=[edited.pk]), {"restore": "1"})
    text = response.content.decode()
    assert "You are the support assistant of Northwind Coffee." in text
    assert "Version 1 is in the form and not saved yet" in text
    assert [tool.name for tool in response.context["adminform"].form.initial["tools"]] == ["Find orders"]
    assert list(PromptTemplate.objects.values()) == before
    assert edited.versions.count() == 2


def test_a_restored_version_is_saved_as_the_newest(boss: Client, edited: PromptTemplate) -> None:
    """Saving the restored form adds a version with the content of the old one."""
    initial = boss.get(reverse(CHANGE, args=[edited.pk]), {"restore": "1"}).context["adminform"].form
    data = form(**{name: initial[name].value() for name in initial.fields if initial[name].value() is not None})
    data["name"] = "support"
    data.pop("replay_rendered", None)
    response = boss.post(reverse(CHANGE, args=[edited.pk]) + "?restore=1", data)
    assert response.status_code == 302
    numbers = edited.versions.order_by("number")
    assert [version.number for version in numbers] == [1, 2, 3]
    assert numbers[2].content == numbers[0].content


def test_the_form_says_which_tools_a_restore_does_not_bring_back(boss: Client, edited: PromptTemplate) -> None:
    """A tool that was edited since is named, as the version of a prompt does not restore it."""
    tool = rows.Tool.objects.get()
    tool.tool_code += "\n# changed\n"
    tool.save()
    text = boss.get(reverse(CHANGE, args=[edited.pk]), {"restore": "1"}).content.decode()
    assert "are not restored: Find orders" in text


@pytest.mark.parametrize("number", ["99", "x", "-1", "9" * 40, "\N{SUPERSCRIPT TWO}", ""])
def test_a_version_that_is_not_there_is_not_restored(boss: Client, edited: PromptTemplate, number: str) -> None:
    """An address with a number of no version opens the form as it is saved."""
    text = boss.get(reverse(CHANGE, args=[edited.pk]), {"restore": number}).content.decode()
    assert "Something else." in text


def test_only_who_may_change_restores(edited: PromptTemplate, staff: Callable[..., Client]) -> None:
    """With the view permission alone the address of a restore shows the prompt as it is saved."""
    client = staff("view_prompttemplate")
    text = client.get(reverse(CHANGE, args=[edited.pk]), {"restore": "1"}).content.decode()
    assert "not saved yet" not in text
    assert "Something else." in text
    assert "?restore=" not in text


def test_the_list_takes_a_fixed_number_of_queries(
    boss: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    """The list of prompts does not ask the database again for each prompt."""
    for number in range(8):
        rows.make_prompt(name=f"prompt {number}", configs=("azure-gpt",)).current_version()
    with django_assert_max_num_queries(10):
        text = boss.get(reverse("admin:llm_wrapper_prompttemplate_changelist")).content.decode()
    assert "azure-gpt" in text
    assert "v1" in text


# -- context budget and API ------------------------------------------------------------------------------


def test_the_context_budget_is_edited_with_the_prompt(boss: Client) -> None:
    """How much of a chat is sent, and whether the rest is summed up, stands in a part of the form of its own, which
    says what is sent in any case; a version holds it and restores it."""
    text = boss.get(reverse(ADD)).content.decode()
    for expected in ("Context budget", "Messages at most", "Tokens at most", "Sum up what is left out", "whole or not"):
        assert expected in text
    prompt = rows.make_prompt()
    prompt.current_version()
    wanted = {"history_window": "40", "history_tokens": "6000", "summary_instructions": "In one line.\r\nNo more."}
    response = boss.post(reverse(CHANGE, args=[prompt.pk]), form(**wanted, summarise_left_out="on"))
    assert response.status_code == 302
    prompt.refresh_from_db()
    assert (prompt.history_window, prompt.history_tokens, prompt.summarise_left_out) == (40, 6000, True)
    assert prompt.summary_instructions == "In one line.\nNo more."
    newest = prompt.versions.get(number=2)
    assert newest.content["history_tokens"] == 6000
    shown = boss.get(reverse("admin:llm_wrapper_promptversion_change", args=[newest.pk])).content.decode()
    assert "Tokens at most" in shown
    PromptTemplate.objects.filter(pk=prompt.pk).update(history_tokens=None, summarise_left_out=False)
    restored = boss.get(reverse(CHANGE, args=[prompt.pk]), {"restore": "2"}).context["adminform"].form
    assert restored["history_tokens"].value() == 6000
    assert restored["summarise_left_out"].value() is True


def test_a_version_of_an_earlier_release_is_restored(boss: Client, edited: PromptTemplate) -> None:
    """A version that was saved before there was a budget of tokens opens with none."""
    version = edited.versions.get(number=1)
    for key in ("history_tokens", "summarise_left_out", "summary_instructions"):
        del version.content[key]
    version.save()
    restored = boss.get(reverse(CHANGE, args=[edited.pk]), {"restore": "1"}).context["adminform"].form
    assert (restored["history_tokens"].value(), restored["summarise_left_out"].value()) == (None, False)


@pytest.mark.parametrize(
    ("names", "said"),
    [("plan, user_id", "user_id&#x27; says who the user is"), ("plan, not-a-name", "is not a name")],
)
def test_callers_of_the_api_are_not_given_what_says_who_they_are(boss: Client, names: str, said: str) -> None:
    """Variables for callers of the API are names, and none that says who the user is."""
    prompt = rows.make_prompt()
    response = boss.post(reverse(CHANGE, args=[prompt.pk]), form(api_access="users", api_context_vars=names))
    assert list(errors(response)) == ["api_context_vars"]
    assert said in response.content.decode()
    prompt.refresh_from_db()
    assert prompt.api_access == "nobody"
