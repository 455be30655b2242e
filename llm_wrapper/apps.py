from django.apps import AppConfig


class LLMWrapperConfig(AppConfig):
    name = "llm_wrapper"
    verbose_name = "LLM wrapper"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)
