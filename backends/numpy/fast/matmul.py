"""A matrix product whose rows, columns or batch are shared over the threads of the pool.

About as fast as OpenBLAS's own threads from some 2e8 flops on: every thread packs the whole of the
operand that is not cut, where OpenBLAS's share that work. Cut along the longer side for that.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from tracegrad.backends.numpy.fast.pool import run_parallel, thread_count
from tracegrad.backends.numpy.fast.work import Array, share_count

Ints = tuple[int, ...]
STEP = 16  # rows and columns are cut at multiples of this: OpenBLAS's tiles stay whole


class Cut(NamedTuple):
    """`axis` of the result: -2 rows, -1 columns, 0 the batch; its part k is bounds[k:k + 2]."""

    axis: int
    bounds: Ints


def product_flops(out: Ints, depth: int) -> float:
    """Of a product of shape `out` whose sums have `depth` terms."""
    return 2.0 * prod(out) * depth


def cut_of(out: Ints, depth: int, threads: int | None) -> Cut | None:
    """How to share a product of shape `out`; None where one thread is as good."""
    axis, step = max((-2, out[-2]), (-1, out[-1]), key=lambda side: side[1])[0], STEP
    count = threads or thread_count()
    if len(out) > 2 and (out[0] % count == 0 or out[0] >= 4 * count):  # into parts of one size
        axis, step = 0, 1
    length = out[axis]
    shares = share_count(threads, length // step, product_flops(out, depth))
    if shares == 1:
        return None
    bounds = [round(length * k / shares / step) * step for k in range(shares)]
    return Cut(axis, (*bounds, length))


def share_matmul(x: Array, y: Array, out: Array, axis: int, bounds: Ints) -> None:
    """out = x @ y, a thread for every part of `axis`; BLAS must be held at one thread."""
    calls = []
    for first, last in zip(bounds, bounds[1:]):
        if axis == -2:
            calls.append((x[..., first:last, :], y, out[..., first:last, :]))
        elif axis == -1:
            calls.append((x, y[..., first:last], out[..., first:last]))
        else:
            calls.append(
                (_batch(x, out, first, last), _batch(y, out, first, last), out[first:last])
            )
    run_parallel(lambda k: np.matmul(*calls[k]), len(calls))


def _batch(x: Array, out: Array, first: int, last: int) -> Array:
    """The part of an operand; whole where it is broadcast along the batch."""
    return x if x.ndim < out.ndim or x.shape[0] == 1 else x[first:last]
