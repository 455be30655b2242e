"""Prompts: templates and context variables in, the text that a model reads out.

Templates are written by people who may edit prompts, not by the people who run the server, so they run
bounded: only plain data reaches them (`values`), only what is listed may be used (`environment`, `filters`,
`methods`), and every step and every character they make is counted before it is made (`budget`).
"""

from .params import model_params
from .rendering import logged, preview, remembered, render_initial, render_system, render_user
from .specs import check, referenced, require, required
from .values import plain

__all__ = [
    "check",
    "logged",
    "model_params",
    "plain",
    "preview",
    "referenced",
    "remembered",
    "render_initial",
    "render_system",
    "render_user",
    "require",
    "required",
]
