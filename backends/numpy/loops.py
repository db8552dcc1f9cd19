"""What the loop of a `fused` node looks like: its domain, and how each value meets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from tracegrad.ir.graph import INPUT, Graph, Node
from tracegrad.ir.ops.traits import REDUCTION
from tracegrad.passes.memory.storage import Shape
from tracegrad.passes.rules.patterns import is_splat

Axes = tuple[int | None, ...]


@dataclass(eq=False)
class Loop:
    """The inner graph of a `fused` node, read as one loop over `domain`.

    access   inner input, or broadcast of one -> (operand number, its axis for each axis of the
             domain, None where it is the same along that axis)
    rows     inner nodes that hold one value a row (all axes of the domain but the last)
    body     inner nodes that need code, in order
    alias    inner node -> the one whose elements it merely shows (row reshapes and broadcasts)
    """

    graph: Graph
    domain: Shape
    access: dict[Node, tuple[int, Axes]] = field(default_factory=dict)
    rows: set[Node] = field(default_factory=set)
    body: list[Node] = field(default_factory=list)
    alias: dict[Node, Node] = field(default_factory=dict)

    @property
    def has_rows(self) -> bool:
        return bool(self.rows)

    def source(self, node: Node) -> Node:
        """Where the elements of `node` come from: a body node, an access or a splat."""
        while node in self.alias:
            node = self.alias[node]
        return node

    def overwrites(self) -> list[tuple[int, int]]:
        """(output, operand): the output may take the operand's storage, element for element."""
        seen: dict[int, list[Axes]] = {}
        for operand, axes in self.access.values():
            seen.setdefault(operand, []).append(axes)
        pairs = []
        for part, output in enumerate(self.graph.outputs):
            level = self._axes(self.source(output) in self.rows)
            for operand, uses in seen.items():
                if all(axes == level for axes in uses):
                    if self.graph.inputs[operand].type == output.type:
                        pairs.append((part, operand))
        return pairs

    def _axes(self, row: bool) -> Axes:
        lead = tuple(range(len(self.domain) - 1))
        return (*lead, None) if row else (*lead, len(self.domain) - 1)


@lru_cache(maxsize=1024)
def loop_of(graph: Graph) -> Loop:
    """Read the inner graph of a `fused` node; see passes/fuse.py for what it may hold."""
    free: set[Node] = set()  # inputs, splats and broadcasts of them: nothing computes these
    for node in graph.nodes:
        shown = node.op.name == "broadcast_to" and node.inputs[0] in free
        if node.op is INPUT or is_splat(node) or shown:
            free.add(node)
    computed = [node for node in graph.nodes if node not in free]
    loop = Loop(graph, _domain(computed))
    for node in computed:
        if node.op.name in ("reshape", "broadcast_to"):
            loop.alias[node] = node.inputs[0]
        else:
            loop.body.append(node)
        if node.shape != loop.domain:
            loop.rows.add(node)
    number = {node: index for index, node in enumerate(graph.inputs)}
    for node in computed:
        for x in node.inputs:
            if x in free and x not in loop.access:
                _enter(loop, x, node in loop.rows and not node.op.has(REDUCTION), number)
    return loop


def _domain(computed: list[Node]) -> Shape:
    for node in computed:
        if node.op.has(REDUCTION):
            return node.inputs[0].shape
        if node.op.name == "broadcast_to":
            return node.shape
    return computed[0].shape


def _enter(loop: Loop, node: Node, row: bool, number: dict[Node, int]) -> None:
    """Record how `node`, an input or a broadcast of one, lies in the domain."""
    rank = len(loop.domain)
    axes: list[int | None] = list(range(rank))
    if row:
        axes = [*range(rank - 1), None]
    base = node
    while base.op.name == "broadcast_to":
        dims, size = base.attrs["dims"], base.inputs[0].shape
        into = {
            target: axis for axis, target in enumerate(dims) if base.shape[target] == size[axis]
        }
        axes = [None if axis is None else into.get(axis) for axis in axes]
        base = base.inputs[0]
    if base.op is INPUT:
        # an axis of size 1 says nothing: the same along the domain's axis
        operand = number[base]
        axes = [
            None if a is None or (base.shape[a] == 1 and loop.domain[k] != 1) else a
            for k, a in enumerate(axes)
        ]
        loop.access[node] = (operand, tuple(axes))
