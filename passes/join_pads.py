"""The gradient of several slices of one tensor, written once instead of padded and added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.types import TensorType
from tracegrad.passes.base import Pass
from tracegrad.passes.rules.blocks import zero_padded_axis


@dataclass(frozen=True)
class JoinPads(Pass):
    """`pad(a, 0, high=2) + pad(b, 0, low=2)` -> `concatenate(a, b)`, where the pads do not overlap.

    For a backend that can compute `a` and `b` in their places.
    """

    name: ClassVar[str] = "join-pads"

    def run(self, graph: Graph) -> Graph:
        users = graph.users()
        for node in graph.outputs:
            users[node].append(node)
        inside = {node for node in graph.nodes if node.op is ops.add and _summed(node, users)}
        new: dict[Node, Node] = {}
        for node in graph.nodes:
            joined = None
            if node.op is ops.add and node not in inside:
                joined = _joined(node, inside, users, new)
            new[node] = joined or rebuild(node, tuple(new[x] for x in node.inputs))
        if all(new[node] is node for node in graph.outputs):
            return graph
        return graph.with_outputs(new[node] for node in graph.outputs)


def _summed(node: Node, users: dict[Node, list[Node]]) -> bool:
    """Only another addition reads it."""
    return len(users[node]) == 1 and users[node][0].op is ops.add and users[node][0] is not node


def _joined(
    root: Node, inside: set[Node], users: dict[Node, list[Node]], new: dict[Node, Node]
) -> Node | None:
    """The concatenation that the sum `root` of pads is, or None."""
    if root.inputs[0] is root.inputs[1]:
        return None
    pads: list[Node] = []
    stack = list(root.inputs)
    while stack:
        node = stack.pop()
        if node.op is ops.add and node in inside:
            stack += node.inputs
        elif node.op.name == "pad" and len(users[node]) == 1:
            pads.append(node)
        else:
            return None
    axes = {zero_padded_axis(pad) for pad in pads}
    axis = axes.pop()
    if axes or axis is None:
        return None
    pads.sort(key=lambda pad: pad.attrs["low"][axis])
    with at(root.loc):
        parts: list[Node] = []
        reached = 0
        for pad in (*pads, None):
            start = root.shape[axis] if pad is None else pad.attrs["low"][axis]
            if start < reached:
                return None
            if start > reached:
                gap = (*root.shape[:axis], start - reached, *root.shape[axis + 1 :])
                parts.append(ops.splat(0, TensorType(gap, root.dtype)))
            if pad is not None:
                parts.append(new[pad.inputs[0]])
                reached = start + pad.inputs[0].shape[axis]
        return ops.concatenate(*parts, axis=axis) if len(parts) > 1 else parts[0]
