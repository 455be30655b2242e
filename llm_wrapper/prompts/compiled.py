"""Compiled templates, kept by their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from types import TracebackType
from typing import Any, cast

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from .budget import Budget
from .codegen import BoundedCodeGenerator
from .environment import BoundedContext, PromptEnvironment
from .syntax import Unusable, read

ENVIRONMENT = PromptEnvironment()
KEPT = 256


@dataclass(frozen=True)
class Compiled:
    """A template that can be rendered, also by several threads at once.

    `names` are the context variables that it may look up. Of these, `guarded` ones may be missing since the
    template asks whether they are there, and `assigned` ones since it may set them itself.
    """

    template: Template
    names: frozenset[str]
    guarded: frozenset[str]
    assigned: frozenset[str]

    def render(self, values: Mapping[str, Any], budget: Budget) -> str:
        """Renders within the budget. `values` must be plain data; errors come as they are raised."""
        context = self.template.new_context(dict(values))
        cast(BoundedContext, context).budget = budget
        return "".join(self.template.root_render_func(context))

    def line(self, traceback: TracebackType | None) -> int | None:
        """The line of the template in which an error was raised."""
        found = None
        while traceback is not None:
            if traceback.tb_frame.f_globals.get("__jinja_template__") is self.template:
                found = traceback.tb_lineno
            traceback = traceback.tb_next
        return None if found is None else self.template.get_corresponding_lineno(found)


@lru_cache(maxsize=KEPT)
def compiled(text: str) -> Compiled:
    """Compiles a template, or raises Unusable. Nothing of it runs."""
    syntax = read(ENVIRONMENT, text)
    source = StringIO()
    generator = BoundedCodeGenerator(ENVIRONMENT, None, None, source)
    try:
        generator.visit(syntax.tree)
        code = compile(source.getvalue(), "<prompt>", "exec")
    except TemplateSyntaxError as error:
        raise Unusable([(error.lineno, str(error.message))]) from None
    except (SyntaxError, RecursionError, MemoryError) as error:  # MemoryError: Python's parser gave up
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise Unusable([(None, f"The template cannot be compiled: {reason}.")]) from None
    return Compiled(
        template=Template.from_code(ENVIRONMENT, code, ENVIRONMENT.globals),
        names=frozenset(generator.looked_up),
        guarded=frozenset(syntax.guarded),
        assigned=frozenset(syntax.assigned),
    )
