"""Gather, scatter, sort. Indices are checked: NumPy's wrap of negatives would be silently wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.base import IndexOutOfRange
from tracegrad.backends.numpy.kernels.registry import Array, array, is_half, kernel, widen


def check_bounds(index: Array, size: int, axis: int) -> None:
    """Raise IndexOutOfRange unless every index is in [0, size)."""
    if index.size == 0:
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise IndexOutOfRange(
            f"index {wrong} is out of range for dimension {axis} of size {size}; "
            f"valid indices are 0 to {size - 1}"
        )


def _to_front(x: Array, axes: tuple[int, ...]) -> Array:
    return x.transpose((*axes, *(axis for axis in range(x.ndim) if axis not in axes)))


def _check_all(x: Array, indices: tuple[Array, ...], axes: tuple[int, ...]) -> None:
    for index, axis in zip(indices, axes, strict=True):
        check_bounds(index, x.shape[axis], axis)


@kernel("gather")
def gather(x: Array, *indices: Array, axes: tuple[int, ...]) -> Array:
    """Shape of the indices + the remaining axes of x in order."""
    _check_all(x, indices, axes)
    front = _to_front(x, axes)
    if len(axes) == 1 and indices[0].size:
        # the bounds are checked: `clip` spares the slow checking mode of take
        return array(front.take(indices[0], axis=0, mode="clip"))
    return array(front[indices])


UPDATES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _combine(base: Array, position: Any, u: Array, mode: str) -> None:
    if mode == "set":
        base[position] = u
    else:
        UPDATES[mode].at(base, position, u)  # type: ignore[attr-defined]


@kernel("scatter")
def scatter(base: Array, *indices_and_u: Array, axes: tuple[int, ...], mode: str) -> Array:
    """base with u combined in at the indices; repeats accumulate ("set": the last one wins)."""
    *indices, u = indices_and_u
    _check_all(base, tuple(indices), axes)
    accumulate = mode in ("add", "mul") and is_half(base.dtype)
    out = base.astype(np.float32) if accumulate else base.copy()
    _combine(_to_front(out, axes), tuple(indices), u.astype(out.dtype, copy=False), mode)
    return out.astype(base.dtype, copy=False)


def _along(index: Array, axis: int) -> tuple[Array, ...]:
    """The full index tuple of an index along one axis: counters on the other axes."""
    position = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    position[axis] = index
    return tuple(position)


@kernel("take_along")
def take_along(x: Array, index: Array, axis: int) -> Array:
    """out[.., i, ..] = x[.., index[.., i, ..], ..]"""
    check_bounds(index, x.shape[axis], axis)
    return array(x[_along(index, axis)])


@kernel("scatter_along")
def scatter_along(x: Array, index: Array, u: Array, axis: int, mode: str) -> Array:
    """x with u[.., i, ..] combined in at [.., index[.., i, ..], ..]."""
    check_bounds(index, x.shape[axis], axis)
    accumulate = mode in ("add", "mul") and is_half(x.dtype)
    out = x.astype(np.float32) if accumulate else x.copy()
    _combine(out, _along(index, axis), u.astype(out.dtype, copy=False), mode)
    return out.astype(x.dtype, copy=False)


@kernel("argsort")
def argsort(x: Array, axis: int, descending: bool) -> Array:
    """Stable; nan counts as the largest value: last, or first when descending."""
    keys = widen(x)
    if not descending:
        return np.argsort(keys, axis=axis, kind="stable").astype(np.int64, copy=False)
    # the reverse of a stable sort of the reverse keeps equal values in order
    flipped: Array = np.argsort(np.flip(keys, axis), axis=axis, kind="stable")
    order: Array = x.shape[axis] - 1 - np.flip(flipped, axis)
    return order.astype(np.int64, copy=False)


@kernel("argmax")
def argmax(x: Array, axis: int) -> Array:
    """First occurrence; nan wins."""
    return array(np.argmax(widen(x), axis=axis)).astype(np.int64, copy=False)


@kernel("argmin")
def argmin(x: Array, axis: int) -> Array:
    """First occurrence; nan wins."""
    return array(np.argmin(widen(x), axis=axis)).astype(np.int64, copy=False)
