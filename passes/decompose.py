"""Composite ops into the primitives that every backend runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tracegrad.ir import ops
from tracegrad.ir.graph import INPUT, Graph, Node, postorder, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.types import TupleType
from tracegrad.passes.base import Pass, has_subgraphs, with_subgraphs

# What a node became: one node, or the parts of a several-result op.
Value = Node | tuple[Node, ...]


@dataclass(frozen=True)
class Decompose(Pass):
    """`softmax(x)` -> `exp(x - max(x)) / sum(...)`, except for ops named in `claimed`.

    `claimed` are the composites that the backend runs natively. Runs after autodiff, which
    differentiates composites whole.
    """

    name: ClassVar[str] = "decompose"
    claimed: frozenset[str] = frozenset()

    def run(self, graph: Graph) -> Graph:
        if not any(self._applies(node) or has_subgraphs(node.attrs) for node in graph.nodes):
            return graph
        new: dict[Node, Value] = {node: node for node in graph.inputs}
        self._expand([node for node in graph.nodes if node.op is not INPUT], new)
        return graph.with_outputs(_single(new[node]) for node in graph.outputs)

    def _applies(self, node: Node) -> bool:
        return node.op.decompose is not None and node.op.name not in self.claimed

    def _expand(self, nodes: list[Node], new: dict[Node, Value]) -> None:
        """Enter what each of `nodes` becomes into `new`; the nesting of composites is shallow."""
        for node in nodes:
            if node.op is ops.proj:
                source = new[node.inputs[0]]
                if isinstance(source, tuple):
                    new[node] = source[node.attrs["index"]]
                    continue
            inputs = tuple(_single(new[operand]) for operand in node.inputs)
            if self._applies(node):
                new[node] = self._decomposed(node, inputs)
            elif has_subgraphs(node.attrs):
                new[node] = with_subgraphs(node, inputs, self.run)
            else:
                new[node] = rebuild(node, inputs)

    def _decomposed(self, node: Node, inputs: tuple[Node, ...]) -> Value:
        assert node.op.decompose is not None
        with at(node.loc.through(f"decompose({node.op.name})")):
            result = node.op.decompose(*inputs, **node.attrs)
        parts = result if isinstance(result, tuple) else (result,)
        known = set(inputs)
        inside: dict[Node, Value] = {operand: operand for operand in inputs}
        emitted = postorder(parts, stop=known.__contains__)
        self._expand([each for each in emitted if each not in known], inside)
        if isinstance(node.type, TupleType) and isinstance(result, Node):
            return inside[result]  # one several-result op in place of another
        values = tuple(_single(inside[part]) for part in parts)
        return values if isinstance(node.type, TupleType) else values[0]


def _single(value: Value) -> Node:
    assert isinstance(value, Node), "only proj reads a several-result op"
    return value
