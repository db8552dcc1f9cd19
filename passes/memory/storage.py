"""Where values live: storages, views into them, and the arithmetic of strides.

Strides and offsets count elements, not bytes. A storage is one allocation, a value a `View` of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal

from tracegrad.ir.types import DType

Kind = Literal["arena", "result", "input", "constant"]
Shape = tuple[int, ...]
Strides = tuple[int, ...]


@dataclass(eq=False, slots=True)
class Storage:
    """One allocation.

    kind    "arena": a piece of the executable's own memory; "result": a fresh array, one a call,
            for the caller; "input": an array of the caller (its strides are not known before the
            call, they are taken to be contiguous); "constant": made once
    index   number of the input or output; -1 otherwise
    start, end   first and last step (position in the schedule) at which it holds a value
    offset  bytes from the start of the arena, once planned
    """

    kind: Kind
    nbytes: int
    index: int = -1
    label: str = ""
    start: int = -1
    end: int = -1
    offset: int = -1
    merged: Storage | None = field(default=None, repr=False)

    def root(self) -> Storage:
        """The storage that this one was merged into, itself when it was not."""
        storage = self
        while storage.merged is not None:
            storage = storage.merged
        return storage


@dataclass(frozen=True, slots=True)
class View:
    """A value: `shape` elements of `storage` from `offset` with `strides` (in elements)."""

    storage: Storage
    shape: Shape
    strides: Strides
    offset: int
    dtype: DType

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.shape, self.strides)

    @property
    def whole(self) -> bool:
        """It covers its storage exactly, in C order."""
        return (
            self.offset == 0
            and self.contiguous
            and prod(self.shape) * self.dtype.itemsize == self.storage.nbytes
        )


def c_strides(shape: Shape) -> Strides:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def is_contiguous(shape: Shape, strides: Strides) -> bool:
    """C order without gaps; axes of size 1 may have any stride, an empty array is contiguous."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size == 0:
            return True
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True


def reshaped_strides(shape: Shape, strides: Strides, new: Shape) -> Strides | None:
    """Strides of the view with shape `new`, or None where only a copy has that shape."""
    if 0 in shape:
        return c_strides(new)
    # Runs of axes that are contiguous among themselves; a new axis must lie within one run.
    runs: list[tuple[int, int]] = []  # (elements, stride of the last axis)
    for size, stride in zip(shape, strides):
        if size == 1:
            continue
        if runs and runs[-1][1] == size * stride:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    result: list[int] = []
    position = len(runs) - 1
    left, step = runs[position] if runs else (1, 1)
    for size in reversed(new):
        if size == 1:
            result.append(0)
            continue
        if left == 1:
            position -= 1
            left, step = runs[position]
        if left % size:
            return None
        result.append(step)
        step *= size
        left //= size
    result.reverse()
    # An axis of size 1 gets the stride it would have in C order, for readers that test strides.
    for axis in range(len(new) - 1, -1, -1):
        if new[axis] == 1:
            inner = axis + 1
            result[axis] = result[inner] * new[inner] if inner < len(new) else 1
    return tuple(result)


def transposed(view: View, perm: tuple[int, ...]) -> View:
    return View(
        view.storage,
        tuple(view.shape[axis] for axis in perm),
        tuple(view.strides[axis] for axis in perm),
        view.offset,
        view.dtype,
    )


def reshaped(view: View, shape: Shape) -> View | None:
    strides = reshaped_strides(view.shape, view.strides, shape)
    if strides is None:
        return None
    return View(view.storage, shape, strides, view.offset, view.dtype)


def sliced(view: View, start: Shape, stop: Shape, step: Shape) -> View:
    """Canonical slice attributes, as in docs/ir.md (a negative step may have stop -1)."""
    offset, shape, strides = view.offset, [], []
    for first, last, by, stride in zip(start, stop, step, view.strides):
        count = max((last - first + by - (1 if by > 0 else -1)) // by, 0)
        shape.append(count)
        strides.append(stride * by)
        offset += first * stride if count else 0
    return View(view.storage, tuple(shape), tuple(strides), offset, view.dtype)


def broadcast(view: View, shape: Shape, dims: tuple[int, ...]) -> View:
    """Axis k becomes axis dims[k]; everything else has stride 0."""
    strides = [0] * len(shape)
    for axis, target in enumerate(dims):
        if view.shape[axis] == shape[target]:
            strides[target] = view.strides[axis]
    return View(view.storage, shape, tuple(strides), view.offset, view.dtype)


def collapsed(shape: Shape, operands: list[Strides], keep_last: bool) -> list[list[int]]:
    """Groups of neighbouring axes that every operand lets merge into one axis.

    An operand's strides have one entry per axis of `shape`, 0 where it is broadcast. With
    `keep_last` the last axis stays alone (something reduces over it). Axes of size 1 join any
    neighbour.
    """
    groups: list[list[int]] = []
    merged: list[list[int]] = []  # strides, one list per group: that of its last axis per operand
    for axis, size in enumerate(shape):
        last = keep_last and axis == len(shape) - 1
        if groups and not last:
            inner = [strides[axis] for strides in operands]
            outer = merged[-1]
            empty_group = all(shape[a] == 1 for a in groups[-1])
            if size == 1:
                groups[-1].append(axis)
                continue
            if empty_group or all(o == i * size for o, i in zip(outer, inner)):
                groups[-1].append(axis)
                merged[-1] = inner
                continue
        groups.append([axis])
        merged.append([strides[axis] for strides in operands])
    return groups
