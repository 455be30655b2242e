"""What every config is, whatever its provider."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..types import ConfigChoice, Credentials, Price
from .parse import KeyPath
from .schema import COMMON, Violation, check_params, looks_secret


class LLMConfig:
    """One config, as its YAML file gives it. Values are checked before an instance is made.

    A subclass sets `prefix` (what stands before the model's name in a litellm model id), `properties` (JSON
    Schema of its own keys; `writeOnly: true` marks a secret, and so does a name like `..._token`) and
    `requires`. Secrets are kept apart in `secrets`, so that no repr, pickle or debug page shows one;
    `values` holds the rest.
    """

    prefix: ClassVar[str] = ""
    properties: ClassVar[Mapping[str, Any]] = {}
    requires: ClassVar[tuple[str, ...]] = ()
    """Keys that the YAML must have, besides `llm_config_class`."""

    def __init__(self, values: Mapping[str, Any], from_environment: Collection[KeyPath] = ()) -> None:
        known = self.schema()["properties"]
        hidden = {key for key in values if _is_secret(key, known.get(key, {}))}
        self.values: dict[str, Any] = {key: value for key, value in values.items() if key not in hidden}
        self.secrets = Credentials({key: values[key] for key in hidden})
        self.name: str = self.values["name"]
        self.weight: float = self.values.get("weight", 1)
        self.tools_enabled: bool = self.values.get("tools_enabled", True)
        self._from_environment = frozenset(from_environment)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of this class's YAML."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": cls.__name__,
            "type": "object",
            "properties": {**COMMON, **cls.properties},
            "required": ["name", "llm_config_class", *cls.requires],
            "additionalProperties": False,
        }

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Violation]:
        """Pairs of path, like `("price", "input")`, and reason for what the schema cannot say.

        `values` holds only what the schema found right. Reasons must not repeat values: they are shown.
        """
        yield from check_params(values.get("params", {}))

    def choice(self) -> ConfigChoice:
        """What the transport needs to call this model."""
        price = self.values.get("price")
        return ConfigChoice(
            name=self.name,
            model=self.model(),
            params=self.call_params(),
            credentials=Credentials(self.connection()),
            tools_enabled=self.tools_enabled,
            timeout=self.values.get("timeout"),
            price=Price(**{key: Decimal(amount) for key, amount in price.items()}) if price else None,
            price_model=self.price_model(),
            stream=self.values.get("stream", True),
            context_window=self.values.get("context_window"),
        )

    def model(self) -> str:
        """The litellm model id."""
        return self.prefix + str(self.values["model_name"]).removeprefix(self.prefix)

    def call_params(self) -> dict[str, Any]:
        """Parameters of the call; they are stored with it and shown."""
        own = {key: self.values[key] for key in ("max_tokens", "temperature") if key in self.values}
        return own | copy.deepcopy(self.values.get("params", {}))

    def connection(self) -> dict[str, Any]:
        """Arguments of the call that say where it goes and with which key; they are never shown."""
        found: dict[str, Any] = {}
        if "endpoint" in self.values:
            found["api_base"] = self.values["endpoint"].rstrip("/")
        for key in ("api_version", "organization"):
            if key in self.values:
                found[key] = self.values[key]
        for key in ("api_key", "extra_headers"):
            if key in self.secrets:
                found[key] = copy.copy(self.secrets[key])
        return found

    def price_model(self) -> str | None:
        """The name under which a price table knows the model, where it differs from `model()`."""
        return self.values.get("price_model")

    def public(self) -> dict[str, Any]:
        """Everything that may be shown, fit for JSON; of a secret only whether it is set, and from where."""
        shown = copy.deepcopy(self.values)
        shown |= {"model": self.model(), "weight": self.weight, "tools_enabled": self.tools_enabled}
        if "endpoint" in shown:
            # The query of an address may hold a key.
            parts = urlsplit(shown["endpoint"])
            shown["endpoint"] = f"{parts.scheme}://{parts.netloc}{parts.path}"
        clear = self.clear_secrets()
        for key in self.schema()["properties"]:
            if key in self.secrets:
                shown[key] = "set" if key in clear else "from environment"
        return shown

    def clear_secrets(self) -> list[str]:
        """Keys whose secret stands in the file itself and does not come from the environment."""
        return sorted(key for key, value in self.secrets.items() if not self._all_from_environment((key,), value))

    def _all_from_environment(self, path: KeyPath, value: Any) -> bool:
        if isinstance(value, dict):
            return all(self._all_from_environment((*path, key), item) for key, item in value.items())
        return path in self._from_environment


def _is_secret(key: str, schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("writeOnly", looks_secret(key)))
