"""The users of messages that no person wrote: made once, on any user model, and unable to log in."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.forms import PasswordResetForm
from django.db import connection

from llm_wrapper.chat import Chat
from llm_wrapper.models.users import service_user
from llm_wrapper.testing import scripted_model

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("llm-wrapper-user", "llm-wrapper-llm")


@pytest.mark.django_db
def test_they_cannot_log_in(client):
    """Both are inactive and have no password: not their name, and not an empty one, nor can they ask for a new one."""
    chat = Chat.create()
    with scripted_model("one"):
        ai_msg, user_msg = chat.call_llm("openai/x", "a")
    assert (user_msg.user.get_username(), ai_msg.user.get_username()) == NAMES
    for user in (user_msg.user, ai_msg.user):
        name = user.get_username()
        assert (user.is_active, user.has_usable_password(), user.is_staff, user.is_superuser) == (False,) * 4
        for password in (name, "", None):
            assert authenticate(username=name, password=password) is None
            assert not client.login(username=name, password=password)
        user.email = "service@example.com"
        user.save()
    assert not list(PasswordResetForm().get_users("service@example.com"))


@pytest.mark.django_db
def test_they_are_made_once_and_named_by_the_settings(settings):
    """Every chat uses the same two; other names make others, and a user who exists is used as he is."""
    settings.LLM_WRAPPER_LLM_USERNAME = "oracle"
    oracle = get_user_model().objects.create_user("oracle", password="x")
    with scripted_model("one", "two"):
        answers = [Chat.create().call_llm("openai/x", "a") for _ in range(2)]
    assert [ai_msg.user for ai_msg, _ in answers] == [oracle, oracle]
    assert sorted(get_user_model().objects.values_list("username", flat=True)) == ["llm-wrapper-user", "oracle"]
    oracle.refresh_from_db()
    assert oracle.is_active
    assert oracle.check_password("x")


@pytest.mark.django_db(transaction=True)
def test_many_may_need_them_first_at_the_same_moment():
    """Of threads that all find no such user one makes it, and the others get that one."""
    start, made, failed = threading.Barrier(8), [], []

    def work():
        try:
            start.wait(10)
            made.append(service_user("llm-wrapper-llm").pk)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(made) == 8
    assert set(made) == {get_user_model().objects.get().pk}


# -- other user models -----------------------------------------------------------------------------------------

SETTINGS = """
SECRET_KEY = "x" * 50
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "shop", "llm_wrapper"]
AUTH_USER_MODEL = "shop.User"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

BY_MAIL = """
import uuid
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models

class User(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    USERNAME_FIELD = "email"
    objects = BaseUserManager()
"""

UNIQUE_MAIL_AND_HIDING_MANAGER = """
from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models

class Active(UserManager):
    def get_queryset(self):
        return super().get_queryset().filter(is_active=True)

class User(AbstractUser):
    email = models.EmailField(unique=True)
    objects = Active()
"""

WANTS_MORE = """
from django.contrib.auth.models import AbstractUser
from django.db import models

class User(AbstractUser):
    born = models.DateField()
"""

TALK = """
import django
django.setup()
from django.core.management import call_command
call_command("makemigrations", "shop", verbosity=0)
call_command("migrate", verbosity=0)
from llm_wrapper.chat import Chat
from llm_wrapper.testing import scripted_model
from django.contrib.auth import get_user_model
with scripted_model("one", "two"):
    for _ in range(2):
        ai_msg, user_msg = Chat.create().call_llm("openai/x", "a")
users = get_user_model()._base_manager
print(users.count(), user_msg.user.get_username(), ai_msg.user.get_username())
print(*(user.has_usable_password() for user in users.all()))
"""


@pytest.mark.wire
@pytest.mark.parametrize(
    ("model", "printed", "error"),
    [
        (BY_MAIL, "2 llm-wrapper-user llm-wrapper-llm\nFalse False\n", ""),
        (UNIQUE_MAIL_AND_HIDING_MANAGER, "2 llm-wrapper-user llm-wrapper-llm\nFalse False\n", ""),
        (WANTS_MORE, "", "ConfigError: The user 'llm-wrapper-user', for messages that no person wrote, could not be"),
    ],
    ids=["by mail", "unique mail", "wants more"],
)
def test_a_project_may_have_its_own_user_model(tmp_path, model, printed, error):
    """A site whose users have no username, no `is_active`, a unique address or a manager that hides some gets its two
    users all the same; one that wants more is told to make them itself."""
    shop = tmp_path / "shop"
    (shop / "migrations").mkdir(parents=True)
    for path, content in {
        "shop_settings.py": SETTINGS,
        "shop/__init__.py": "",
        "shop/migrations/__init__.py": "",
        "shop/models.py": model,
    }.items():
        (tmp_path / path).write_text(content)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "DJANGO_SETTINGS_MODULE": "shop_settings"}
    done = subprocess.run([sys.executable, "-c", TALK], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.stdout == printed, done.stderr
    assert error in done.stderr
    assert (done.returncode == 0) is not bool(error)
