"""Compiles templates so that nothing runs while compiling, and everything is counted while rendering."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame


class BoundedCodeGenerator(CodeGenerator):
    """Jinja's compiler without constant folding, with each operation sent through the budget or environment.

    `looked_up` holds, afterwards, the names that the template looks up in its context.
    """

    def __init__(self, environment: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(environment, *args, **kwargs)
        # The optimizer computes constant expressions while compiling: `{{ 'a' * 10**9 }}`.
        self.optimizer = None
        self.looked_up: set[str] = set()
        self._iterated: set[int] = set()

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("budget = context.budget")

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        for action, name in frame.symbols.loads.values():
            if action == "resolve" and name is not None and name not in self.environment.globals:
                self.looked_up.add(name)

    # -- output ----------------------------------------------------------------------------------------

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        # Output is folded here even where the optimizer is off.
        if isinstance(node, nodes.TemplateData):
            return node.data
        raise nodes.Impossible

    def _output_const_repr(self, group: Any) -> str:
        return f"budget.text({''.join(group)!r})"

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("budget.emit(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")

    # -- loops -----------------------------------------------------------------------------------------

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        self._iterated.add(id(node.iter))
        super().visit_For(node, frame)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if id(node) not in self._iterated:
            return super().visit(node, *args, **kwargs)
        self.write("budget.each(")
        super().visit(node, *args, **kwargs)
        return self.write(")")

    def visit_Assign(self, node: nodes.Assign, frame: Frame) -> None:
        self.newline(node)  # so that a failed check of a namespace has a line
        super().visit_Assign(node, frame)

    # -- expressions -----------------------------------------------------------------------------------

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._call("budget.join((", node.nodes, frame, "))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._call("budget.items([", node.items, frame, "])")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._call("budget.items((", node.items, frame, "))")
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("budget.mapping((")
        for pair in node.items:
            self._call("(", [pair.key, pair.value], frame, "), ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        if len(node.ops) == 1:
            self.write(f"environment.compared(budget, {node.ops[0].op!r}, ")
            self._call("", [node.expr, node.ops[0].expr], frame, ")")
            return
        self._call("environment.compare(budget, ", [node.expr], frame, "")
        for operand in node.ops:
            # A function, since `a < b < c` looks at c only where a < b.
            self.write(f"{operand.op!r}, lambda: ")
            self.visit(operand.expr, frame)
            self.write(", ")
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._call("environment.cut(budget, ", [node.node], frame, "")
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                if part is None:
                    self.write("None, ")
                else:
                    self._call("", [part], frame, "")
            self.write(")")
        else:
            name = "getitem" if isinstance(node.arg, nodes.Const) else "lookup"
            self._call(f"environment.{name}(", [node.node, node.arg], frame, ")")

    def _call(self, before: str, arguments: list[nodes.Expr], frame: Frame, after: str) -> None:
        """Writes expressions, each followed by a comma."""
        self.write(before)
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(after)
