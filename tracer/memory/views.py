"""Views: reshape, transpose, slice and expand as steps that NumPy, the tape and the IR can all take
and undo.

A view step knows three things: how NumPy makes the view, which IR it is, and which IR writes a new
value of the view back into its base. Views of any depth are chains of steps.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.types import TensorType, dtype_of
from tracegrad.tracer.eager.program import CACHE_SIZE, LRU, program_for
from tracegrad.tracer.errors import ArgumentError, ShapeError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.storage import storage_of
from tracegrad.tracer.state import get_mode
from tracegrad.tracer.tape.entries import Entry
from tracegrad.tracer.tensor import Tensor, bare


class ViewStep:
    """One step; also a user-level op of one operand (so the tape can differentiate it).

    A value: equal to another step of its class with the same `parameters`. (Dataclasses generate
    code when they are imported: ten of them cost a tenth of the library's import.)
    """

    parameters: tuple[str, ...] = ()
    eager_only = stores = ""
    name = "view"
    repeats = False  # whether several elements of the view are one place in memory

    def __init__(self, *values: Any):
        self._key = (type(self), *values)
        self.__dict__.update(zip(self.parameters, values, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ViewStep) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.parameters)
        return f"{type(self).__name__}({values})"

    def view(self, array: np.ndarray) -> np.ndarray:
        """The NumPy view. Raises ValueError when there is none without a copy."""
        raise NotImplementedError(type(self))

    def emit(self, base: Node) -> Node:
        raise NotImplementedError(type(self))

    def emit_write(self, base: Node, value: Node) -> Node:
        """The base with this view of it replaced by `value`."""
        raise NotImplementedError(type(self))

    def emit_on(self, operands: tuple, attrs: tuple) -> tuple[Node, ...]:
        return (self.emit(operands[0]),)

    def pack(self, results: list[Any]) -> Any:
        return results[0]


class Identity(ViewStep):
    name = "alias"

    def view(self, array: np.ndarray) -> np.ndarray:
        return array[...]

    def emit(self, base: Node) -> Node:
        return ops.reshape(base, shape=base.shape)

    def emit_write(self, base: Node, value: Node) -> Node:
        return value


IDENTITY = Identity()


class Reshape(ViewStep):
    parameters = ("shape",)
    shape: tuple[int, ...]
    name = "view"

    def view(self, array: np.ndarray) -> np.ndarray:
        if array.flags.c_contiguous:  # never copied, and a keyword costs as much as the reshape
            return array.reshape(self.shape)
        return array.reshape(self.shape, copy=False)

    def emit(self, base: Node) -> Node:
        return ops.reshape(base, shape=self.shape)

    def emit_write(self, base: Node, value: Node) -> Node:
        return ops.reshape(value, shape=base.shape)


class Transpose(ViewStep):
    parameters = ("perm",)
    perm: tuple[int, ...]
    name = "transpose"

    def view(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(self.perm)

    def emit(self, base: Node) -> Node:
        return ops.transpose(base, perm=self.perm)

    def emit_write(self, base: Node, value: Node) -> Node:
        inverse = tuple(self.perm.index(axis) for axis in range(len(self.perm)))
        return ops.transpose(value, perm=inverse)


class Slice(ViewStep):
    parameters: tuple[str, ...] = ("start", "stop", "step")
    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]
    name = "slice"

    @cached_property
    def index(self) -> tuple[Any, ...]:
        return (*map(slice, self.start, self.stop, self.step), ...)

    def view(self, array: np.ndarray) -> np.ndarray:
        return array[self.index]

    def emit(self, base: Node) -> Node:
        return ops.slice_(base, start=self.start, stop=self.stop, step=self.step)

    def emit_write(self, base: Node, value: Node) -> Node:
        return ops.update_slice(base, value, start=self.start, stop=self.stop, step=self.step)


class Pick(Slice):
    """A slice without those of its axes, each of one position, that `dropped` names: `x[2, 1:3]`."""

    parameters = (*Slice.parameters, "dropped")
    dropped: tuple[int, ...]
    name = "select"

    @cached_property
    def index(self) -> tuple[Any, ...]:
        index: list[Any] = list(map(slice, self.start, self.stop, self.step))
        for axis in self.dropped:
            index[axis] = self.start[axis]
        return (*index, ...)

    def emit(self, base: Node) -> Node:
        part = super().emit(base)
        kept = [size for axis, size in enumerate(part.shape) if axis not in self.dropped]
        return ops.reshape(part, shape=tuple(kept))

    def emit_write(self, base: Node, value: Node) -> Node:
        bounds = zip(self.start, self.stop, self.step)
        shape = tuple(-(-(stop - start) // step) for start, stop, step in bounds)
        return super().emit_write(base, ops.reshape(value, shape=shape))


class Expand(ViewStep):
    parameters = ("shape",)
    shape: tuple[int, ...]
    name = "expand"
    repeats = True

    def view(self, array: np.ndarray) -> np.ndarray:
        if not array.flags.c_contiguous:
            return np.broadcast_to(array, self.shape)
        # The same by hand: NumPy's is written in Python, and ten times slower.
        places = zip(array.shape, array.strides)
        strides = [0 if size == 1 else stride for size, stride in places]
        new = len(self.shape) - len(strides)
        view = np.ndarray(self.shape, array.dtype, array, 0, [0] * new + strides)
        view.flags.writeable = False
        return view

    def emit(self, base: Node) -> Node:
        offset = len(self.shape) - base.ndim
        return ops.broadcast_to(base, shape=self.shape, dims=tuple(range(offset, len(self.shape))))

    def emit_write(self, base: Node, value: Node) -> Node:
        raise ShapeError(
            "in-place write on an expanded tensor", where=here(),
            why="several of its elements are one place in memory", fix="write on x.clone() or x.contiguous()",
        )  # fmt: skip


class WriteBack(ViewStep):
    """(old base, new value of the view) -> new base: the tape's op for a write through a view
    chain.
    """

    parameters = ("chain",)
    chain: tuple[ViewStep, ...]
    name = "write_back"

    def emit_on(self, operands: tuple, attrs: tuple) -> tuple[Node, ...]:
        return (emit_write_chain(self.chain, operands[0], operands[1]),)


def emit_chain(chain: tuple[ViewStep, ...], base: Node) -> Node:
    for step in chain:
        base = step.emit(base)
    return base


def emit_write_chain(chain: tuple[ViewStep, ...], base: Node, value: Node) -> Node:
    """The base after writing `value` through the chain of views: each step undone from the last to
    the first.
    """
    levels = [base]
    for step in chain[:-1]:
        levels.append(step.emit(levels[-1]))
    for step, level in zip(reversed(chain), reversed(levels)):
        value = step.emit_write(level, value)
    return value


_programs = LRU(CACHE_SIZE)  # by step, shape and NumPy dtype


def view_entry(step: ViewStep, parent: Entry) -> Entry:
    """The tape entry of one view step."""
    key = (step, parent.shape, parent.dtype)
    found = _programs[key]
    if found is None:
        program = program_for(step, (), (TensorType(parent.shape, dtype_of(parent.dtype)),))
        view = program.types[0]
        found = _programs.add(key, (program, view.shape, view.dtype.np))
    program, shape, dtype = found
    return Entry(program, (parent,), shape, dtype)


# Why a write with gradients through such a view is refused (see inplace.check_allowed).
UNDER_NO_GRAD = "it was made under no_grad, and does not know its history"


def mark_unwritable(view: Tensor, tensor: Tensor, grad: bool) -> None:
    """Note why a write with gradients through `view` is refused, if it is."""
    reason = tensor._unwritable if grad else UNDER_NO_GRAD
    if reason:
        view._unwritable = reason


def make_view(tensor: Tensor, step: ViewStep) -> Tensor:
    """A view of `tensor`, eager or recorded. ValueError when NumPy would have to copy."""
    return make_views(tensor, (step,))


def make_views(tensor: Tensor, steps: tuple[ViewStep, ...]) -> Tensor:
    """A view through one or more steps."""
    mode = get_mode()
    if mode.trace is not None:
        for step in steps:
            tensor = mode.trace.make_view(tensor, step)
        return tensor
    storage = tensor._storage or storage_of(tensor)
    array = tensor._data
    for step in steps:
        array = step.view(array)
    result = bare(Tensor)
    result._data = array
    result._storage = storage
    result._chain = tensor._chain + steps
    if tensor._family:
        result._family = tensor._family
    if mode.grad:
        entry = tensor._entry
        if entry is not None:
            for step in steps:
                entry = view_entry(step, entry)
            result._entry = entry
        if tensor._unwritable:
            result._unwritable = tensor._unwritable
    else:
        result._unwritable = UNDER_NO_GRAD
    storage.add(result)
    return result


def detach(tensor: Tensor) -> Tensor:
    """A tensor on the same storage without history: a new family."""
    mode = get_mode()
    if mode.trace is not None:
        return mode.trace.detach(tensor)
    storage = tensor._storage or storage_of(tensor)
    result = bare(Tensor)
    result._data = tensor._data
    result._storage = storage
    result._chain = tensor._chain
    result._family = storage.families
    storage.families += 1
    storage.add(result)
    return result


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """`tensor.shape`, as a plain tuple. Raises ArgumentError for what is no tensor."""
    try:
        in_jax = tensor._jax is not None
    except AttributeError:
        raise ArgumentError(
            f"a tensor is needed, not {type(tensor).__name__}",
            fix="make it a tensor first: tg.tensor(value)",
        ) from None
    if in_jax or tensor._traced is not None:
        return tuple(tensor.shape)
    return tensor._data.shape


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    """Logical strides in elements: those of a C-contiguous fresh result, or of the view chain."""
    array = layout_array(tensor)
    return tuple(stride // array.itemsize for stride in array.strides)


def layout_array(tensor: Tensor) -> np.ndarray:
    """An array with this tensor's logical strides; for traced tensors a stand-in that holds no
    memory.
    """
    traced = tensor._traced
    if traced is not None:
        return traced.layout()
    if tensor._storage is None:
        return stand_in(tensor._data.shape, tensor._data.dtype)
    return tensor._data


def stand_in(
    shape: tuple[int, ...], dtype: np.dtype, strides: tuple[int, ...] | None = None
) -> np.ndarray:
    """An array of these strides, or C-contiguous ones, that owns one element: only its layout may be
    used.
    """
    if strides is None:
        reverse = []
        step = dtype.itemsize
        for size in reversed(shape):
            reverse.append(step)
            step *= max(size, 1)
        strides = tuple(reversed(reverse))
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, strides, writeable=False)
