"""Configs that lead to a provider on loopback, which answers each of them as a test says."""

from __future__ import annotations

import yaml

from tests.transport.provider import Provider, says


class Upstream(Provider):
    """`answers` is an answer for each config, or a list of which the last one repeats; the others say "Here."."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.answers, self.names = folder, {}, []

    def add(self, name, **values):
        """Write the config's YAML file."""
        config = {"llm_config_class": "OpenAIConfig", "endpoint": self.base, "api_key": "sk-x", "model_name": name}
        (self.folder / f"{name}.yml").write_text(yaml.safe_dump({"name": name, **config, **values}))
        self.names.append(name)
        return name

    def next_answer(self, path, headers, body):
        with self._lock:
            self.requests.append({"body": body})
            answers = self.answers.get(body["model"], says("Here."))
            if not isinstance(answers, list):
                return answers
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def asked(self, name):
        """How many requests came for the config."""
        return sum(request["body"]["model"] == name for request in list(self.requests))

    @property
    def last_messages(self):
        return self.requests[-1]["body"]["messages"]
