"""The runnable site: SQLite, the admin, demo configs. What differs between places comes from the environment."""

import os
from pathlib import Path
from typing import Any

from django.urls import reverse_lazy

from llm_wrapper.conf import sqlite_options

BASE_DIR = Path(__file__).resolve().parent.parent

# A fixed key is fine for a demo on this machine only; set DJANGO_SECRET_KEY anywhere else.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "demo-only-not-secret-" + "x" * 40)
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_ace",
    "ninja",  # the API's pages at /docs, from this server
    "llm_wrapper",
    "example",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"
ASGI_APPLICATION = "example.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SQLITE_PATH", BASE_DIR / "demo.sqlite3"),
        # Writers wait instead of failing, and take their lock at the start of a transaction.
        "OPTIONS": sqlite_options(),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Workers share which configs are cooling through this cache, so it must be one that processes share.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": os.environ.get("CACHE_PATH", BASE_DIR / ".cache"),
    }
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

LLM_CONFIGS_PATH = os.environ.get("LLM_CONFIGS_PATH", BASE_DIR / "llm_configs")


def _page(title: str, icon: str, app: str, model: str, page: str = "changelist") -> dict[str, Any]:
    """An entry of the admin's sidebar, for those who may see the page."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_{page}"),
        "permission": lambda request: (
            request.user.has_perm(f"{app}.view_{model}") or request.user.has_perm(f"{app}.change_{model}")
        ),
    }


# The admin's look. Fonts, icons and scripts are unfold's own static files: no page loads from elsewhere.
UNFOLD = {
    "SITE_TITLE": "llm_wrapper",
    "SITE_HEADER": "llm_wrapper",
    "SITE_SUBHEADER": "Prompts, tools and conversations",
    "SITE_SYMBOL": "forum",
    "COLORS": {
        "primary": {
            "50": "oklch(97.7% .014 205)",
            "100": "oklch(94.5% .035 205)",
            "200": "oklch(89.5% .065 206)",
            "300": "oklch(82% .095 208)",
            "400": "oklch(74% .115 212)",
            "500": "oklch(63% .115 218)",
            "600": "oklch(53% .105 224)",
            "700": "oklch(46% .09 226)",
            "800": "oklch(40% .075 228)",
            "900": "oklch(35% .06 230)",
            "950": "oklch(27% .05 232)",
        },
    },
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Edit",
                "items": [
                    _page("Prompt templates", "edit_note", "llm_wrapper", "prompttemplate"),
                    _page("Tools", "build", "llm_wrapper", "tool"),
                    _page("LLM configs", "tune", "llm_wrapper", "llmconfigname"),
                ],
            },
            {
                "title": "Read",
                "separator": True,
                "items": [
                    _page("Chats", "forum", "llm_wrapper", "chathistory"),
                    _page("Turns", "sync_alt", "llm_wrapper", "turn"),
                    _page("Steps", "notes", "llm_wrapper", "message"),
                    _page("LLM calls", "cell_tower", "llm_wrapper", "llmcall"),
                    _page("Costs", "payments", "llm_wrapper", "llmcall", "costs"),
                    _page("Tool calls", "handyman", "llm_wrapper", "toolcall"),
                    _page("Prompt versions", "history", "llm_wrapper", "promptversion"),
                ],
            },
            {
                "title": "People",
                "separator": True,
                "items": [
                    _page("Users", "person", "auth", "user"),
                    _page("Groups", "group", "auth", "group"),
                    _page("API tokens", "key", "llm_wrapper", "apitoken"),
                ],
            },
        ],
    },
}
LOGIN_REDIRECT_URL = "/admin/"
