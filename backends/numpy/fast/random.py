"""Random bits into a given array, shared over threads, and dropout of one tile."""

from __future__ import annotations

import numpy as np

from tracegrad.backends.numpy.fast.pool import run_parallel, thread_count
from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels.random import BLOCK, fill_bits


def bits_into(key: Array, out: Array, threads: int | None = None) -> None:
    """out (contiguous u32, any shape) = random_bits(key; out.shape)."""
    flat = out.reshape(-1)
    shares = min(thread_count() if threads is None else threads, flat.size // BLOCK)
    if shares <= 1:
        fill_bits(key, flat)
        return
    bounds = [flat.size * k // shares for k in range(shares + 1)]
    run_parallel(lambda k: fill_bits(key, flat[bounds[k] : bounds[k + 1]], bounds[k]), shares)


def dropout_threshold(rate: float) -> int:
    """An element is kept when its bits are at least this: round(rate 2^32)."""
    return round(rate * 2**32)


def dropout_tile(
    key: Array, x: Array, out: Array, first: int, rate: float, bits: Array, keep: Array
) -> None:
    """out = dropout of x, the elements first, first + 1, ... of the whole; all 1-d contiguous.

    `bits` (u32) and `keep` (bool) are scratch of x's size. Dropped elements are exactly 0.
    """
    threshold = dropout_threshold(rate)
    if threshold >= 2**32:
        out.fill(0)
        return
    fill_bits(key, bits, first)
    np.greater_equal(bits, np.uint32(threshold), out=keep)
    np.multiply(x, x.dtype.type(1 / (1 - rate)), out=out)
    np.logical_not(keep, out=keep)
    np.copyto(out, 0, where=keep)
