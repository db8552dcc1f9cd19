"""Shape primitives. reshape, transpose, broadcast_to and slice return views where NumPy can."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array, kernel


@kernel("reshape")
def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


@kernel("transpose")
def transpose(x: Array, perm: tuple[int, ...]) -> Array:
    return x.transpose(perm)


@kernel("broadcast_to")
def broadcast_to(x: Array, shape: tuple[int, ...], dims: tuple[int, ...]) -> Array:
    """Axis k of x becomes axis dims[k]; a read-only view."""
    aligned = [1] * len(shape)
    for axis, dim in enumerate(dims):
        aligned[dim] = x.shape[axis]
    ordered = x if list(dims) == sorted(dims) else x.transpose(np.argsort(dims))
    return np.broadcast_to(ordered.reshape(aligned), shape)


def slices(start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> tuple[Any, ...]:
    """The IR's canonical bounds as Python's: a stop of -1 under a negative step is None there."""
    return tuple(slice(a, None if b < 0 else b, c) for a, b, c in zip(start, stop, step))


@kernel("slice")
def slice_(x: Array, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Array:
    return x[(*slices(start, stop, step), ...)]  # the ellipsis keeps a 0-d result an array


@kernel("update_slice")
def update_slice(
    x: Array, u: Array, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Array:
    out = x.copy()
    out[slices(start, stop, step)] = u
    return out


@kernel("pad")
def pad(
    x: Array, value: Array, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]
) -> Array:
    """`interior` values between neighbours, then `low` before and `high` after, on each axis."""
    spread = [n + max(n - 1, 0) * gap for n, gap in zip(x.shape, interior)]
    out = np.full([a + n + b for a, n, b in zip(low, spread, high)], value, x.dtype)
    inside = tuple(slice(a, a + n, gap + 1) for a, n, gap in zip(low, spread, interior))
    out[inside] = x
    return out


@kernel("concatenate")
def concatenate(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis=axis)


def _window(x: Array, sizes: tuple[int, ...], starts: tuple[Array, ...]) -> tuple[Any, ...]:
    """Starts are clamped so that the window lies inside x, as in XLA."""
    first = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes)]
    return tuple(slice(s, s + size) for s, size in zip(first, sizes))


@kernel("dynamic_slice")
def dynamic_slice(x: Array, *starts: Array, sizes: tuple[int, ...]) -> Array:
    return x[(*_window(x, sizes, starts), ...)]


@kernel("dynamic_update_slice")
def dynamic_update_slice(x: Array, u: Array, *starts: Array) -> Array:
    out = x.copy()
    out[_window(x, u.shape, starts)] = u
    return out
