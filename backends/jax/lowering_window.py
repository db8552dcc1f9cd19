"""Window ops in jax.lax: windows over the last axes of x.

Note [First maximum] `select_scatter` and `select_gather` follow PyTorch: the first maximum in row-
major order wins, nan wins over every number, and padding never does. XLA's own select_and_scatter
does neither of the last two, has no dilation, and is a scalar loop on CPU. So the window's
positions are walked one after another, each a strided slice of x: elementwise code that XLA fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from tracegrad.backends.jax.lowering_elementwise import Lowering, full_like, is_bool, is_float

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _all_axes(x: Any, window: Ints, strides: Ints, padding: Padding) -> tuple[Ints, Ints, Padding]:
    lead = x.ndim - len(window)
    return (
        (1,) * lead + tuple(window),
        (1,) * lead + tuple(strides),
        ((0, 0),) * lead + tuple(padding),
    )


def _lowest(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    return np.array(jnp.iinfo(dtype).min, dtype)


def window_sum(x: Any, *, window: Ints, strides: Ints, padding: Padding) -> Any:
    half = is_float(x) and x.dtype.itemsize == 2
    wide = lax.convert_element_type(x, np.float32) if half else x
    full_window, full_strides, full_padding = _all_axes(x, window, strides, padding)
    summed = lax.reduce_window(
        wide, np.zeros((), wide.dtype), lax.add, full_window, full_strides, full_padding
    )
    return lax.convert_element_type(summed, x.dtype)


def window_max(x: Any, *, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Any:
    if is_bool(x):
        bytes_ = window_max(lax.convert_element_type(x, np.uint8), window=window, strides=strides,
                            padding=padding, dilation=dilation)  # fmt: skip
        return lax.convert_element_type(bytes_, np.bool_)
    full_window, full_strides, full_padding = _all_axes(x, window, strides, padding)
    full_dilation = (1,) * (x.ndim - len(window)) + tuple(dilation)
    return lax.reduce_window(
        x, _lowest(x.dtype), lax.max, full_window, full_strides, full_padding,
        window_dilation=full_dilation,
    )  # fmt: skip


class _Windows:
    """Where each position of a window falls on the padded input."""

    def __init__(self, x: Any, window: Ints, strides: Ints, padding: Padding, dilation: Ints):
        self.lead = x.ndim - len(window)
        self.window, self.strides, self.dilation = window, strides, dilation
        sizes = x.shape[self.lead :]
        self.padded = tuple(n + lo + hi for n, (lo, hi) in zip(sizes, padding))
        self.out = tuple(
            (n - (k - 1) * d - 1) // s + 1
            for n, k, s, d in zip(self.padded, window, strides, dilation)
        )
        self.widths = [(0, 0, 0)] * self.lead + [(lo, hi, 0) for lo, hi in padding]
        self.inverse = [(0, 0, 0)] * self.lead + [(-lo, -hi, 0) for lo, hi in padding]
        self.has_padding = any(lo > 0 or hi > 0 for lo, hi in padding)
        self.count = int(np.prod(window))

    def positions(self) -> Iterator[Ints]:
        return product(*map(range, self.window))

    def _starts(self, position: Ints) -> Ints:
        return tuple(p * d for p, d in zip(position, self.dilation))

    def take(self, padded: Any, position: Ints) -> Any:
        """The element at `position` of every window: a strided slice."""
        starts = self._starts(position)
        lead = padded.shape[: self.lead]
        stops = [a + (o - 1) * s + 1 for a, o, s in zip(starts, self.out, self.strides)]
        return lax.slice(padded, (0,) * self.lead + starts, (*lead, *stops),
                         (1,) * self.lead + tuple(self.strides))  # fmt: skip

    def put(self, values: Any, position: Ints) -> Any:
        """`values` back at `position` of every window, zero elsewhere: the transpose of `take`."""
        starts = self._starts(position)
        widths = [(0, 0, 0)] * self.lead
        for a, o, s, n in zip(starts, self.out, self.strides, self.padded):
            widths.append((a, n - a - (o - 1) * s - 1, s - 1))
        return lax.pad(values, np.zeros((), values.dtype), widths)


def _walk_maxima(
    x: Any, windows: _Windows, visit: Callable[[Any, Ints, Any], Any], carry: Any
) -> Any:
    """Fold `visit(carry, position, takes)`; `takes` marks the windows whose maximum moves here."""
    padded = lax.pad(x, _lowest(x.dtype), windows.widths)
    inside = None
    if windows.has_padding:
        inside = lax.pad(lax.full(x.shape, True), np.bool_(False), windows.widths)
    best: Any = None
    found: Any = None
    for position in windows.positions():
        value = windows.take(padded, position)
        valid = windows.take(inside, position) if inside is not None else None
        if best is None:
            takes = lax.full(value.shape, True) if valid is None else valid
            found, best = takes, value
        else:
            takes = lax.gt(value, best)
            if is_float(x):  # nan wins, and the first nan stays
                takes = lax.bitwise_or(
                    takes, lax.bitwise_and(lax.ne(value, value), lax.eq(best, best))
                )
            if valid is not None:
                takes = lax.bitwise_and(valid, lax.bitwise_or(takes, lax.bitwise_not(found)))
                found = lax.bitwise_or(found, valid)
            best = lax.select(takes, value, best)
        carry = visit(carry, position, takes)
    return carry


def _first_maximum(x: Any, windows: _Windows) -> Any:
    """For every window the row-major number of its first maximum, i32."""
    strides = np.cumprod((1, *windows.window[:0:-1]))[::-1]

    def visit(number: Any, position: Ints, takes: Any) -> Any:
        here = full_like(number, int(np.dot(position, strides)))
        return lax.select(takes, here, number)

    shape = (*x.shape[: windows.lead], *windows.out)
    return _walk_maxima(x, windows, visit, lax.full(shape, np.int32(-1)))


def select_scatter(
    ct: Any, x: Any, *, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Any:
    """Shape of x: ct at its window's first maximum, summed where windows overlap."""
    windows = _Windows(x, window, strides, padding, dilation)
    if 0 in ct.shape or 0 in x.shape:
        return jnp.zeros(x.shape, ct.dtype)
    first = _first_maximum(x, windows)
    wide = lax.convert_element_type(ct, np.float32) if ct.dtype.itemsize == 2 else ct
    zero = full_like(wide, 0)
    total: Any = None
    for number, position in enumerate(windows.positions()):
        chosen = lax.select(lax.eq(first, full_like(first, number)), wide, zero)
        placed = windows.put(chosen, position)
        total = placed if total is None else lax.add(total, placed)
    result = lax.pad(total, np.zeros((), wide.dtype), windows.inverse)
    return lax.convert_element_type(result, ct.dtype)


def select_gather(
    t: Any, x: Any, *, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Any:
    """Shape of the pooled x: t at each window's first maximum."""
    windows = _Windows(x, window, strides, padding, dilation)
    shape = (*x.shape[: windows.lead], *windows.out)
    if 0 in shape or 0 in x.shape:
        return jnp.zeros(shape, t.dtype)
    padded = lax.pad(t, np.zeros((), t.dtype), windows.widths)

    def visit(chosen: Any, position: Ints, takes: Any) -> Any:
        return lax.select(takes, windows.take(padded, position), chosen)

    return _walk_maxima(x, windows, visit, jnp.zeros(shape, t.dtype))


LOWERINGS: dict[str, Lowering] = {
    "window_sum": window_sum, "window_max": window_max,
    "select_scatter": select_scatter, "select_gather": select_gather,
}  # fmt: skip
