"""A project that has the package and nothing that only its API needs."""

from example.test_settings import *  # noqa: F403
from example.test_settings import INSTALLED_APPS as _ALL

INSTALLED_APPS = [app for app in _ALL if app != "ninja"]
ROOT_URLCONF = "tests.api.plain_settings"
urlpatterns: list[object] = []
