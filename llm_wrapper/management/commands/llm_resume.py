"""`manage.py llm_resume [--watch]`: end the turns whose worker died."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.core.management import BaseCommand, CommandParser
from django.db import close_old_connections

from llm_wrapper import history
from llm_wrapper.errors import LLMWrapperError
from llm_wrapper.recovery import resume

log = logging.getLogger("llm_wrapper")


class Command(BaseCommand):
    help = "End crashed turns: with an answer, or as failed where they cannot be answered."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--watch", action="store_true", help="Go on looking for crashed turns until stopped.")
        parser.add_argument("--every", type=float, default=2.0, help="Seconds between two looks with --watch.")
        parser.add_argument("--fail", action="store_true", help="Only end them as failed; call no model.")

    def handle(self, *args: Any, watch: bool, every: float, fail: bool, **options: Any) -> None:
        while True:
            found = self.settle(fail=fail)
            if not watch:
                self.stdout.write(f"{found} crashed turn(s).")
                return
            close_old_connections()
            time.sleep(every)

    def settle(self, *, fail: bool) -> int:
        turns = list(history.expired_turns().select_related("chat__prompt_template"))
        for turn in turns:
            if fail:
                history.repair(turn)
                self.stdout.write(f"{turn}: ended as failed")
                continue
            try:
                reply = resume(turn)
            except LLMWrapperError as error:
                self.stderr.write(f"{turn}: {error.code}: {error}")
            except Exception:
                log.exception("%s could not be resumed", turn)
                self.stderr.write(f"{turn}: failed in a way that is not known; the traceback is in the log")
            else:
                self.stdout.write(f"{turn}: {'answered' if reply is not None else 'ended, or alive after all'}")
        return len(turns)
