"""Text as every database can hold it."""

from __future__ import annotations

from typing import Any


def storable(value: Any) -> Any:
    """The value with every string in it made storable: PostgreSQL refuses NUL, and UTF-8 has no lone surrogates.

    Both become U+FFFD, the sign for a character that could not be shown.
    """
    if isinstance(value, str):
        if "\x00" in value:
            value = value.replace("\x00", "\ufffd")
        try:
            value.encode()
        except UnicodeEncodeError:
            value = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in value)
        return value
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
