"""One turn: a user message up to the final answer. See docs/turn.md for the picture."""

from .drivers import adrive, drive, refuse_running_loop
from .job import TurnJob
from .machine import run_turn

__all__ = ["TurnJob", "adrive", "drive", "refuse_running_loop", "run_turn"]
