"""The verifier: re-derives what every node claims. After every pass at `TRACEGRAD_CHECK` >= 1."""

from __future__ import annotations

from typing import Any

from tracegrad.ir.const import Const
from tracegrad.ir.errors import IRError, VerifyError
from tracegrad.ir.graph import INPUT, Graph, Node, infer
from tracegrad.ir.loc import UNKNOWN
from tracegrad.ir.types import DType, TensorType, TupleType

CONTEXT = 10  # nodes shown before and after the one that is wrong


def verify(graph: Graph, stage: str | None = None, *, require_loc: bool = False) -> None:
    """Check that `graph` is well formed, sub-graphs too.

    Every node: its op is the registered one, its attributes are those of the schema and IR
    values, its inputs come before it, its type is what the type rule yields, and (with
    `require_loc`) it has a location. Raises VerifyError naming `stage` (the pass that made the
    graph), the node, the user's line and its neighbours in the text.
    """
    _Verifier(stage, require_loc).graph(graph, path="")


class _Verifier:
    def __init__(self, stage: str | None, require_loc: bool):
        from tracegrad.ir.ops import OPS  # ops import the graph, which must not need the verifier

        self.ops = OPS
        self.stage = stage
        self.require_loc = require_loc

    def graph(self, graph: Graph, path: str) -> None:
        path = f"{path}{graph.name}"
        try:
            nodes = graph.nodes
        except IRError as error:
            raise VerifyError(f"{self._where(path)}: {error}") from None
        self.signature(graph, path)
        position = {node: index for index, node in enumerate(nodes)}
        for index, node in enumerate(nodes):
            problem = self.node(node, index, position)
            if problem:
                raise VerifyError(self._report(graph, path, index, problem))
            for name, value in node.attrs.items():
                if isinstance(value, Graph):
                    self.graph(value, f"{path} / %{index} {node.op.name}.{name} / ")

    def signature(self, graph: Graph, path: str) -> None:
        """Inputs are distinct placeholders, names are unique, outputs are tensors."""
        for what, names in (("input", graph.input_names), ("output", graph.output_names)):
            if len(set(names)) != len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise VerifyError(f"{self._where(path)}: {what} names {twice} occur twice")
        if len(set(graph.inputs)) != len(graph.inputs):
            raise VerifyError(f"{self._where(path)}: one node stands twice among the inputs")
        for name, node in zip(graph.input_names, graph.inputs):
            if node.op is not INPUT:
                raise VerifyError(
                    f"{self._where(path)}: input {name!r} is not a placeholder: {node!r}"
                )
        for name, node in zip(graph.output_names, graph.outputs):
            if not isinstance(node.type, TensorType):
                raise VerifyError(
                    f"{self._where(path)}: output {name!r} has several parts; "
                    f"return its projections: {node!r}"
                )

    def node(self, node: Node, index: int, position: dict[Node, int]) -> str:
        """What is wrong with this node, or nothing."""
        if self.require_loc and (node.loc is UNKNOWN or node.loc == UNKNOWN):
            return "the node has no location; emit it inside `at(loc)` of the node it comes from"
        if node.op is INPUT:
            return "" if isinstance(node.type, TensorType) else "an input must be one tensor"
        if self.ops.get(node.op.name, node.op) is not node.op:
            return f"op {node.op.name!r} is not the registered op of that name"
        if tuple(node.attrs) != node.op.attrs:
            return f"attributes are {list(node.attrs)}, the schema says {list(node.op.attrs)}"
        for name, value in node.attrs.items():
            if not is_ir_value(value):
                kind = type(value).__name__
                return f"attribute {name!r} is a {kind}, which is no IR value: {value!r}"
        for operand in node.inputs:
            if position.get(operand, index) >= index:
                return f"an input comes after it: {operand!r}"
        try:
            derived = infer(node.op, node.inputs, node.attrs)
        except IRError as error:
            return f"the type rule refuses it: {error}"
        if derived != node.type:
            return f"its type is {node.type}, the type rule derives {derived}"
        return ""

    def _where(self, path: str) -> str:
        return f"after {self.stage}, graph {path!r}" if self.stage else f"graph {path!r}"

    def _report(self, graph: Graph, path: str, index: int, problem: str) -> str:
        from tracegrad.ir.text import node_lines

        node = graph.nodes[index]
        first = max(index - CONTEXT, 0)
        lines = node_lines(graph, first, index + CONTEXT + 1)
        shown = "\n".join(
            ("> " if first + offset == index else "  ") + line for offset, line in enumerate(lines)
        )
        return (
            f"{self._where(path)}, op {node.op.name!r}, node %{index}: {problem}\n"
            f"  at {node.loc}\n{shown}"
        )


def is_ir_value(value: Any) -> bool:
    """Whether an attribute may hold this: immutable, and known to text, JSON and fingerprint."""
    if isinstance(value, tuple):
        return all(is_ir_value(part) for part in value)
    if type(value) in (bool, int, float, str) or value is None:
        return True
    return isinstance(value, DType | Const | Graph | TensorType | TupleType)
