"""Markers whose work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, Op, rebuild
from tracegrad.passes.base import Pass, has_subgraphs, walk, with_subgraphs


@dataclass(frozen=True)
class _Drop(Pass):
    """A marker becomes one of its operands: the number that `operand` has for its op."""

    operand: ClassVar[dict[Op, int]]

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node.op in self.operand:
                return inputs[self.operand[node.op]]
            if has_subgraphs(node.attrs):
                return with_subgraphs(node, inputs, self.run)
            return rebuild(node, inputs)

        return walk(graph, visit)


@dataclass(frozen=True)
class DropMarkers(_Drop):
    """`detach(x)` -> `x`, `rebind(old, new)` -> `new`: they speak to autodiff, which has run."""

    name: ClassVar[str] = "drop-markers"
    operand: ClassVar[dict[Op, int]] = {ops.detach: 0, ops.rebind: 1}


@dataclass(frozen=True)
class DropFences(_Drop):
    """`fence(x)` -> `x`: for a backend that runs nodes in order, after the last CSE."""

    name: ClassVar[str] = "drop-fences"
    operand: ClassVar[dict[Op, int]] = {ops.fence: 0}
