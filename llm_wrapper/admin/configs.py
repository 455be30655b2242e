"""Config names, with the YAML behind each: everything but its secrets."""

from __future__ import annotations

from typing import Any

import yaml
from django.contrib import admin, messages
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from llm_wrapper.configs import Configs, Cooling, LLMConfig, Problem, cooling, get_configs
from llm_wrapper.models import LLMConfigName

from . import formats
from .base import ReadOnlyAdmin, badge, row_link


@admin.register(LLMConfigName)
class LLMConfigNameAdmin(ReadOnlyAdmin):
    """The names that prompts may point at. The files are changed on the server, never here."""

    actions = ()
    change_form_template = "admin/llm_wrapper/config.html"
    list_display = ("name", "state", "config_class", "model_id", "tools", "weight")
    search_fields = ("name",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # A name may outlive its file; to remove it changes no file.
        return bool(request.user.has_perm("llm_wrapper.delete_llmconfigname"))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        configs = get_configs()
        resting = cooling(row.name for row in changelist.result_list)
        for row in changelist.result_list:
            row.state = ConfigState(row.name, configs, resting.get(row.name))
        return changelist

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "GET" and self.has_view_permission(request):
            for text in folder_remarks():
                messages.warning(request, text)
        return super().changelist_view(request, extra_context)

    def shown(self, request: HttpRequest, obj: LLMConfigName) -> dict[str, Any]:
        state = ConfigState(obj.name, get_configs(), cooling([obj.name]).get(obj.name))
        return {
            "state": state,
            "prompts": [row_link(prompt) for prompt in obj.prompt_templates.order_by("name")],
            "facts": [
                ("Status", state.badge),
                ("Class", state.config_class),
                ("Model", state.model),
                ("Tools", state.tools),
                ("Weight", state.weight),
            ],
        }

    @admin.display(description="status")
    def state(self, row: Any) -> SafeString | str:
        return row.state.badge

    @admin.display(description="class")
    def config_class(self, row: Any) -> str:
        return row.state.config_class

    @admin.display(description="model")
    def model_id(self, row: Any) -> str:
        return row.state.model

    @admin.display(description="tools")
    def tools(self, row: Any) -> str:
        return row.state.tools

    @admin.display(description="weight")
    def weight(self, row: Any) -> str:
        return row.state.weight


def folder_remarks() -> list[str]:
    """What is wrong with the folder of configs, and which files have no row here yet."""
    configs = get_configs()
    remarks = [str(problem) for problem in configs.problems()]
    rows = set(LLMConfigName.objects.values_list("name", flat=True))
    new = [name for name in configs.names() if name not in rows]
    if new:
        remarks.append(f"Not in this list yet: {', '.join(new)}. Run manage.py llm_configs sync.")
    return remarks


class ConfigState:
    """What the YAML file of a name says, and whether its config can be used now."""

    def __init__(self, name: str, configs: Configs, rest: Cooling | None) -> None:
        self.config: LLMConfig | None = configs.get(name) if name in configs else None
        self.rest = rest
        files = (f"{name}.yml", f"{name}.yaml")
        self.problems: list[Problem] = [item for item in configs.problems() if item.file in files]

    @property
    def badge(self) -> SafeString | str:
        if self.config is None:
            return badge("broken" if self.problems else "no file")
        if self.rest is not None:
            return badge("cooling", title=self.cooling)
        return badge("broken" if self.problems else "ready")

    @property
    def cooling(self) -> str:
        """For how long the config still rests, and why; '' if it does not."""
        if self.rest is None:
            return ""
        left = formats.seconds(self.rest.seconds_left)
        return f"Rests for {left} more after: {self.rest.reason or 'a failure'}"

    @property
    def config_class(self) -> str:
        return str(self.config.values["llm_config_class"]) if self.config else "-"

    @property
    def model(self) -> str:
        return self.config.model() if self.config else "-"

    @property
    def tools(self) -> str:
        if self.config is None:
            return "-"
        return "enabled" if self.config.tools_enabled else "off"

    @property
    def weight(self) -> str:
        return f"{self.config.weight:g}" if self.config else "-"

    @property
    def yaml(self) -> str:
        """The file's content as YAML; of a secret only whether it is set."""
        if self.config is None:
            return ""
        return yaml.safe_dump(self.config.public(), sort_keys=False, allow_unicode=True)
