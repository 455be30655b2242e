"""`manage.py llm_configs check|sync|list`: the YAML files and the rows that name them."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from llm_wrapper import configs
from llm_wrapper.models import LLMConfigName


class Command(BaseCommand):
    help = "Check the YAML configs, fill the LLMConfigName table from them, or list them."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("check", help="Report every problem of every file; exit 1 if there is one.")
        sync = actions.add_parser("sync", help="Add a row for each config that has none.")
        sync.add_argument("--prune", action="store_true", help="Also delete rows whose file is gone.")
        actions.add_parser("list", help="Show each config, its class and model, and whether it is cooling.")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if action == "check":
            self.check_files()
        elif action == "sync":
            self.sync(prune=options["prune"])
        else:
            self.list_configs()

    def check_files(self) -> None:
        problems = configs.get_configs().problems()
        for problem in problems:
            where = f"{problem.file}: {problem.key}" if problem.key else problem.file
            self.stderr.write(f"{where}: {problem.reason}")
        if problems:
            raise CommandError(f"{len(problems)} problem(s) in the config files.")
        self.stdout.write(f"{len(configs.get_configs().names())} config(s), no problem.")

    def sync(self, *, prune: bool) -> None:
        loaded = set(configs.get_configs().names())
        rows = set(LLMConfigName.objects.values_list("name", flat=True))
        LLMConfigName.objects.bulk_create([LLMConfigName(name=name) for name in sorted(loaded - rows)])
        for name in sorted(loaded - rows):
            self.stdout.write(f"added {name}")
        for name in sorted(rows - loaded):
            if prune:
                LLMConfigName.objects.filter(name=name).delete()
                self.stdout.write(f"deleted {name}")
            else:
                self.stdout.write(f"kept {name}, which has no file (--prune deletes it)")
        if loaded == rows:
            self.stdout.write(f"Nothing to do: {len(rows)} row(s), one for each file.")

    def list_configs(self) -> None:
        store = configs.get_configs()
        resting = configs.cooling(store.names())
        for name in sorted(store.names()):
            public = store.get(name).public()
            cooling = resting.get(name)
            rest = f", cooling for {cooling.seconds_left:.0f} s ({cooling.reason})" if cooling else ""
            tools = "tools on" if store.get(name).tools_enabled else "tools off"
            self.stdout.write(f"{name}: {public['llm_config_class']}, {store.get(name).choice().model}, {tools}{rest}")
        for problem in store.problems():
            self.stderr.write(f"{problem.file}: {problem.reason}")
