"""The trace of a function inside other code: what it reads of the outside becomes an operand.

What its function reads of Python's side (a learning rate, an attribute) belongs to the recording
around it; where there is none, the graph runs at once and plain values will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from tracegrad.ir.graph import Node, placeholder, postorder
from tracegrad.ir.types import TensorType
from tracegrad.passes.hazards import hazards
from tracegrad.tracer.locate import here
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.numbers import TracedNumber
from tracegrad.tracer.trace.recording import Trace, new_nodes
from tracegrad.tracer.trace.traced import Cell


class NestedTrace(Trace):
    """A trace without state and without guards.

    outer     the trace around it, whose recording learns what the function reads; None in eager
    captured  the outside tensors, in input order
    """

    def __init__(self, what: str):
        super().__init__()
        self.what = what
        self.way_out = f"return it from the function given to {what}"
        self.outer = outer = get_mode().trace
        self.captured: list[Tensor] = []
        self.captured_nodes: list[Node] = []
        self._stand_ins: set[Cell] = set()
        self._numbers: dict[int, TracedNumber] = {}
        self._arrays: dict[int, tuple[np.ndarray, Tensor]] = {}
        if outer is not None:
            self.noted, self.undo = outer.noted, outer.undo

    def argument(self, type: TensorType) -> Tensor:
        """A traced tensor for one argument of the function."""
        node = placeholder(type, here())
        return self.stand_in(node)

    def stand_in(self, node: Node) -> Tensor:
        """A tensor for one outside the function, whose memory a write in here would not reach."""
        tensor = self.fresh(node)
        self._stand_ins.add(tensor._traced.cell)
        return tensor

    def cell_of(self, tensor: Tensor, position: int = -1) -> Cell:
        traced = tensor._traced
        if self._is_mine(tensor):
            return traced.cell
        owner = traced if traced is not None else tensor
        cell = self.cells.get(id(owner))
        if cell is None:
            node = placeholder(TensorType(tuple(tensor.shape), tensor.dtype), here())
            self.captured.append(tensor)
            self.captured_nodes.append(node)
            self._owners.append(owner)
            cell = self.cells[id(owner)] = Cell(node, owner)
        return cell

    def node_of(self, tensor: Tensor) -> Node:
        return tensor._traced.node if self._is_mine(tensor) else self.cell_of(tensor).nodes[0]

    def try_now(self, outputs: Iterable[Node], operands: Iterable[Node]) -> None:
        """No values are known here: a run that fails is left to Python."""
        if any(map(hazards, new_nodes(outputs, operands))):
            self.is_tried()

    def is_tried(self) -> bool:
        """Nothing is asked here: the recording around it notes that a run may be left to Python."""
        outermost: Trace = self
        while outermost.outer is not None:
            outermost = outermost.outer
        if outermost is not self and outermost.is_tried():
            outermost.tried = True
        return False

    # -- Python's side ---------------------------------------------------------------------------

    def host_number(self, key: tuple, read: Callable[[], Any], name: str) -> Any:
        if self.outer is None:
            return read()
        number = self.outer.host_number(key, read, name)
        return self.own_number(number) if isinstance(number, TracedNumber) else number

    def own_number(self, number: TracedNumber) -> TracedNumber:
        """A number of this trace for one of the traces around it."""
        if number.trace is self:
            return number
        found = self._numbers.get(id(number))
        if found is None:
            if self.outer is None:
                number.leaked()
            tensor = self.outer.fresh(self.outer.own_number(number).node)
            found = TracedNumber(self, self.node_of(tensor), number.category, number.host)
            self._numbers[id(number)] = found
            self._owners.append(number)
        return found

    def guard_host(
        self, read: Callable[[], Any], compare: Callable[[Any, Any], bool], constant: Any
    ) -> bool:
        if self.outer is None:
            return bool(compare(read(), constant))
        return self.outer.guard_host(read, compare, constant)

    def array_input(self, array: np.ndarray) -> Node:
        if id(array) not in self._arrays:
            from tracegrad.tracer.creation.tensors import tensor

            if self.outer is None:
                outside = tensor(array)
            else:
                outside = self.outer.fresh(self.outer.array_input(array))
            self._arrays[id(array)] = (array, outside)
        return self.node_of(self._arrays[id(array)][1])

    def run_host_action(self, method: Callable[..., Any], owner: Any, args: tuple[Any, ...]) -> Any:
        named = (
            "a write to param_groups"
            if isinstance(owner, dict)
            else f"a step of {type(owner).__name__}"
        )
        self.refuse(
            f"{named} inside {self.what}",
            f"call it before or after the {self.what}",
            "it changes Python's state, whatever branch or trip is run",
        )

    # -- gradients -------------------------------------------------------------------------------

    def read_grad(self, tensor: Tensor) -> Tensor | None:
        if self._is_mine(tensor):
            return super().read_grad(tensor)
        if self.outer is None:
            return tensor._grad
        return self.outer.read_grad(tensor)

    def write_grad(self, tensor: Tensor, value: Tensor | None) -> None:
        if not self._is_mine(tensor):
            self._refuse_outside("a write to .grad of", "write it outside")
        super().write_grad(tensor, value)

    def leaf_changed(self, tensor: Tensor, before: Any) -> None:
        tensor._set_leaf(before)
        self._refuse_outside("requires_grad_() of", "call it before")

    def depends_on_others(self, tensor: Tensor, leaves: list[Tensor]) -> bool:
        return True  # what is captured may want gradients; the trace around it knows

    def _reverse(self, tensors: list[Tensor], *rest: Any) -> list[Node | None]:
        for tensor in tensors:
            if not self.is_tracked(self.node_of(tensor)) and self._reaches_outside(tensor):
                self._refuse_outside("backward() to", "return the loss and call backward() outside")
        return super()._reverse(tensors, *rest)

    def _reaches_outside(self, tensor: Tensor) -> bool:
        """Whether the tensor is computed from an outside tensor that wants a gradient."""
        wanted = {
            node for node, outside in zip(self.captured_nodes, self.captured)
            if outside.requires_grad
        }  # fmt: skip
        return any(node in wanted for node in postorder([self.node_of(tensor)]))

    def _is_mine(self, tensor: Tensor) -> bool:
        return tensor._traced is not None and tensor._traced.trace is self

    def _refuse_outside(self, what: str, fix: str) -> NoReturn:
        self.refuse(f"{what} an outside tensor inside {self.what}", fix)

    # -- views and writes ------------------------------------------------------------------------

    def make_view(self, tensor: Tensor, step: Any) -> Tensor:
        if not self._is_mine(tensor):
            # A view of an outside tensor: of its current value.
            tensor = self.stand_in(self.node_of(tensor))
        return super().make_view(tensor, step)

    def write(self, target: Tensor, value: Tensor) -> None:
        if not self._is_mine(target):
            self._refuse_outside("an in-place write on", "return the new value instead")
        if target._traced.cell in self._stand_ins:
            self.refuse(
                f"an in-place write on an argument, or on a view of an outside tensor, inside {self.what}",
                "write on a clone, and return it",
                "the caller's tensor would not change",
            )
        super().write(target, value)

    def guard_bool(self, node: Node) -> NoReturn:
        self.guard_bits(node, "a branch on a tensor's value")

    def guard_bits(self, node: Node, why: str) -> NoReturn:
        self.refuse(
            f"{why} inside {self.what}", "use tg.where, or tg.cond",
            "its graph is made once, before values are known",
        )  # fmt: skip

    def next_key(self, generator: Any) -> NoReturn:
        self.refuse(
            f"a random operation inside {self.what}", "draw the numbers outside and pass them in"
        )
