"""Django settings of the worker processes: the example site's, on the run's own folder and database."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from example import settings
from example.settings import *  # noqa: F403

DEBUG = False
_folder = Path(os.environ["BENCH_FOLDER"])
settings.DATABASES["default"]["NAME"] = _folder / os.environ.get("BENCH_SQLITE", "bench.sqlite3")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": _folder / "cache",
    }
}
LLM_CONFIGS_PATH = _folder / "llm_configs"

if os.environ.get("BENCH_DATABASE_URL"):
    _url = urlsplit(os.environ["BENCH_DATABASE_URL"])
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.path.lstrip("/"),
            "USER": unquote(_url.username or ""),
            "PASSWORD": unquote(_url.password or ""),
            "HOST": _url.hostname or "",
            "PORT": _url.port or "",
        }
    }
if os.environ.get("BENCH_EXTRA_APP"):
    INSTALLED_APPS = [*settings.INSTALLED_APPS, os.environ["BENCH_EXTRA_APP"]]
