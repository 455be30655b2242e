"""What people edit: tools, prompt templates and the names of the configs they may use."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.core.validators import MinValueValidator
from django.db import IntegrityError, models, transaction

from llm_wrapper.types import PromptSpec, ToolSpec


class LLMConfigName(models.Model):
    """The name of a config, so that prompts can point at it. The YAML file holds everything else."""

    name = models.CharField(
        max_length=100,
        primary_key=True,
        help_text="Name of a YAML file in LLM_CONFIGS_PATH, without its ending.",
    )

    class Meta:
        verbose_name = "LLM config name"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Tool(models.Model):
    """A function that a model may ask for."""

    name = models.CharField(max_length=100, unique=True, help_text="Your name for the tool, shown in the admin.")
    tool_code = models.TextField(
        help_text="One Python function, run in the sandbox, or the dotted path of a function that is "
        "registered with @llm_tool."
    )
    tool_json_spec = models.JSONField(
        default=dict,
        blank=True,
        help_text="OpenAI function object: name, description, parameters. Leave empty to have it made from "
        "the function's signature and docstring.",
    )
    context_params = models.JSONField(
        default=list,
        blank=True,
        help_text='Parameters that the model neither sees nor sets, as a JSON list: ["user_id"]. '
        "Their values come from the context variables.",
    )
    default_values_for_non_llm_params = models.JSONField(
        default=dict,
        blank=True,
        help_text="Values for context params that the context variables do not hold.",
    )
    idempotent = models.BooleanField(
        default=False, help_text="Running it twice does no harm, so it may be run again after a crash."
    )
    timeout = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.05)],
        help_text="Seconds; empty: the setting's.",
    )
    max_memory = models.PositiveIntegerField(
        null=True, blank=True, help_text="Bytes that source may use in the sandbox; empty: the setting's."
    )
    max_output = models.PositiveIntegerField(
        null=True, blank=True, help_text="Characters of the result that the model gets; empty: the setting's."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def spec(self) -> ToolSpec:
        """The tool as a value."""
        bounds = {"timeout": self.timeout, "max_memory": self.max_memory, "max_output": self.max_output}
        return ToolSpec(
            name=self.name,
            code=self.tool_code,
            spec=self.tool_json_spec,
            context_params=tuple(self.context_params),
            defaults=self.default_values_for_non_llm_params,
            idempotent=self.idempotent,
            bounds={key: value for key, value in bounds.items() if value is not None},
        )


class PromptTemplate(models.Model):
    """What a conversation is made from: templates, tools, and the configs that may answer it."""

    class ApiAccess(models.TextChoices):
        NOBODY = "nobody"
        STAFF = "staff"
        USERS = "users", "every user"

    name = models.CharField(max_length=100, unique=True)
    llm_config_names = models.ManyToManyField(
        LLMConfigName,
        blank=True,
        related_name="prompt_templates",
        verbose_name="LLM configs",
        help_text="One of these is drawn at random for a chat; the others take over when it is limited.",
    )
    required_kwargs = models.JSONField(
        default=list,
        blank=True,
        help_text='Context variables that must be given, as a JSON list: ["question"].',
    )
    initial_messages_templates = models.JSONField(
        default=list,
        blank=True,
        help_text='Messages a chat starts with: [{"role": "assistant", "content": "Hello {{ name }}!"}].',
    )
    system_prompt_template = models.TextField(
        blank=True, default="", help_text="Jinja template, rendered anew for each turn."
    )
    user_prompt_template = models.TextField(
        blank=True,
        default="",
        help_text="Jinja template around the user's message, which it sees as {{ user_msg }}. "
        "Empty: the message itself.",
    )
    logged_context_vars = models.JSONField(
        default=list, blank=True, help_text="Context variables that are stored with each user message."
    )
    tools = models.ManyToManyField(Tool, blank=True, related_name="prompt_templates")
    model_params = models.JSONField(
        default=dict,
        blank=True,
        help_text='Call parameters that override the config\'s: {"temperature": 0.2}.',
    )
    history_window = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many of the newest messages are sent; empty: the setting's."
    )
    history_tokens = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How many tokens of messages are sent at most; empty: what the model's context window has room for.",
    )
    summarise_left_out = models.BooleanField(
        default=False,
        help_text="Sum up the messages that no longer fit, by a call of its own, and send the summary with each call.",
    )
    summary_instructions = models.TextField(
        blank=True, default="", help_text="What the model is told when it sums up. Empty: the package's own words."
    )
    api_access = models.CharField(
        max_length=10,
        choices=ApiAccess.choices,
        default=ApiAccess.NOBODY,
        help_text="Who may start a session on this prompt through the API.",
    )
    api_context_vars = models.JSONField(
        default=list,
        blank=True,
        help_text="Context variables that callers of the API may set, as a JSON list. Never list one that says who "
        "the user is.",
    )
    replay_rendered = models.BooleanField(
        default=False,
        help_text="Send earlier user messages as the user template rendered them, not as the user wrote them.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def content(self) -> dict[str, Any]:
        """Everything that shapes a turn, as JSON: what a PromptVersion keeps."""
        return {
            "system": self.system_prompt_template,
            "user": self.user_prompt_template,
            "initial_messages": self.initial_messages_templates,
            "required_kwargs": self.required_kwargs,
            "logged_context_vars": self.logged_context_vars,
            "model_params": self.model_params,
            "history_window": self.history_window,
            "history_tokens": self.history_tokens,
            "summarise_left_out": self.summarise_left_out,
            "summary_instructions": self.summary_instructions,
            "replay_rendered": self.replay_rendered,
            "tools": [
                {
                    "name": spec.name,
                    "code": spec.code,
                    "spec": spec.spec,
                    "context_params": list(spec.context_params),
                    "defaults": spec.defaults,
                    "idempotent": spec.idempotent,
                    "bounds": spec.bounds,
                }
                for spec in (tool.spec() for tool in self.tools.all())
            ],
        }

    def current_version(self) -> PromptVersion:
        """The version that holds what the rows say now; made if this content has none yet.

        The content is compared at each call, so it does not matter by which path the rows were changed
        (admin, fixture, `update()`, an edit of one of the tools).
        """
        content = self.content()
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        for _ in range(5):
            # Its content need not be read: it is what the digest stands for.
            newest = self.versions.order_by("-number").defer("content").first()
            if newest is not None and newest.digest == digest:
                newest.content = content
                return newest
            try:
                with transaction.atomic():
                    return self.versions.create(
                        name=self.name,
                        number=newest.number + 1 if newest else 1,
                        digest=digest,
                        content=content,
                    )
            except IntegrityError:
                continue  # another worker made the next version in between
        raise IntegrityError(f"Could not number a new version of prompt {self.name!r}: too many at once.")


class PromptVersion(models.Model):
    """One state of a prompt template and its tools. Never changed; it outlives its template."""

    prompt_template = models.ForeignKey(PromptTemplate, null=True, on_delete=models.SET_NULL, related_name="versions")
    name = models.CharField(max_length=100)
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    content = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["prompt_template", "number"], name="llmw_prompt_version_number")]

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"

    def spec(self) -> PromptSpec:
        """The version as a value that the turn can run."""
        # What a later release stored besides is passed over, so that its turns can be ended by this one.
        content = {key: value for key, value in self.content.items() if key in PromptSpec.__dataclass_fields__}
        known = [{key: tool[key] for key in tool if key in ToolSpec.__dataclass_fields__} for tool in content["tools"]]
        content["tools"] = tuple(ToolSpec(**{**row, "context_params": tuple(row["context_params"])}) for row in known)
        for key in ("initial_messages", "required_kwargs", "logged_context_vars"):
            content[key] = tuple(content[key])
        return PromptSpec(name=self.name, **content)
