"""Markers whose work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, rebuild
from tracegrad.passes.base import Pass, has_subgraphs, walk, with_subgraphs


@dataclass(frozen=True)
class DropMarkers(Pass):
    """`detach(x)` -> `x`, `rebind(old, new)` -> `new`: they speak to autodiff, which has run."""

    name: ClassVar[str] = "drop-markers"

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node.op is ops.detach:
                return inputs[0]
            if node.op is ops.rebind:
                return inputs[1]
            if has_subgraphs(node.attrs):
                return with_subgraphs(node, inputs, self.run)
            return rebuild(node, inputs)

        return walk(graph, visit)


@dataclass(frozen=True)
class DropFences(Pass):
    """`fence(x)` -> `x`: for a backend that runs nodes in order, after the last CSE."""

    name: ClassVar[str] = "drop-fences"

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node.op is ops.fence:
                return inputs[0]
            if has_subgraphs(node.attrs):
                return with_subgraphs(node, inputs, self.run)
            return rebuild(node, inputs)

        return walk(graph, visit)
