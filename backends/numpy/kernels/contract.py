"""matmul and convolution, the plain way."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array, kernel, narrow, widen

Pairs = tuple[tuple[int, int], ...]


@kernel("matmul")
def matmul(x: Array, y: Array) -> Array:
    """[.., m, k] @ [.., k, n]; bool is or of ands."""
    return narrow(np.matmul(widen(x), widen(y)), x.dtype)


def spread_and_pad(x: Array, dilation: tuple[int, ...], padding: Pairs, fill: object) -> Array:
    """The last axes of x with dilation - 1 fills between neighbours, then padded (or cropped)."""
    lead = x.ndim - len(padding)
    sizes = [max((n - 1) * d + 1, 0) if n else 0 for n, d in zip(x.shape[lead:], dilation)]
    padded = [max(lo, 0) + n + max(hi, 0) for n, (lo, hi) in zip(sizes, padding)]
    out = np.full(x.shape[:lead] + tuple(padded), fill, x.dtype)
    inside: list[Any] = [
        slice(max(lo, 0), max(lo, 0) + n, d) for n, d, (lo, _) in zip(sizes, dilation, padding)
    ]
    out[(..., *inside)] = x
    crop: list[Any] = [slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(padded, padding)]
    return out[(..., *crop)]


def windows(
    x: Array, window: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> Array:
    """A view [lead.., out.., window..] of every window over the last len(window) axes of x."""
    lead = x.ndim - len(window)
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation)]
    out = tuple(
        max((n - span) // s + 1, 0) if n >= span else 0
        for n, span, s in zip(x.shape[lead:], spans, strides)
    )
    steps = x.strides[lead:]
    return np.lib.stride_tricks.as_strided(
        x,
        x.shape[:lead] + out + window,
        x.strides[:lead]
        + tuple(step * s for step, s in zip(steps, strides))
        + tuple(step * d for step, d in zip(steps, dilation)),
        writeable=False,
    )


@kernel("conv")
def conv(
    x: Array,
    w: Array,
    strides: tuple[int, ...],
    padding: Pairs,
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    groups: int,
) -> Array:
    """x[N,C,*S], w[O,C/groups,*K] -> [N,O,*out], cross-correlation; a window is a matrix column."""
    dtype, spatial = x.dtype, x.ndim - 2
    x, w = widen(x), widen(w)
    n, o, kernel_shape = x.shape[0], w.shape[0], w.shape[2:]
    padded = spread_and_pad(x, lhs_dilation, padding, 0)
    view = windows(padded, kernel_shape, strides, rhs_dilation)  # [N, C, *out, *K]
    out = view.shape[2 : 2 + spatial]
    channel_first = view.transpose(
        (0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial))
    )
    rows = w.shape[1] * prod(kernel_shape)
    columns = channel_first.reshape(n, groups, rows, prod(out))
    filters = w.reshape(groups, o // groups, rows)
    return narrow(np.matmul(filters, columns).reshape(n, o, *out), dtype)
