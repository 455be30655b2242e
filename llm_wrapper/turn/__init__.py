"""One turn: a user message up to the final answer. See docs/turn.md for the picture."""

from .drivers import adrive, drive, refuse_running_loop
from .job import TurnJob, checked_message
from .machine import resume_turn, run_turn

__all__ = ["TurnJob", "adrive", "checked_message", "drive", "refuse_running_loop", "resume_turn", "run_turn"]
