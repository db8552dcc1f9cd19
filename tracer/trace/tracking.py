"""Which nodes of a trace carry gradients, and which of them are leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from tracegrad.ir.graph import Node, postorder
from tracegrad.passes.autodiff import carries_gradient
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.locate import here
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.walked import Walked


@dataclass(eq=False)
class LeafRecord:
    """A tensor that gradients accumulate into.

    `outer`: its history goes on outside the compiled function.
    """

    tensor: Tensor
    nodes: list[Node]
    outer: bool = False


class Tracking:
    """The part of a Trace that marks nodes.

    active   nodes between a leaf and a result
    leaf_of  leaf nodes: a tensor that is written has one for every value it took
    leaves   by the id of their tensor
    walked   what backwards have passed
    """

    def __init__(self) -> None:
        self.active: set[Node] = set()
        self.leaf_of: dict[Node, LeafRecord] = {}
        self.leaves: dict[int, LeafRecord] = {}
        self.walked = Walked()

    def is_tracked(self, node: Node) -> bool:
        return node in self.active or node in self.leaf_of

    def is_gradient_leaf(self, node: Node) -> bool:
        """Whether `node` is the value of a leaf that wants a gradient: one without history anywhere."""
        record = self.leaf_of.get(node)
        return record is not None and not record.outer

    def mark_active(self, outputs: Iterable[Node], operands: Iterable[Node]) -> None:
        """Nodes between operands and outputs carry gradients if an operand does."""
        stops = set(operands)
        if not any(map(self.is_tracked, stops)):
            return
        for node in postorder(outputs, stop=stops.__contains__):
            if node in stops or node in self.active:
                continue
            if any(map(self.is_tracked, node.inputs)) and carries_gradient(node):
                self.active.add(node)

    def mark_view(self, view: Node, base: Node) -> None:
        """`mark_active` for what rearranges the elements of `base`."""
        self.mark_active((view,), (base,))
        if view in self.active:
            self.walked.note_view(view, base)

    def is_freed(self, node: Node) -> bool:
        """Whether a backward without retain_graph has left nothing to walk from `node`."""
        return node in self.walked.nodes and self.walked.bars(
            set(postorder([node], stop=lambda n: n not in self.walked.nodes)), self.is_tracked
        )

    def add_leaf(self, node: Node, tensor: Tensor, outer: bool = False) -> LeafRecord:
        record = self.leaves.get(id(tensor))
        if record is None:
            record = self.leaves[id(tensor)] = LeafRecord(tensor, [], outer)
        record.nodes.append(node)
        self.leaf_of[node] = record
        return record

    def leaf_moved(self, old: Node, new: Node) -> None:
        """A leaf was written under no_grad: the new value is it too, with no path to the old one."""
        record = self.leaf_of[old]
        record.nodes.append(new)
        self.leaf_of[new] = record

    def refuse(
        self, what: str, fix: str, why: str = "it cannot be part of a static graph"
    ) -> NoReturn:
        raise UnsupportedError(what, where=here(), why=why, fix=fix)
