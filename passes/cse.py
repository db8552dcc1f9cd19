"""Common subexpressions: computed once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from tracegrad.ir.graph import INPUT, Graph, Node, rebuild
from tracegrad.ir.loc import Loc
from tracegrad.ir.ops.traits import COMMUTATIVE, IDENTITY_MARKER
from tracegrad.passes.base import Pass, has_subgraphs, walk, with_subgraphs


@dataclass(frozen=True)
class CSE(Pass):
    """`a = exp(x); b = exp(x)` -> `a = b = exp(x)`, which remembers both lines.

    Random bits of equal keys are equal values and merge too. A fence is never merged with anything:
    what reads through it is a recomputation that was asked for.
    """

    name: ClassVar[str] = "cse"

    def run(self, graph: Graph) -> Graph:
        leader, followers = _classes(graph)
        if not followers and not any(has_subgraphs(node.attrs) for node in graph.nodes):
            return graph
        kept: dict[Node, Node] = {}

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            first = leader[node]
            if first is not node:
                return kept[first]
            if has_subgraphs(node.attrs):
                node = with_subgraphs(node, inputs, self.run)
            loc = first.loc.merged(tuple(followers[first])) if first in followers else None
            kept[first] = rebuild(node, inputs, loc)
            return kept[first]

        return walk(graph, visit)


def _classes(graph: Graph) -> tuple[dict[Node, Node], dict[Node, list[Loc]]]:
    """The first node of each class of equal ones, and the locations of the others."""
    leader: dict[Node, Node] = {}
    number: dict[Node, int] = {}
    first_of: dict[Hashable, Node] = {}
    followers: dict[Node, list[Loc]] = {}
    for index, node in enumerate(graph.nodes):
        number[node] = index
        leader[node] = node
        if node.op is INPUT or node.op.has(IDENTITY_MARKER):
            continue
        operands = [number[leader[operand]] for operand in node.inputs]
        if node.op.has(COMMUTATIVE):
            operands.sort()
        key = (node.op.name, tuple(operands), node.attrs, str(node.type))
        first = first_of.setdefault(key, node)
        if first is not node:
            leader[node] = first
            followers.setdefault(first, []).append(node.loc)
    return leader, followers
