"""Values inside a trace: cells (buffers whose value is a node) and tensors that see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import Node
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.views import ViewStep, emit_chain, stand_in
from tracegrad.tracer.tensor import Tensor

if TYPE_CHECKING:
    from tracegrad.tracer.trace.recording import Trace


class Cell:
    """One buffer while recording. `nodes` holds the base's current value per family (see
    memory/storage.py).

    owner    the real Tensor or Storage it was captured from, None for a buffer born in the trace
    written  whether the trace has changed it
    rebased  families whose history writes have changed, and how often
    of_numpy  a NumPy array outside shares its memory, and would have to see writes
    strides   of the owner in bytes, where they are not those of a C-contiguous array
    seen_by   views and aliases made while recording, dead ones among them
    """

    __slots__ = (
        "nodes", "version", "owner", "written", "rebased", "of_numpy", "strides", "seen_by",
    )  # fmt: skip

    def __init__(self, node: Node, owner: Any = None, family: int = 0):
        self.nodes: dict[int, Node] = {family: node}
        self.version = 0
        self.owner = owner
        self.written = False
        self.rebased: dict[int, int] = {}
        self.of_numpy = False
        self.strides: tuple[int, ...] | None = None
        self.seen_by: list[ref[Tensor]] = []

    @property
    def value(self) -> Node:
        """The current data, whatever its history."""
        return next(iter(self.nodes.values()))


class TracedValue:
    """What a traced tensor is: a view chain on a cell, in a family.

    Re-derives itself when the cell has moved on.

    with_grad  whether it was made with gradients on
    rebased    how often the family's history had changed then
    """

    __slots__ = (
        "trace", "cell", "chain", "family", "version", "_node", "with_grad", "rebased", "loc", "type",
    )  # fmt: skip

    trace: Trace

    def __init__(
        self,
        trace: Any,
        cell: Cell,
        chain: tuple[ViewStep, ...],
        family: int,
        node: Node,
        with_grad: bool,
    ):
        self.trace = trace
        self.cell = cell
        self.chain = chain
        self.family = family
        self.version = cell.version
        self._node = node
        self.with_grad = with_grad
        self.rebased = cell.rebased.get(family, 0)
        self.loc = node.loc
        self.type = node.type

    @property
    def node(self) -> Node:
        if self.version != self.cell.version:
            base = self.cell.nodes[self.family]
            with _loc.at(here()):
                self._node = emit_chain(self.chain, base)
            if self.with_grad or self.cell.rebased.get(self.family, 0) > self.rebased:
                self.trace.mark_view(self._node, base)
                if not self.with_grad:
                    self.trace.walked.cut.add(self._node)
            self.version = self.cell.version
        return self._node

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    @property
    def tracked(self) -> bool:
        return self.trace.is_tracked(self.node)

    @property
    def is_leaf(self) -> bool:
        return self.node not in self.trace.active

    def require_grad(self, value: bool) -> None:
        self.trace.require_grad(self, value)

    def layout(self) -> Any:
        base = self.cell.value.type
        array = stand_in(base.shape, base.dtype.np, self.cell.strides)
        for step in self.chain:
            array = step.view(array)
        return array
