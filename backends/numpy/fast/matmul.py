"""Matrix products that NumPy does not offer: shared over the threads of the pool, or added to a matrix.

Shared over the rows, the columns or the batch. About as fast as OpenBLAS's own threads from some 2e8
flops on: every thread packs the whole of the operand that is not cut, where OpenBLAS's share that
work. Cut along the longer side for that.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tracegrad.backends.numpy.fast import blas
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


def share_matmul(
    x: Array,
    y: Array,
    out: Array,
    axis: int,
    bounds: Ints,
    product: Callable[..., Any] = np.matmul,
    *more: Any,
) -> None:
    """`product(x, y, out, *more)`, a thread for every part of `axis`; BLAS must be held at one thread."""
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
    run_parallel(lambda k: product(*calls[k], *more), len(calls))


def _batch(x: Array, out: Array, first: int, last: int) -> Array:
    """The part of an operand; whole where it is broadcast along the batch."""
    return x if x.ndim < out.ndim or x.shape[0] == 1 else x[first:last]


ROWS, AS_IT_LIES, TURNED = 101, 111, 112  # CblasRowMajor, CblasNoTrans, CblasTrans


def add_product(x: Array, y: Array, out: Array, factor: Array) -> None:
    """out += factor * (x @ y), without an array for the product; `factor` is 0-d.

    For matrices of float32 or float64, `out` in rows, where `blas.gemms` has the dtype.
    """
    number = float(factor)
    if number == 0.0:  # BLAS would not look at the product, which may hold nan
        np.add(out, np.matmul(x, y) * factor, out)
        return
    (rows, columns), depth = out.shape, x.shape[1]
    x, x_order, x_step = _for_blas(x, out.dtype)
    y, y_order, y_step = _for_blas(y, out.dtype)
    blas.gemms()[out.dtype.char](
        ROWS, x_order, y_order, rows, columns, depth, number, x.ctypes.data, x_step, y.ctypes.data, y_step,
        1.0, out.ctypes.data, out.strides[0] // out.itemsize if rows > 1 else columns,
    )  # fmt: skip


def _for_blas(matrix: Array, dtype: np.dtype[Any]) -> tuple[Array, int, int]:
    """The matrix, copied if BLAS cannot read it, how it lies, and the step to its next row or column."""
    if matrix.dtype == dtype and matrix.flags.aligned:
        (rows, columns), (down, across), item = matrix.shape, matrix.strides, dtype.itemsize
        if (across == item or columns == 1) and (rows == 1 or _is_step(down, columns, item)):
            return matrix, AS_IT_LIES, columns if rows == 1 else down // item
        if (down == item or rows == 1) and (columns == 1 or _is_step(across, rows, item)):
            return matrix, TURNED, rows if columns == 1 else across // item
    return np.ascontiguousarray(matrix, dtype), AS_IT_LIES, matrix.shape[1]


def _is_step(stride: int, length: int, item: int) -> bool:
    """Whether BLAS takes lines of `length` elements that lie `stride` bytes apart."""
    return stride >= length * item and stride % item == 0
