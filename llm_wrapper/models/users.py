"""Users that no person is: for messages and answers that nobody wrote."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError
from django.db.models import CharField, EmailField

from llm_wrapper.errors import ConfigError


def service_user(username: str) -> Any:
    """The user of that name, for messages that no person wrote; made on demand, inactive and without a password.

    Raises ConfigError where the project's user model wants more than can be made up.
    """
    model = get_user_model()
    # Not the default manager, which may hide users that are inactive.
    users = model._base_manager
    found = users.filter(**{model.USERNAME_FIELD: username}).first()
    if found is not None:
        return found
    columns: dict[str, Any] = {"password": make_password(None)}
    for field in model._meta.concrete_fields:
        if field.name == "is_active":
            columns["is_active"] = False
        elif field.unique and not field.null and isinstance(field, CharField) and field.name != model.USERNAME_FIELD:
            columns[field.name] = f"{username}@users.invalid" if isinstance(field, EmailField) else username
    try:
        return users.get_or_create(**{model.USERNAME_FIELD: username}, defaults=columns)[0]
    except IntegrityError as error:
        raise ConfigError(
            f"The user {username!r}, for messages that no person wrote, could not be made: {str(error).strip()}. Make "
            "it yourself, inactive and with an unusable password (LLM_WRAPPER_DEFAULT_USERNAME and "
            "LLM_WRAPPER_LLM_USERNAME name these users)."
        ) from error
