"""Sums and maxima over sliding windows of the last axes, and the selections that differentiate max.

The position of a window's maximum is the first in row-major order, as in PyTorch; nan wins; padding
is never selected.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tracegrad.backends.numpy.kernels.contract import Pairs, spread_and_pad, windows
from tracegrad.backends.numpy.kernels.reduce import lowest
from tracegrad.backends.numpy.kernels.registry import Array, array, kernel, narrow, widen

Ints = tuple[int, ...]


@kernel("window_sum")
def window_sum(x: Array, window: Ints, strides: Ints, padding: Pairs) -> Array:
    """Padded with 0; the result has one element a window."""
    ones = (1,) * len(window)
    view = windows(spread_and_pad(widen(x), ones, padding, 0), window, strides, ones)
    axes = tuple(range(x.ndim, view.ndim))
    return narrow(np.add.reduce(view, axis=axes, dtype=view.dtype), x.dtype)


@kernel("window_max")
def window_max(x: Array, window: Ints, strides: Ints, padding: Pairs, dilation: Ints) -> Array:
    """Padded with the lowest value of the dtype; nan propagates."""
    padded = spread_and_pad(widen(x), (1,) * len(window), padding, lowest(x.dtype))
    view = windows(padded, window, strides, dilation)
    return narrow(np.maximum.reduce(view, axis=tuple(range(x.ndim, view.ndim))), x.dtype)


def first_maximum(
    x: Array, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> tuple[Array, Array]:
    """(position, found): the flat position in the window axes of x of each window's first maximum.

    Both have shape lead + out. `found` is False for a window that lies in the padding altogether.
    """
    lead, spatial = x.shape[: x.ndim - len(window)], x.shape[x.ndim - len(window) :]
    ones = (1,) * len(window)
    padded = spread_and_pad(widen(x), ones, padding, lowest(x.dtype))
    values = windows(padded, window, strides, dilation)
    numbers = np.arange(prod(spatial), dtype=np.int64).reshape(spatial)
    numbered = windows(spread_and_pad(numbers, ones, padding, -1), window, strides, dilation)
    out = values.shape[len(lead) : len(lead) + len(window)]
    values = values.reshape(*lead, *out, prod(window))
    numbered = numbered.reshape(*out, prod(window))
    top = np.maximum.reduce(values, axis=-1, keepdims=True)
    candidate = ((values == top) | np.isnan(values)) & (numbered >= 0)
    choice = candidate.argmax(axis=-1)[..., None]
    position = np.take_along_axis(np.broadcast_to(numbered, values.shape), choice, -1)[..., 0]
    return array(position), array(candidate.any(axis=-1))


@kernel("select_scatter")
def select_scatter(
    ct: Array, x: Array, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> Array:
    """Each window's ct added at the position of its maximum in x; the gradient of window_max."""
    position, found = first_maximum(x, window, strides, padding, dilation)
    lead = prod(x.shape[: x.ndim - len(window)])
    spatial = prod(x.shape[x.ndim - len(window) :])
    out = np.zeros((lead, spatial), widen(ct).dtype)
    rows = np.broadcast_to(np.arange(lead)[:, None], (lead, prod(ct.shape[-len(window) :])))
    chosen = found.reshape(rows.shape)
    np.add.at(
        out,
        (rows[chosen], position.reshape(rows.shape)[chosen]),
        widen(ct).reshape(rows.shape)[chosen],
    )
    return narrow(out.reshape(x.shape), ct.dtype)


@kernel("select_gather")
def select_gather(
    t: Array, x: Array, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> Array:
    """t at the position of each window's maximum in x, 0 for a window of padding only."""
    position, found = first_maximum(x, window, strides, padding, dilation)
    lead = prod(x.shape[: x.ndim - len(window)])
    flat = t.reshape(lead, prod(x.shape[x.ndim - len(window) :]))
    picked = np.take_along_axis(flat, np.maximum(position, 0).reshape(lead, -1), axis=1)
    return np.where(found, picked.reshape(position.shape), np.zeros((), t.dtype))
