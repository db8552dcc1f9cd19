"""Shape ops in jax.lax."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from tracegrad.backends.jax.lowering_elementwise import Lowering, full_like

Ints = tuple[int, ...]


def reshape(x: Any, *, shape: Ints) -> Any:
    return lax.reshape(x, shape)


def transpose(x: Any, *, perm: Ints) -> Any:
    return lax.transpose(x, perm)


def broadcast_to(x: Any, *, shape: Ints, dims: Ints) -> Any:
    return lax.broadcast_in_dim(x, shape, dims)


def slice_(x: Any, *, start: Ints, stop: Ints, step: Ints) -> Any:
    """One range an axis. XLA's strides are positive: a negative step reverses afterwards."""
    lows, highs, strides, reversed_axes = [], [], [], []
    for axis, elements in enumerate(map(range, start, stop, step)):
        if elements.step < 0:
            elements = elements[::-1]
            reversed_axes.append(axis)
        count = len(elements)
        lows.append(elements.start if count else 0)
        highs.append(elements[-1] + 1 if count else 0)
        strides.append(elements.step if count else 1)
    result = lax.slice(x, lows, highs, strides)
    return lax.rev(result, reversed_axes) if reversed_axes else result


def update_slice(x: Any, u: Any, *, start: Ints, stop: Ints, step: Ints) -> Any:
    """`x` with that slice replaced by `u`; a select where strides leave gaps."""
    if 0 in u.shape:
        return x
    reversed_axes = [axis for axis, stride in enumerate(step) if stride < 0]
    if reversed_axes:
        u = lax.rev(u, reversed_axes)
    ranges = [r[::-1] if r.step < 0 else r for r in map(range, start, stop, step)]
    if all(r.step == 1 or len(r) == 1 for r in ranges):
        return lax.dynamic_update_slice(x, u, [np.int64(r.start) for r in ranges])
    widths = [
        (r.start, size - r[-1] - 1, r.step - 1 if len(r) > 1 else 0)
        for r, size in zip(ranges, x.shape, strict=True)
    ]
    spread = lax.pad(u, np.zeros((), u.dtype), widths)
    written = lax.pad(lax.full(u.shape, True), np.bool_(False), widths)
    return lax.select(written, spread, x)


def pad(x: Any, value: Any, *, low: Ints, high: Ints, interior: Ints) -> Any:
    return lax.pad(x, value, list(zip(low, high, interior, strict=True)))


def concatenate(*xs: Any, axis: int) -> Any:
    return lax.concatenate(xs, axis)


def _clamped(starts: tuple[Any, ...], sizes: Ints, shape: Ints) -> list[Any]:
    """Starts moved so that the window lies inside; negative ones become 0, not wrapped."""
    return [
        lax.clamp(full_like(s, 0), s, full_like(s, total - size))
        for s, size, total in zip(starts, sizes, shape, strict=True)
    ]


def dynamic_slice(x: Any, *starts: Any, sizes: Ints) -> Any:
    return lax.dynamic_slice(x, _clamped(starts, sizes, x.shape), sizes)


def dynamic_update_slice(x: Any, u: Any, *starts: Any) -> Any:
    return lax.dynamic_update_slice(x, u, _clamped(starts, u.shape, x.shape))


LOWERINGS: dict[str, Lowering] = {
    "reshape": reshape, "transpose": transpose, "broadcast_to": broadcast_to, "slice": slice_,
    "update_slice": update_slice, "pad": pad, "concatenate": concatenate,
    "dynamic_slice": dynamic_slice, "dynamic_update_slice": dynamic_update_slice,
}  # fmt: skip
