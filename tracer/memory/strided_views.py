"""Views by strides: diagonals, sliding windows and `as_strided`; views as another dtype; parts of
complex numbers. Writes go through to the base.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided as numpy_strided

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.types import DType
from tracegrad.tracer import functions
from tracegrad.tracer.errors import ShapeError, UnsupportedError
from tracegrad.tracer.locate import here
from tracegrad.tracer.memory.view_methods import axis_of, ints, is_contiguous, movedim
from tracegrad.tracer.memory.views import IDENTITY, ViewStep, detach, make_view
from tracegrad.tracer.operands import check_bools
from tracegrad.tracer.tensor import Tensor


class Diagonal(ViewStep):
    """The diagonal `offset` of the last two axes, as the last axis."""

    parameters = ("offset",)
    offset: int
    name = "diagonal"

    def _span(self, rows: int, columns: int) -> tuple[int, int, int]:
        """(first row, first column, length)."""
        row, column = max(-self.offset, 0), max(self.offset, 0)
        return row, column, max(0, min(rows - row, columns - column))

    def view(self, array: np.ndarray) -> np.ndarray:
        row, column, length = self._span(*array.shape[-2:])
        corner = array[..., row:, column:] if length else array[..., :0, :0]
        step = array.strides[-2] + array.strides[-1]
        return numpy_strided(
            corner, (*array.shape[:-2], length), (*array.strides[:-2], step), writeable=array.flags.writeable
        )  # fmt: skip

    def _slice(self, base: Node) -> tuple[Node, dict[str, tuple[int, ...]]]:
        """The base with its last two axes as one, and where the diagonal lies there."""
        rows, columns = base.shape[-2:]
        row, column, length = self._span(rows, columns)
        lead = base.shape[:-2]
        start = row * columns + column if length else 0
        stop = start + (length - 1) * (columns + 1) + 1 if length else start
        at = {
            "start": (*(0 for _ in lead), start),
            "stop": (*lead, stop),
            "step": (*(1 for _ in lead), columns + 1),
        }
        return ops.reshape(base, shape=(*lead, rows * columns)), at

    def emit(self, base: Node) -> Node:
        rows, at = self._slice(base)
        return ops.slice_(rows, **at)

    def emit_write(self, base: Node, value: Node) -> Node:
        rows, at = self._slice(base)
        return ops.reshape(ops.update_slice(rows, value, **at), shape=base.shape)


class Windows(ViewStep):
    """Windows of `size` every `step` along one axis; the window is the new last axis."""

    parameters = ("axis", "size", "step")
    axis: int
    size: int
    step: int
    name = "unfold"

    @property
    def repeats(self) -> bool:  # type: ignore[override]
        return self.step < self.size

    def view(self, array: np.ndarray) -> np.ndarray:
        k, stride = self.axis, array.strides[self.axis]
        count = (array.shape[k] - self.size) // self.step + 1
        shape = (*array.shape[:k], count, *array.shape[k + 1 :], self.size)
        strides = (*array.strides[:k], stride * self.step, *array.strides[k + 1 :], stride)
        return numpy_strided(array, shape, strides, writeable=array.flags.writeable)

    def _places(self, base: Node) -> Node:
        count = (base.shape[self.axis] - self.size) // self.step + 1
        return ops.literal(np.arange(count)[:, None] * self.step + np.arange(self.size))

    def emit(self, base: Node) -> Node:
        # gather puts (window, place) first; they belong at the axis and at the end.
        taken = ops.gather(base, self._places(base), axes=(self.axis,))
        before = range(2, 2 + self.axis)
        perm = (*before, 0, *range(2 + self.axis, taken.ndim), 1)
        return ops.transpose(taken, perm=perm)

    def emit_write(self, base: Node, value: Node) -> Node:
        rest = [k for k in range(value.ndim - 1) if k != self.axis]
        turned = ops.transpose(value, perm=(self.axis, value.ndim - 1, *rest))
        return ops.scatter(base, self._places(base), turned, axes=(self.axis,), mode="set")


class Strided(ViewStep):
    """Elements of a row-major tensor at `offset` + sum(index * stride)."""

    parameters = ("shape", "strides", "offset")
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    name = "as_strided"

    @property
    def repeats(self) -> bool:  # type: ignore[override]
        places = strided_places(self)
        return bool(np.unique(places).size < places.size)

    def view(self, array: np.ndarray) -> np.ndarray:
        flat = array.reshape(-1, copy=False)
        bytes_ = tuple(stride * array.itemsize for stride in self.strides)
        return numpy_strided(
            flat[min(self.offset, flat.size) :], self.shape, bytes_, writeable=array.flags.writeable
        )

    def emit(self, base: Node) -> Node:
        flat = ops.reshape(base, shape=(base.type.size,))
        return ops.gather(flat, ops.literal(strided_places(self)), axes=(0,))

    def emit_write(self, base: Node, value: Node) -> Node:
        flat = ops.reshape(base, shape=(base.type.size,))
        written = ops.scatter(flat, ops.literal(strided_places(self)), value, axes=(0,), mode="set")
        return ops.reshape(written, shape=base.shape)


class Retyped(ViewStep):
    """The bits as another dtype of the same size."""

    parameters = ("dtype",)
    dtype: DType
    name = "view"

    def view(self, array: np.ndarray) -> np.ndarray:
        return array.view(self.dtype.np)

    def emit(self, base: Node) -> Node:
        return ops.bitcast(base, dtype=self.dtype)

    def emit_write(self, base: Node, value: Node) -> Node:
        return ops.bitcast(value, dtype=base.dtype)


class ComplexPart(ViewStep):
    """The real or the imaginary part of complex numbers."""

    parameters = ("imaginary",)
    imaginary: bool
    name = "view"

    def view(self, array: np.ndarray) -> np.ndarray:
        return array.imag if self.imaginary else array.real

    def emit(self, base: Node) -> Node:
        return ops.imag(base) if self.imaginary else ops.real(base)

    def emit_write(self, base: Node, value: Node) -> Node:
        if self.imaginary:
            return ops.complex_(ops.real(base), value)
        return ops.complex_(value, ops.imag(base))


@lru_cache(maxsize=64)
def strided_places(step: Strided) -> np.ndarray:
    """Which element of the flat base each element of the view is, int64."""
    places = np.full(step.shape, step.offset, np.int64)
    for axis, stride in enumerate(step.strides):
        column = tuple(-1 if k == axis else 1 for k in range(len(step.shape)))
        places += (np.arange(step.shape[axis]) * stride).reshape(column)
    return places


def retyped(input: Tensor, dtype: DType) -> Tensor:
    """The same memory as another dtype of equal size; it has no gradient."""
    if dtype is input.dtype:
        return make_view(input, IDENTITY)
    if dtype.itemsize != input.dtype.itemsize:
        raise ShapeError(
            f"view({dtype.public_name}) of a {input.dtype.public_name} tensor",
            why=f"elements of {input.dtype.itemsize} bytes are no elements of {dtype.itemsize}",
            fix="cast it with .to(dtype), or view it as a dtype of the same size",
        )
    view = make_view(detach(input), Retyped(dtype))
    if view._traced is None:  # a graph has no such view
        check_bools(view._data, "view(bool)")
    return view


def real(input: Tensor) -> Tensor:
    """The real part, a view; a real tensor itself."""
    return make_view(input, ComplexPart(False)) if input.is_complex() else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part of a complex tensor, a view."""
    if not input.is_complex():
        return functions.imag(input)  # it says what it takes
    return make_view(input, ComplexPart(True))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two axes as the last axis, a view."""
    a, b = axis_of(dim1, input.ndim), axis_of(dim2, input.ndim)
    if a == b:
        raise ShapeError(
            f"diagonal: dim1 and dim2 are both axis {a}", where=here(), fix="name two axes"
        )
    return make_view(movedim(input, (a, b), (-2, -1)), Diagonal(*ints((offset,))))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` every `step` along one axis, as a new last axis: a view, which takes writes
    where the windows do not overlap.
    """
    ndim = input.ndim
    k = axis_of(dimension, ndim)
    size, step = ints((size, step))
    if not ndim:
        input = input.reshape(1)
    if not 0 <= size <= input.shape[k] or step <= 0:
        raise ShapeError(
            f"unfold: windows of {size} every {step} on an axis of {input.shape[k]}",
            where=here(),
            fix="give a size of at most the axis's, and a step above 0",
        )
    windows = make_view(input, Windows(k, size, step))
    return windows if ndim else windows.select(0, 0)


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of a row-major tensor by sizes and strides, counted in elements from its first."""
    shape, strides = ints((tuple(size),)), ints((tuple(stride),))
    offset = int(storage_offset or 0)
    if len(shape) != len(strides) or min((*shape, *strides, offset)) < 0:
        raise ShapeError(
            f"as_strided: size {list(shape)}, stride {list(strides)}, offset {offset}",
            where=here(),
            fix="give one size and one stride, not negative, for each dimension",
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 not in shape and last >= input.numel():
        raise ShapeError(
            f"as_strided reaches element {last} of a tensor of {input.numel()} elements",
            where=here(),
            fix="give smaller sizes, strides or offset",
        )
    chain = input._chain if input._traced is None else input._traced.chain
    if not is_contiguous(input) or (chain and storage_offset is not None):
        raise UnsupportedError(
            "as_strided of a view that is not contiguous, or with a storage_offset",
            where=here(),
            why="strides and offset are counted in its own elements here, not in those it views",
            fix="take as_strided of x.clone(), or index it",
        )
    return make_view(input, Strided(shape, strides, offset))


FUNCTIONS = {f.__name__: f for f in (diagonal, as_strided, real, imag)}
METHODS = {f.__name__: f for f in (diagonal, unfold, as_strided)}
