"""How much work is worth a second thread, and the loop that shares it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast import blas
from tracegrad.backends.numpy.fast.pool import run_parallel, thread_count

Array = np.ndarray[Any, Any]

FORK_FLOPS = 5e7  # about 500 us of one core: below it a busy machine loses more than it gains


def share_count(threads: int | None, chunks: int, flops: float) -> int:
    """Threads to share `chunks` pieces of work over; 1 where BLAS cannot be held to one thread."""
    limit = thread_count() if threads is None else threads
    if flops < FORK_FLOPS or not blas.available():
        return 1
    return max(1, min(limit, chunks))


def split(n: int, shares: int, chunk: int) -> list[list[tuple[int, int]]]:
    """For each share, the ranges of at most `chunk` that make up its part of range(n)."""
    bounds = [n * k // shares for k in range(shares + 1)]
    return [
        [(first, min(first + chunk, stop)) for first in range(start, stop, chunk)]
        for start, stop in zip(bounds, bounds[1:])
    ]


def run_shares(fn: Callable[[int], object], shares: int) -> None:
    """fn(0) .. fn(shares - 1), each on its own thread, BLAS at one; a single share runs here."""
    if shares == 1:
        fn(0)
        return
    with blas.single_threaded_blas():
        run_parallel(fn, shares)
