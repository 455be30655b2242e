"""Settings of the test suite. DATABASE_URL and REDIS_URL (no database number) move it to PostgreSQL and Redis."""

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import settings
from .settings import *  # noqa: F403

SECRET_KEY = "test-" + "x" * 50
DEBUG = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LLM_CONFIGS_PATH = Path(__file__).resolve().parent.parent / "tests" / "llm_configs"

# A file, not memory: several threads use it, each with a connection of its own. One for each run of the suite.
_test_database = Path(tempfile.gettempdir()) / f"llm_wrapper-test-{os.getpid()}.sqlite3"
settings.DATABASES["default"]["TEST"] = {"NAME": _test_database}

if os.environ.get("DATABASE_URL"):
    _url = urlsplit(os.environ["DATABASE_URL"])
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
if os.environ.get("REDIS_URL"):
    # Each worker of a parallel run has a Redis database of its own, since tests empty their cache.
    _number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"{os.environ['REDIS_URL']}/{_number}",
        }
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
