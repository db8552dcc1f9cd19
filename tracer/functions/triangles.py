"""Triangles and diagonals of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.types import DType, TensorType, i32, i64
from tracegrad.tracer.creation.tensors import check_device
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.errors import InvalidValueError
from tracegrad.tracer.functions.axes import axis_of, dimension_of, moved
from tracegrad.tracer.functions.promotion import Operand, as_node, cast


def band(shape: tuple[int, ...], diagonal: int, lower: bool) -> Node:
    """Bool [.., n, m]: on or below (lower) or on or above the diagonal."""
    n, m = shape[-2:]
    row = ops.iota(shape=(n, m), axis=0, dtype=i64) + diagonal
    column = ops.iota(shape=(n, m), axis=1, dtype=i64)
    mask = ops.le(column, row) if lower else ops.le(row, column)
    return ops.broadcast_to(mask, shape=shape, dims=(len(shape) - 2, len(shape) - 1))


def _triangle(name: str, input: Operand, diagonal: int, lower: bool) -> Node:
    x = as_node(input)
    if x.ndim < 2:
        raise IRTypeError(f"{name}() needs a matrix, got {list(x.shape)}")
    return ops.where(band(x.shape, diagonal, lower), x, ops.zeros_like(x))


@user_op
def tril(input: Operand, /, diagonal: int = 0) -> Node:
    """Zeros above the diagonal."""
    return _triangle("tril", input, diagonal, True)


@user_op
def triu(input: Operand, /, diagonal: int = 0) -> Node:
    """Zeros below the diagonal."""
    return _triangle("triu", input, diagonal, False)


@user_op
def tril_indices_(*, row: int, col: int, offset: int, dtype: DType) -> Node:
    """Row and column numbers of a matrix's lower triangle, [2, k]."""
    return ops.literal(np.stack(np.tril_indices(row, offset, col)).astype(dtype.np))


@user_op
def triu_indices_(*, row: int, col: int, offset: int, dtype: DType) -> Node:
    """Row and column numbers of a matrix's upper triangle, [2, k]."""
    return ops.literal(np.stack(np.triu_indices(row, offset, col)).astype(dtype.np))


def _triangle_indices(
    op: Any, row: int, col: int, offset: int, dtype: DType | None, device: Any
) -> Any:
    check_device(device)
    dtype = i64 if dtype is None else dtype
    if row < 0 or col < 0 or dtype not in (i32, i64):
        raise InvalidValueError(
            f"{op.name}() of {row} rows and {col} columns with dtype={dtype}",
            fix="give sizes that are not negative, and int64 or int32",
        )
    return op(row=row, col=col, offset=offset, dtype=dtype)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None
) -> Any:
    """Row and column numbers of the lower triangle of a row x col matrix, [2, k] int64."""
    return _triangle_indices(tril_indices_, row, col, offset, dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Any = None
) -> Any:
    """Row and column numbers of the upper triangle of a row x col matrix, [2, k] int64."""
    return _triangle_indices(triu_indices_, row, col, offset, dtype, device)


@user_op
def diag_embed(input: Operand, /, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    """The last dimension as a diagonal of matrices on dim1, dim2."""
    x = as_node(input)
    dimension_of(-1, x.ndim)  # the one that becomes the diagonal
    n = x.shape[-1] + abs(offset)
    rows = ops.iota(shape=(x.shape[-1],), axis=0, dtype=i64) + max(-offset, 0)
    columns = ops.iota(shape=(x.shape[-1],), axis=0, dtype=i64) + max(offset, 0)
    lead = x.ndim - 1
    base = ops.splat(0, TensorType((*x.shape[:-1], n, n), x.dtype))
    out = ops.scatter(base, rows, columns, moved(x, lead, 0), axes=(lead, lead + 1), mode="set")
    a, b = axis_of(dim1, out.ndim), axis_of(dim2, out.ndim)
    if a == b:
        raise IRTypeError(f"diag_embed(dim1={dim1}, dim2={dim2}): two dimensions that differ")
    rest = iter(range(lead))
    perm = tuple(lead if k == a else lead + 1 if k == b else next(rest) for k in range(out.ndim))
    return out if perm == tuple(range(out.ndim)) else ops.transpose(out, perm=perm)


def diagonal_of(x: Node, offset: int, dim1: int, dim2: int) -> Node:
    """The diagonal of the planes dim1, dim2 as a last axis."""
    a, b = axis_of(dim1, x.ndim), axis_of(dim2, x.ndim)
    n = max(min(x.shape[a] + min(offset, 0), x.shape[b] - max(offset, 0)), 0)
    steps = ops.iota(shape=(n,), axis=0, dtype=i64)
    rows, columns = steps + max(-offset, 0), steps + max(offset, 0)
    pair = (rows, columns) if a < b else (columns, rows)
    taken = ops.gather(x, *pair, axes=tuple(sorted((a, b))))
    return moved(taken, 0, taken.ndim - 1)


@user_op
def diag(input: Operand, /, diagonal: int = 0) -> Node:
    """The matrix with this diagonal (of a vector), or the diagonal of a matrix."""
    x = as_node(input)
    if x.ndim == 1:
        return diag_embed.emit(x, diagonal)
    if x.ndim != 2:
        raise IRTypeError(f"diag() needs a vector or a matrix, got {list(x.shape)}")
    return diagonal_of(x, diagonal, 0, 1)


@user_op
def trace(input: Operand, /) -> Node:
    """The sum of a matrix's diagonal."""
    whole = as_node(input)
    if whole.ndim != 2:
        raise IRTypeError(f"trace() needs a matrix, got {list(whole.shape)}")
    x = diagonal_of(whole, 0, 0, 1)
    return ops.sum_(x if x.dtype.is_inexact else cast(x, i64), axes=(0,))


PLAIN = (tril_indices, triu_indices)
