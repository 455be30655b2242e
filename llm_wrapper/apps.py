from django.apps import AppConfig
from django.db.models.signals import pre_save
from django.utils.module_loading import autodiscover_modules


class LLMWrapperConfig(AppConfig):
    name = "llm_wrapper"
    verbose_name = "LLM wrapper"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)
        from .validation import fill_spec

        pre_save.connect(fill_spec, sender="llm_wrapper.Tool", dispatch_uid="llm_wrapper.fill_spec")

        # Each app's llm_tools.py registers its functions, as its admin.py registers its admin pages.
        autodiscover_modules("llm_tools")
