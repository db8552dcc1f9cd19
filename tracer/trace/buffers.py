"""The memory of a trace: cells, captured by storage; what reads them, views them and writes them.

A tensor from outside that the trace touches becomes an input, one that it writes is an output of
the compiled function. Nothing real is changed by recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node, placeholder
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.inplace import check_allowed
from tracegrad.tracer.memory.storage import Storage, bring_here, settle
from tracegrad.tracer.memory.views import ViewStep, emit_chain, emit_write_chain, mark_unwritable
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Leaf
from tracegrad.tracer.tensor import Tensor, bare
from tracegrad.tracer.trace.guards import Guard
from tracegrad.tracer.trace.traced import Cell, TracedValue
from tracegrad.tracer.trace.tracking import Tracking


@dataclass(eq=False)
class Input:
    """One input of the trace.

    kind      "argument", "state", "random", "host", or "slot" (state of an optimiser, found by its name)
    source    the captured Tensor or Storage, the generator, the HostRead, or the slot
    key       identifies the same input in another recording of the function
    tensor    for arguments and state: a tensor through which the storage was reached
    position  of an argument, among the call's tensors
    """

    kind: str
    node: Node
    source: Any
    array: Callable[[], np.ndarray]
    name: str
    key: tuple
    tensor: Any = None
    position: int = -1


class TakenOver(NamedTuple):
    """The cell of a tensor whose `.data` was assigned, that of the value, and the value."""

    target: Cell
    source: Cell
    value: ref[Tensor]


class MemoryMatters(BaseException):
    """A view given by value (see `declare_view`) is written, handed out, or reached by another way.

    The runtime records again, with the memory behind the view. Not an Exception: it is not for the
    recorded function to catch.
    """


class TraceBuffers(Tracking):
    """The part of a Trace that knows what stands where in memory.

    inputs                in the order of capture
    cells                 by the id of the tensor or storage they stand for
    touched_by_capture    storages of arguments that the function also reached by itself
    aliases               tensors from outside, no arguments, that had a storage when they were reached
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Input] = []
        self.guards: list[Guard] = []  # answers given to Python, in order
        self.made: list[Node] = []  # values of tensors, new or written, since the last of them
        self.cells: dict[int, Cell] = {}
        self.touched_by_capture: dict[int, Any] = {}
        self.aliases: dict[int, Tensor] = {}
        self._arguments: set[int] = set()
        # What stands for a view that is given by value, by the view's id; and their storages.
        self._views: dict[int, Tensor] = {}
        self._behind: dict[int, Storage] = {}
        # Whether the function wrote an argument, handed out its memory, or asked where it lies.
        self.place_of_argument_seen = False
        # Arguments that requires_grad_() was called on, with the tape entry they had.
        self.switched: dict[int, tuple[Tensor, Any]] = {}
        self.taken_over: list[TakenOver] = []
        self._owners: list[Any] = []  # keeps captured objects (and so their ids) alive

    def fresh(self, node: Node) -> Tensor:
        """A traced tensor with a buffer of its own."""
        tensor = bare(Tensor)
        tensor._traced = TracedValue(self, Cell(node), (), 0, node, True)
        self.made.append(node)
        return tensor

    # -- capturing -------------------------------------------------------------------------------

    def declare_argument(self, tensor: Tensor, position: int) -> None:
        """A tensor among the call's arguments, before it runs; aliases of an earlier one share its input."""
        self._arguments.add(id(tensor))
        if tensor._storage is not None:
            self._arguments.add(id(tensor._storage))
        self.cell_of(tensor, position)

    def declare_view(self, view: Tensor, stand_in: Tensor, position: int) -> None:
        """A view as an argument by value: `stand_in` holds its elements, and its place in memory is
        nobody's business. So batches cut from one big tensor need one recording, not one each.
        """
        self._views[id(view)] = stand_in
        self._behind[id(view._storage)] = view._storage
        self.declare_argument(stand_in, position)
        if not view._data.flags.c_contiguous:
            self.cells[id(stand_in)].strides = view._data.strides

    def reached(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor from outside. Raises MemoryMatters."""
        if not self._views:
            return tensor
        stand_in = self._views.get(id(tensor))
        if stand_in is None and id(tensor._storage) in self._behind:
            raise MemoryMatters
        return tensor if stand_in is None else stand_in

    def place_seen(self, tensor: Any) -> None:
        """The place in memory of a tensor or storage matters. Raises MemoryMatters if it is a view
        given by value.
        """
        if id(tensor) in self._views or any(tensor is view for view in self._views.values()):
            raise MemoryMatters
        if id(tensor) in self._arguments:
            self.place_of_argument_seen = True

    def is_argument(self, tensor: Tensor) -> bool:
        return id(tensor) in self._arguments or id(tensor) in self._views

    def stand_in_of(self, tensor: Tensor) -> Tensor:
        return self._views.get(id(tensor), tensor)

    def cell_of(self, tensor: Tensor, position: int = -1) -> Cell:
        """The tensor's, captured at first sight; `position`: of an argument."""
        traced = tensor._traced
        if traced is not None:
            if traced.trace is not self:
                tensor._traced.trace.leaked(tensor)
            return traced.cell
        tensor = self.reached(tensor)
        if tensor._storage is not None and id(tensor) not in self._arguments:
            if id(tensor) not in self.aliases and id(tensor._storage) not in self.cells:
                settle(tensor)
            if tensor._storage is not None:
                self.aliases[id(tensor)] = tensor
        owner = tensor._storage if tensor._storage is not None else tensor
        cell = self.cells.get(id(owner))
        if cell is None and owner is not tensor:
            # The storage may have been made after the tensor itself was captured.
            cell = self.cells.get(id(tensor)) if not tensor._chain else None
        if cell is not None and id(tensor) not in self._arguments:
            self.touched_by_capture[id(owner)] = owner
        if cell is None:
            self._owners.append((owner, tensor))
            if owner is tensor and position < 0:
                # A storage that it gets later matters to compiled calls; where an argument lies is in
                # each call's key.
                tensor._captured = True
            base = owner.array if isinstance(owner, Storage) else None
            if isinstance(owner, Storage) and position < 0:
                owner.captured = True
            shape = base.shape if base is not None else tuple(tensor.shape)
            dtype = dtype_of(base.dtype) if base is not None else tensor.dtype
            loc = here()
            node = placeholder(TensorType(shape, dtype), loc)
            kind, place = ("argument", position) if position >= 0 else ("state", id(owner))
            name = f"arg{position}" if position >= 0 else ""
            self.inputs.append(
                Input(kind, node, owner, reader_of(owner), name, (kind, place), tensor, position)
            )
            cell = self.cells[id(owner)] = Cell(node, owner, tensor._family)
            if isinstance(owner, Storage):
                cell.strides = owner.odd_strides
            self._note_leaf(node, tensor)
        return cell

    def _note_leaf(self, node: Node, tensor: Tensor) -> None:
        """`node` is the base value of the tensor's family: a leaf, if it wants a gradient."""
        storage = tensor._storage
        entry = storage.entries.get(tensor._family) if storage is not None else tensor._entry
        if entry is not None:
            leaf = entry.tensor() if isinstance(entry, Leaf) else None
            self.add_leaf(node, leaf if leaf is not None else tensor, outer=leaf is None)

    def node_of(self, tensor: Tensor) -> Node:
        """The current value of a tensor, traced or real, as a node of this trace."""
        traced = tensor._traced
        if traced is not None:
            if traced.trace is not self:
                traced.trace.leaked(tensor)
            return traced.node
        tensor = self.reached(tensor)
        cell = self.cell_of(tensor)
        base = cell.nodes.get(tensor._family)
        if base is None:  # a family first seen now: the same data with its own history
            with _loc.at(here()):
                base = ops.detach(cell.value)
            self._note_leaf(base, tensor)
            cell.nodes[tensor._family] = base
        if not tensor._chain:
            return base
        if isinstance(tensor._entry, Leaf):
            self.refuse(
                "a leaf that is a view, in the state of the function", "make it with .clone() first"
            )
        with _loc.at(here()):
            node = emit_chain(tensor._chain, base)
        if tensor._entry is not None:
            self.mark_view(node, base)
        return node

    def leaked(self, tensor: Tensor) -> None:
        bring_here(tensor)

    # -- views and writes ------------------------------------------------------------------------

    def make_view(self, tensor: Tensor, step: ViewStep) -> Tensor:
        tensor = self.reached(tensor)
        cell, node = self.cell_of(tensor), self.node_of(tensor)
        chain, family = place_of(tensor)
        grad = get_mode().grad
        with _loc.at(here()):
            result_node = step.emit(node)
        if grad:
            self.mark_view(result_node, node)
        result = bare(Tensor)
        result._traced = TracedValue(self, cell, (*chain, step), family, result_node, grad)
        cell.seen_by.append(ref(result))
        mark_unwritable(result, tensor, grad)
        return result

    def detach(self, tensor: Tensor) -> Tensor:
        tensor = self.reached(tensor)
        cell = self.cell_of(tensor)
        self.node_of(tensor)
        chain, family = place_of(tensor)
        base = cell.nodes[family]
        with _loc.at(here()):
            new = ops.detach(base)
            node = emit_chain(chain, new)
        number = min(0, *cell.nodes) - 1  # below the storage's own, whose aliases may be met later
        cell.nodes[number] = new
        result = bare(Tensor)
        result._traced = TracedValue(self, cell, chain, number, node, False)
        cell.seen_by.append(ref(result))
        return result

    def write(self, target: Tensor, value: Tensor) -> None:
        """An in-place write: the cell gets a new base value; see memory/inplace.py for the rules."""
        cell = self.cell_of(target)
        self.place_seen(cell.owner)
        if any(cell is taken.source or cell is taken.target for taken in self.taken_over):
            self.check_taken_over()
        if cell.of_numpy:
            self.refuse(
                "a write on from_numpy(array) while recording",
                "write on a clone",
                "the array is outside the graph",
            )
        grad = get_mode().grad
        old_view, new_view = self.node_of(target), self.node_of(value)
        chain, family = place_of(target)
        base = cell.nodes[family]
        tracked = grad and (self.is_tracked(new_view) or self.is_tracked(base))
        check_allowed(
            target,
            grad and (self.is_gradient_leaf(old_view) or self.is_gradient_leaf(base)),
            tracked,
        )
        with _loc.at(here()):
            data = emit_write_chain(chain, base, new_view)
            if data is base:
                return
            if tracked:
                if data in self.leaf_of:  # the written tensor does not become the leaf copied from
                    data = ops.reshape(data, shape=data.shape)
                self.mark_active((data,), (base, new_view))
                if not self.is_tracked(data):
                    # Overwritten by a constant: tracked still, though the old value gets none.
                    data = ops.detach(data)
                    self.active.add(data)
            for number, old in list(cell.nodes.items()):
                if number == family and tracked:
                    cell.nodes[number] = data
                    cell.rebased[number] = cell.rebased.get(number, 0) + 1
                elif old in self.leaf_of:
                    # A node of its own: `data` may be another tensor's value.
                    fresh = ops.detach(data)
                    self.leaf_moved(old, fresh)
                    cell.nodes[number] = fresh
                elif self.is_tracked(old):
                    cell.nodes[number] = ops.rebind(old, data)
                    self.active.add(cell.nodes[number])
                else:
                    cell.nodes[number] = ops.detach(data) if self.is_tracked(data) else data
        self.made += cell.nodes.values()
        cell.version += 1
        cell.written = True

    def take_over(self, target: Tensor, value: Tensor) -> None:
        """`target.data = value`: from then on PyTorch's tensor is the value's memory. Here it is a copy,
        where nobody can tell: the value is new, and seen by nobody else; nor is the target's memory.

        After `p.data -= update` it is the same memory still.
        """
        cell, source = self.cell_of(target), self.cell_of(value)
        if source is cell and place_of(value)[0] == place_of(target)[0]:
            return
        storage = target._storage
        elsewhere = [m for m in storage.members() if m is not target] if storage is not None else []
        if source.owner is not None or elsewhere or is_seen(cell):
            self._refuse_to_take_over()
        self.taken_over = [taken for taken in self.taken_over if taken.target is not cell]
        self.write(self.detach(target), value)
        self.taken_over.append(TakenOver(cell, source, ref(value)))

    def check_taken_over(self) -> None:
        """Refuse a write, or a result, by which a copy and what was to be its memory would differ."""
        for taken in self.taken_over:
            if taken.value() is not None or is_seen(taken.source):
                self._refuse_to_take_over()

    def _refuse_to_take_over(self) -> None:
        self.refuse(
            "x.data is given memory that another tensor has too, inside a compiled function",
            "copy the elements: x.data.copy_(value), or assign x.data outside",
            "of x itself only the elements are state of the graph",
        )

    def written_node(self, tensor: Tensor) -> Node | None:
        """The current value of a real tensor if this trace has written to its memory, else None."""
        if id(tensor) in self._views:
            return None
        owner = tensor._storage if tensor._storage is not None else tensor
        cell = self.cells.get(id(owner)) or self.cells.get(id(tensor))
        return self.node_of(tensor) if cell is not None and cell.written else None


def is_seen(cell: Cell) -> bool:
    """Whether a view or an alias that was made while recording is still there."""
    return any(seen() is not None for seen in cell.seen_by)


def place_of(tensor: Tensor) -> tuple[tuple[ViewStep, ...], int]:
    traced = tensor._traced
    return (traced.chain, traced.family) if traced is not None else (tensor._chain, tensor._family)


def reader_of(owner: Any) -> Callable[[], np.ndarray]:
    if isinstance(owner, Storage):
        return lambda: owner.array
    return lambda: owner._data
