"""The forms for tools and prompts, and those for a look at what is not saved yet."""

from __future__ import annotations

from typing import Any

from django import forms

from llm_wrapper import prompts, tools, validation
from llm_wrapper.errors import PromptError, ToolDefinitionError
from llm_wrapper.models import PromptTemplate, PromptVersion, Tool

from .formats import pretty
from .widgets import CodeField, JSONField, JSONListField, NamesField, code_editor, switch, text_input


class PromptTemplateForm(forms.ModelForm):
    """A prompt template. `restored` is the version whose content the form starts with, where one is."""

    restored: PromptVersion | None = None

    class Meta:
        model = PromptTemplate
        fields = (
            "name",
            "llm_config_names",
            "system_prompt_template",
            "user_prompt_template",
            "initial_messages_templates",
            "required_kwargs",
            "logged_context_vars",
            "tools",
            "model_params",
            "replay_rendered",
            "history_window",
            "history_tokens",
            "summarise_left_out",
            "summary_instructions",
            "api_access",
            "api_context_vars",
        )
        field_classes = {
            "system_prompt_template": CodeField,
            "user_prompt_template": CodeField,
            "initial_messages_templates": JSONListField,
            "required_kwargs": NamesField,
            "logged_context_vars": NamesField,
            "model_params": JSONField,
            "summary_instructions": CodeField,
            "api_context_vars": NamesField,
        }
        widgets = {
            "system_prompt_template": code_editor("twig", 10),
            "user_prompt_template": code_editor("twig", 3),
            "initial_messages_templates": code_editor("json", 3),
            "required_kwargs": text_input(),
            "logged_context_vars": text_input(),
            "model_params": code_editor("json", 2),
            "summarise_left_out": switch(),
            "summary_instructions": code_editor("text", 2),
            "api_context_vars": text_input(),
        }
        labels = {
            "required_kwargs": "Required variables",
            "logged_context_vars": "Logged variables",
            "initial_messages_templates": "Initial messages",
            "model_params": "Model parameters",
            "history_window": "Messages at most",
            "history_tokens": "Tokens at most",
            "summarise_left_out": "Sum up what is left out",
            "summary_instructions": "Instructions for the summary",
            "api_access": "API access",
            "api_context_vars": "Variables that callers may set",
        }
        help_texts = {
            "required_kwargs": "Context variables that must be given: question, plan",
            "logged_context_vars": "Context variables that are stored with each user message: plan",
            "api_context_vars": "Context variables that callers of the API may set: plan. Never one that says who "
            "the user is.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.restored is not None:
            kwargs["initial"] = {**(kwargs.get("initial") or {}), **version_initial(self.restored)}
        super().__init__(*args, **kwargs)
        if "api_access" in self.fields:  # not there for those who may only view
            self.fields["api_access"].required = False  # a form without it leaves it as it is

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        _add_errors(self, validation.prompt_errors(data))
        _add_errors(self, validation.api_errors(data.get("api_context_vars") or ()))
        return data


def version_initial(version: PromptVersion) -> dict[str, Any]:
    """The content of a version as initial values of a prompt's form. Tools are found by name."""
    content = version.content
    names = [tool["name"] for tool in content["tools"]]
    return {
        "system_prompt_template": content["system"],
        "user_prompt_template": content["user"],
        "initial_messages_templates": content["initial_messages"],
        "required_kwargs": content["required_kwargs"],
        "logged_context_vars": content["logged_context_vars"],
        "model_params": content["model_params"],
        "replay_rendered": content["replay_rendered"],
        "history_window": content["history_window"],
        # Versions of earlier releases do not hold these.
        "history_tokens": content.get("history_tokens"),
        "summarise_left_out": content.get("summarise_left_out", False),
        "summary_instructions": content.get("summary_instructions", ""),
        "tools": list(Tool.objects.filter(name__in=names)),
    }


class PreviewForm(forms.Form):
    """What a preview of a prompt needs of the form that is open, and the example that it renders."""

    system_prompt_template = CodeField(required=False)
    user_prompt_template = CodeField(required=False)
    initial_messages_templates = JSONListField(required=False)
    required_kwargs = NamesField(required=False)
    logged_context_vars = NamesField(required=False)
    preview_message = CodeField(required=False, label="Example message")
    preview_context = JSONField(required=False, label="Example context variables")

    #: The messages that a model would get, after a successful validation.
    rendered: list[dict[str, Any]]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if self.errors:
            return data
        spec = validation.prompt_spec(data)
        _add_errors(self, validation.prompt_errors(spec))
        if self.errors:
            return data
        try:
            self.rendered = prompts.preview(spec, data["preview_message"], data["preview_context"])
        except PromptError as error:
            _add_errors(self, validation.by_field([error]))
        return data


class ToolForm(forms.ModelForm):
    """A tool. Its spec and context params are derived from its code where they are empty, or where asked."""

    derive = forms.BooleanField(
        required=False,
        widget=switch(),
        label="Derive from code",
        help_text="Make the spec, the context params and their defaults anew from the function's signature "
        "and docstring. Where the spec is empty this happens in any case.",
    )

    class Meta:
        model = Tool
        fields = (
            "name",
            "tool_code",
            "derive",
            "tool_json_spec",
            "context_params",
            "default_values_for_non_llm_params",
            "idempotent",
            "timeout",
            "max_memory",
            "max_output",
        )
        field_classes = {
            "tool_code": CodeField,
            "tool_json_spec": JSONField,
            "context_params": NamesField,
            "default_values_for_non_llm_params": JSONField,
        }
        widgets = {
            "tool_code": code_editor("python", 14),
            "tool_json_spec": code_editor("json", 6),
            "context_params": text_input(),
            "default_values_for_non_llm_params": code_editor("json", 2),
        }
        labels = {
            "tool_json_spec": "Tool JSON spec",
            "default_values_for_non_llm_params": "Defaults of the context params",
        }
        help_texts = {
            "context_params": "Parameters that the model neither sees nor sets: user_id. "
            "Their values come from the context variables.",
        }

    def clean(self) -> dict[str, Any]:
        return _clean_tool(self, super().clean() or {})


CODE_FIELDS = {"tool_code", "tool_json_spec", "context_params", "default_values_for_non_llm_params"}


def _clean_tool(form: Any, data: dict[str, Any]) -> dict[str, Any]:
    if form.errors.keys() & CODE_FIELDS:
        return data
    try:
        data.update(derived(data))
    except ToolDefinitionError as error:
        _add_errors(form, validation.by_field([error]))
        return data
    _add_errors(form, validation.tool_errors(data))
    return data


def derived(data: dict[str, Any]) -> dict[str, Any]:
    """The fields that a tool's code gives, where the spec is empty or `derive` asks for them."""
    if data.get("tool_json_spec") and not data.get("derive"):
        return {}
    described = tools.describe(data["tool_code"], tuple(data.get("context_params") or ()))
    return {
        "tool_json_spec": dict(described.spec),
        "context_params": list(described.context_params),
        "default_values_for_non_llm_params": {
            **described.defaults,
            **(data.get("default_values_for_non_llm_params") or {}),
        },
    }


class ToolPreviewForm(forms.Form):
    """What the model would see of the tool whose form is open."""

    name = forms.CharField(required=False)
    tool_code = CodeField(required=True)
    derive = forms.BooleanField(required=False)
    tool_json_spec = JSONField(required=False)
    context_params = NamesField(required=False)
    default_values_for_non_llm_params = JSONField(required=False)

    def clean(self) -> dict[str, Any]:
        return _clean_tool(self, super().clean() or {})

    @property
    def visible_json(self) -> str:
        """The function object as the model gets it, as JSON."""
        return pretty(tools.visible_spec(validation.tool_spec(self.cleaned_data)))


def _add_errors(form: Any, errors: validation.Errors) -> None:
    """Errors on the fields of a form; those of a field that it lacks concern the form as a whole."""
    for field, found in errors.items():
        form.add_error(field if field in form.fields else None, found)
