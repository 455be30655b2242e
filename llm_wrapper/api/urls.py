"""The addresses of the API: `path("api/", include("llm_wrapper.api.urls"))`."""

from django.urls import path

from llm_wrapper.errors import MissingExtra

try:
    from .site import api
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "ninja":
        raise
    raise MissingExtra("The REST API needs django-ninja. Install it: pip install 'llm_wrapper[api]'.") from error

__all__ = ["api", "urlpatterns"]

urlpatterns = [path("", api.urls)]
