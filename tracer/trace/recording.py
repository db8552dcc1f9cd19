"""Recording: Python runs once, its tensor operations become one trace of IR nodes.

Values are computed on demand, when Python asks for one (`bool(t)`, `t.item()`): from the call's
real inputs, incrementally. Every such answer becomes a guard.

A trace is built in floors, each a class that calls only what stands below it: which nodes carry
gradients (tracking.py), memory (buffers.py), Python's side (host.py), the reverse walk and `.grad`
(autograd.py), and here operations and answers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from types import CodeType
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import INPUT, Node, postorder
from tracegrad.ir.types import TensorType
from tracegrad.passes.hazards import hazards
from tracegrad.tracer.bytecode import lines_in_loops
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.eager.program import WEAK_DTYPE, evaluate_nodes
from tracegrad.tracer.eager.run import check_stored, run_eager_only
from tracegrad.tracer.errors import ShapeError
from tracegrad.tracer.locate import (
    catching_frame,
    here,
    is_tried,
    user_frame,
    user_frames,
    variables,
)
from tracegrad.tracer.operands import as_tensor_operand
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import weak_category
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.autograd import TraceAutograd
from tracegrad.tracer.trace.guards import Guard
from tracegrad.tracer.trace.numbers import TracedNumber

FEW = 16  # containers, and items of each, that a loop may carry from turn to turn
FRAMES = 3  # functions whose variables it may be: that of the question, those that call it
# An instruction of the user's (file, function's line, offset), how many numbers it has used since the
# last question, int or float; or the key of a Place whose number is read at every call.
NumberAt = tuple[str, int, int, int, type] | tuple[str, int, Any]
MAX_CONSTANT_BYTES = 64 * 1024  # a larger NumPy operand is an input of the graph, not a constant


class LeftToPython(BaseException):
    """What a `try` of the user's is around fails for the values of this call: the function itself runs.

    Not an Exception: it is not for the recorded function to catch.
    """


class Trace(TraceAutograd):
    """The recording of one call.

    Made by the runtime; operations reach it through the ambient mode.

    slots             tensors read by name at every call, by id; set by the runtime
    attribute_names   of captured tensors by id, as they were read; set by the runtime
    numbers           Python's numbers among the operands, as first met at their places
    varied            the places where another one was met later: a loop's counter, say
    varying           places whose numbers are inputs, so that turns, paths and calls are equal programs;
                      keys of attributes among them (see Place)
    tried             whether what may fail for its values stands in a `try` of the user's
    outer             the trace that a nested one (cond, vmap) belongs to
    """

    outer: Trace | None = None
    way_out = "return it from the compiled function"  # for what is used outside the trace

    def __init__(
        self, max_unroll: int = 10_000, varying: frozenset[NumberAt] = frozenset()
    ) -> None:
        super().__init__()
        self.max_unroll = max_unroll
        self.varying = varying
        self.numbers: dict[NumberAt, str] = {}
        self.varied: set[NumberAt] = set()
        self._numbers_used: Counter[tuple[str, int, int]] = Counter()
        self.slots: dict[int, Any] = {}
        self.attribute_names: dict[int, str] = {}
        self.tried = False
        self.left_to_python = False
        self._values: dict[Node, np.ndarray] = {}
        self._called_from = id(user_frame())
        self._caught_outside = id(
            catching_frame(sys._getframe(1))
        )  # so errors there are no concern
        self._looping: dict[CodeType, frozenset[int | None]] = {}
        self._asked_at: set[_loc.Loc] = set()

    # -- operations ------------------------------------------------------------------------------

    def apply(self, op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        """Record one user-level op.

        Raises ShapeError as eager does, UnsupportedError for data-dependent shapes.
        """
        loc = here()
        if op.eager_only:
            known = [self.constant_value(operand) for operand in operands]
            if not any(value is None for value in known):
                found = run_eager_only(op, known, attrs)
                if isinstance(found, Tensor):
                    return self.adopt(found)
                return op.pack([self.adopt(result) for result in found])
            self.refuse(
                f"{op.shown}() while recording",
                "compute it outside the compiled function",
                op.eager_only,
            )
        values: list[Any] = []
        nodes: list[Node] = []
        with _loc.at(loc):
            for operand in operands:
                if operand is None:
                    values.append(None)
                elif isinstance(operand, Tensor):
                    nodes.append(self.node_of(operand))
                    values.append(nodes[-1])
                else:
                    values.append(self.weak(operand, op.name, nodes))
            try:
                outputs = op.emit_on(tuple(values), attrs)
            except IRTypeError as error:
                shown = ", ".join(str(n.type) for n in nodes)
                raise ShapeError(
                    f"{getattr(op, 'shown', op.name)}({shown}): {error}", where=loc
                ) from None
            if op.stores:
                check_stored(op, operands, outputs[0].dtype)
            grad = get_mode().grad
            if grad:
                # What is handed on as it is (by clone) is a new tensor: no leaf, its hooks its own.
                outputs = tuple(
                    ops.reshape(n, shape=n.shape)
                    if any(n is m for m in nodes) and self.is_tracked(n)
                    else n
                    for n in outputs
                )
                self.mark_active(outputs, nodes)
                if not self.active.isdisjoint(outputs):
                    self.walked.note_call(outputs, op, attrs, tuple(values))
            else:
                outputs = tuple(
                    ops.detach(n) if any(n is m for m in nodes) and self.is_tracked(n) else n
                    for n in outputs
                )
        self.try_now(outputs, nodes)
        return op.pack([self.fresh(node) for node in outputs])

    def try_now(self, outputs: Iterable[Node], operands: Iterable[Node]) -> None:
        """Compute what may fail for its values, if the user's code would go on then.

        Raises LeftToPython.
        """
        if not (any(map(hazards, new_nodes(outputs, operands))) and self.is_tried()):
            return
        self.tried = True
        try:
            self.evaluate(outputs)
        except Exception:
            self.left_to_python = True  # should an `except:` catch even this
            raise LeftToPython from None

    def is_tried(self) -> bool:
        """Whether an error that is raised now may be caught by the function that is recorded."""
        return is_tried(self._caught_outside)

    def weak(self, operand: Any, name: str, nodes: list[Node]) -> Any:
        if isinstance(operand, TracedNumber):
            nodes.append(
                operand.live().node
            )  # no gradient goes through it, to what it was read from
            return Weak(nodes[-1], operand.category)
        if not isinstance(operand, (bool, int, float, complex)):
            if isinstance(operand, np.ndarray) and operand.nbytes > MAX_CONSTANT_BYTES:
                nodes.append(self.array_input(operand))
                return nodes[-1]
            operand = as_tensor_operand(operand, name)
            if isinstance(operand, Tensor):
                nodes.append(self.node_of(self.adopt(operand)))
                return nodes[-1]
        category = weak_category(operand)
        type_ = TensorType((), WEAK_DTYPE[category])
        if operand.__class__ in (int, float) and self._varies(operand):
            nodes.append(self.number_input(np.asarray(operand, type_.dtype.np)))
            return Weak(nodes[-1], category)
        return Weak(ops.splat(operand, type_), category)

    def _varies(self, number: float) -> bool:
        """Whether a number of Python's is an input, as others have been met at its place; notes it."""
        frame = user_frame()
        if frame is None:
            return False
        code = frame.f_code
        instruction = code.co_filename, code.co_firstlineno, frame.f_lasti
        place = (*instruction, self._numbers_used[instruction], number.__class__)
        self._numbers_used[instruction] += 1
        if self.numbers.setdefault(place, repr(number)) != repr(number):
            self.varied.add(place)
        return place in self.varying

    # -- numbers, guards, values on demand -------------------------------------------------------

    def number(self, node: Node, category: str) -> TracedNumber:
        self.made.append(node)
        return TracedNumber(self, node, category)

    def own_number(self, number: TracedNumber) -> TracedNumber:
        """A number of this trace for one of the traces around it. Raises LeakedTensorError."""
        if number.trace is not self:
            number.leaked()
        return number

    def as_number(self, value: Any) -> TracedNumber:
        if isinstance(value, TracedNumber):
            return value.live()
        if isinstance(value, np.generic):
            value = value.item()
        category = weak_category(value)
        return self.number(ops.splat(value, TensorType((), WEAK_DTYPE[category])), category)

    def number_of(self, tensor: Tensor) -> TracedNumber | complex:
        """`tensor.item()` of a tensor of one element: a number of the graph, unless it is complex."""
        node = self.node_of(tensor)
        dtype = node.dtype
        if dtype.is_complex:
            return self.guard_bits(node, "item() of a complex tensor").item()
        category = "bool" if dtype.is_bool else "int" if dtype.is_int else "float"
        with _loc.at(here()):
            scalar = ops.reshape(node, shape=()) if node.shape else node
            scalar = ops.detach(scalar) if self.is_tracked(scalar) else scalar
            wide = WEAK_DTYPE[category]
            scalar = scalar if dtype is wide else ops.cast(scalar, dtype=wide)
        return self.number(scalar, category)

    def guard_bool(self, node: Node) -> bool:
        if (known := self.guard_late(node)) is not None:
            return bool(known)
        answer = bool(self.evaluate((node,))[0])
        self._guard(node, "bool", answer, "a branch on a tensor's value")
        return answer

    def guard_bits(self, node: Node, why: str) -> np.ndarray:
        if (known := self.guard_late(node)) is not None:
            return known
        array = self.evaluate((node,))[0]
        self._guard(node, "bits", (array.shape, array.tobytes()), why)
        return array

    def _guard(self, node: Node, kind: str, answer: Any, why: str) -> None:
        if len(self.guards) >= self.max_unroll:
            self.refuse(
                f"a compiled function branched more than {self.max_unroll} times on tensor values",
                "use tg.while_loop, which keeps the loop in the graph, or raise max_unroll",
                "every branch in Python is a segment of the compiled program",
            )
        drawn = self.random_positions()
        made, in_loop, loc = [*self.made, *drawn], self._in_loop(), here()
        held, numbers = self._held() if in_loop or loc in self._asked_at else ({}, {})
        self._asked_at.add(loc)
        self.guards.append(Guard(node, kind, answer, loc, why, made, in_loop, held, numbers, drawn))
        self.made = []
        self._numbers_used.clear()

    def _in_loop(self) -> bool:
        """Whether a loop runs the line again that asks now, or one that calls it."""
        for frame in user_frames(self._called_from):
            code = frame.f_code
            if code not in self._looping:
                self._looping[code] = lines_in_loops(code)
            if frame.f_lineno in self._looping[code]:
                return True
        return False

    def _held(self) -> tuple[dict[Any, Node], dict[Any, float]]:
        """What the variables of the function that asks hold, and of those that call it: tensors and
        numbers of this recording, also a few of them in a container; numbers of Python's.

        Objects of the user's are asked for nothing.
        """
        held: dict[Any, Node] = {}
        numbers: dict[Any, float] = {}
        for frame in islice(user_frames(self._called_from), FRAMES):
            where = frame.f_code.co_qualname
            left: list[tuple[tuple[Any, ...], Any]] = [
                ((where, name), value) for name, value in variables(frame).items()
            ]
            seen: set[int] = set()
            while left and len(seen) < FEW:
                name, value = left.pop()
                kind = type(value)
                if kind is int or kind is float:
                    numbers.setdefault(name, value)
                elif kind is tuple or kind is list or kind is dict:
                    if len(value) <= FEW and id(value) not in seen:
                        seen.add(id(value))
                        items = value.items() if kind is dict else enumerate(value)
                        left += [((*name, k), v) for k, v in items if type(k) in (int, str)]
                elif (node := self._met(value)) is not None:
                    held.setdefault(name, node)
        return held, numbers

    def _met(self, value: Any) -> Node | None:
        """The current value of a tensor or number that this recording knows already."""
        if issubclass(type(value), TracedNumber):
            return value.node if value.trace is self else None
        if not issubclass(type(value), Tensor):
            return None
        if value._traced is not None:
            return value._traced.node if value._traced.trace is self else None
        tensor = self.stand_in_of(value)
        owner = tensor if tensor._storage is None else tensor._storage
        cell = self.cells.get(id(owner))
        return cell.nodes.get(tensor._family) if cell is not None and not tensor._chain else None

    def observe_array(self, tensor: Tensor, why: str) -> np.ndarray:
        return self.guard_bits(self.node_of(tensor), why).copy()

    def constant_value(self, tensor: Any) -> np.ndarray | None:
        """The value of a tensor made of constants alone, the same in every call; None for another."""
        node = self.node_of(tensor)
        if self.is_tracked(node) or any(met.op is INPUT for met in postorder((node,))):
            return None
        evaluate_nodes(postorder((node,), stop=self._values.__contains__), self._values)
        return self._values[node]

    def evaluate(self, nodes: Iterable[Node]) -> list[np.ndarray]:
        """Values of nodes, computed now by the plain kernels; what was computed before is reused."""
        nodes = tuple(nodes)
        values = self._values
        for item in self.inputs:
            if item.node not in values:
                values[item.node] = item.array()
        evaluate_nodes(postorder(nodes, stop=values.__contains__), values)
        return [values[node] for node in nodes]


def new_nodes(outputs: Iterable[Node], operands: Iterable[Node]) -> list[Node]:
    """What an op has made."""
    known = set(operands)
    return [n for n in postorder(outputs, stop=known.__contains__) if n not in known]
