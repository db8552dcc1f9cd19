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


@lru_cache(maxsize=64)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    """A read-only vector of ones."""
    vector = np.ones(n, dtype)
    vector.flags.writeable = False
    return vector


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
