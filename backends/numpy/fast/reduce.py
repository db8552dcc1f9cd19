"""Sums as matrix-vector products, and rows added at repeated indices.

`np.add.reduce` over a last axis of a few thousand is seven times slower than BLAS's GEMV with a
vector of ones, and over the first axis of a tall matrix it is also less accurate (it adds one row
after another).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.work import Array

GEMV_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
LAST_AXIS_LIMIT = 4096  # beyond it the pairwise sum is both fast and more accurate


@lru_cache(maxsize=64)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    """A read-only vector of ones."""
    vector = np.ones(n, dtype)
    vector.flags.writeable = False
    return vector


def gemv_sums_last(n: int, dtype: np.dtype[Any]) -> bool:
    """Whether `sum_last` should be used for a contiguous last axis of n."""
    return dtype in GEMV_DTYPES and 8 <= n <= LAST_AXIS_LIMIT


def sum_last(x: Array, out: Array) -> None:
    """out[m] = sum of each row of x[m, n]; float32 or float64. inf + -inf is nan, as in any sum."""
    np.matmul(x, ones(x.shape[1], x.dtype), out=out)


def sum_first(x: Array, out: Array) -> None:
    """out[n] = sum of each column of x[m, n]; float32 or float64."""
    np.matmul(ones(x.shape[0], x.dtype), x, out=out)


ONE_HOT_CELLS = 1 << 16  # a one-hot matrix this small is quicker than a sort


def add_rows(out: Array, index: Array, rows: Array) -> None:
    """out[index[k]] += rows[k] for out[v, d], index[k] in [0, v), rows[k, d]; repeats accumulate.

    The gradient of an embedding. Sorts the indices (stably, so the order of additions is fixed) and
    adds runs of equal ones.
    """
    if index.size == 0 or out.size == 0:
        return
    if out.dtype in GEMV_DTYPES and len(out) * len(index) <= ONE_HOT_CELLS:
        if np.isfinite(rows).all():  # 0 * inf would leak into every other row
            hot = np.equal(np.arange(len(out))[:, None], index).astype(out.dtype)
            out += hot @ rows
            return
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    out[ordered[starts]] += np.add.reduceat(rows.take(order, axis=0), starts, axis=0)
