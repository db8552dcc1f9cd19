"""Vector and matrix norms."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like, wide_dtype
from tracegrad.ir.types import DType
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import axes_of, axis_of, keep, reshape
from tracegrad.tracer.functions.checking import linked
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    cast,
    common_float,
    expand,
    require_dtype,
    to_float,
)
from tracegrad.tracer.functions.reductions import root, summed


def vector_norm_of(x: Node, p: float, axes: tuple[int, ...]) -> Node:
    """(sum |x|**p) ** (1/p) over axes (dropped); its gradient at 0 is 0."""
    size = ops.abs_(x)
    wide = cast(size, wide_dtype(size.dtype))
    if not axes:
        result = linked(cast(not_zero(wide), wide.dtype), wide, zeros=False) if p == 0 else wide
    elif p == 2:
        result = root(ops.sum_(ops.mul(wide, wide), axes=axes))
    elif p == 1:
        result = ops.sum_(wide, axes=axes)
    elif p == math.inf:
        result = ops.max_(wide, axes=axes)
    elif p == -math.inf:
        result = ops.min_(wide, axes=axes)
    elif p == 0:
        result = linked(ops.sum_(cast(not_zero(wide), wide.dtype), axes=axes), wide, zeros=False)
    else:
        exponent = full_like(wide, p)
        if p < 1:  # the slope at 0 is infinite there; PyTorch's gradient is 0
            apart = not_zero(wide)
            power = ops.pow_(ops.where(apart, wide, ops.ones_like(wide)), exponent)
            power = ops.where(apart, power, full_like(wide, 0.0 if p > 0 else math.inf))
        else:
            power = ops.pow_(wide, exponent)
        total = ops.sum_(power, axes=axes)
        zero = ops.eq(total, ops.zeros_like(total))
        safe = ops.where(zero, ops.ones_like(total), total)
        powered = ops.pow_(safe, full_like(safe, 1 / p))
        result = ops.where(zero, ops.zeros_like(total), powered)
    return cast(result, size.dtype)


def not_zero(x: Node) -> Node:
    return ops.bitwise_not(ops.eq(x, ops.zeros_like(x)))


@user_op
def vector_norm(
    input: Operand,
    /,
    ord: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Node:
    """The norm of order ord over dim (all by default) of floats."""
    x = as_node(input) if dtype is None else cast(as_node(input), dtype)
    require_dtype("vector_norm", (x,), "fc")
    axes = axes_of(dim, x.ndim)
    return keep(vector_norm_of(x, float(ord), axes), x.shape, axes, keepdim)


@user_op
def matrix_norm(
    input: Operand,
    /,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Node:
    """The matrix norm over two dims: "fro", "nuc", 1, -1, 2, -2, inf, -inf."""
    x = as_node(input) if dtype is None else cast(as_node(input), dtype)
    require_dtype("matrix_norm", (x,), "fc")
    rows, columns = (axis_of(d, x.ndim) for d in dim)
    axes = tuple(sorted((rows, columns)))
    return keep(_matrix_norm(x, ord, rows, columns), x.shape, axes, keepdim)


def _matrix_norm(x: Node, order: Any, rows: int, columns: int) -> Node:
    axes = tuple(sorted((rows, columns)))
    if order == "fro":
        return vector_norm_of(x, 2.0, axes)
    if order == "nuc" or order in (2, -2):
        perm = (*(k for k in range(x.ndim) if k not in axes), rows, columns)
        singular = ops.proj(ops.svd(ops.transpose(x, perm=perm)), index=1)
        axis = (singular.ndim - 1,)
        if order == "nuc":
            return summed(singular, axis)
        return ops.max_(singular, axes=axis) if order == 2 else ops.min_(singular, axes=axis)
    if order in (1, -1, math.inf, -math.inf):
        added, kept = (rows, columns) if abs(order) == 1 else (columns, rows)
        sums = summed(ops.abs_(x), (added,))
        axis = (kept - (added < kept),)
        return ops.max_(sums, axes=axis) if order > 0 else ops.min_(sums, axes=axis)
    raise IRTypeError(f"matrix_norm(): no order {order!r}")


@user_op
def norm(
    input: Operand,
    /,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Node:
    """The p-norm over dim (all by default): a number, inf, "fro" (2) or "nuc"."""
    x = as_node(input) if dtype is None else cast(as_node(input), dtype)
    require_dtype("norm", (x,), "fc")
    if p == "nuc":
        dims = (-2, -1) if dim is None else dim
        return matrix_norm.emit(x, "nuc", dims, keepdim)
    axes = axes_of(dim, x.ndim)
    order = 2.0 if p in ("fro", None) else float(p)
    return keep(vector_norm_of(x, order, axes), x.shape, axes, keepdim)


@user_op
def normalize(input: Operand, /, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Node:
    """input / max(norm, eps) along dim."""
    x = to_float(input)
    return _unit(x, float(p), axes_of(dim, x.ndim), eps)


def _unit(x: Node, p: float, axes: tuple[int, ...], eps: float) -> Node:
    size = keep(vector_norm_of(x, p, axes), x.shape, axes, True)
    low = full_like(size, eps)
    return ops.div(x, expand(ops.where(ops.lt(size, low), low, size), x.shape))


@user_op
def renorm(input: Operand, /, p: float, dim: int, maxnorm: float) -> Node:
    """Sub-tensors along dim scaled down to norm maxnorm where they exceed it."""
    x = as_node(input)
    if x.ndim < 2 or maxnorm < 0 or p <= 0:
        raise IRTypeError(
            "renorm() needs 2 dimensions or more, p above 0 and maxnorm of 0 or more, got "
            f"{list(x.shape)}, p={p}, maxnorm={maxnorm}"
        )
    axis = axis_of(dim, x.ndim)
    axes = tuple(k for k in range(x.ndim) if k != axis)
    size = keep(vector_norm_of(x, float(p), axes), x.shape, axes, True)
    limit = full_like(size, maxnorm)
    factor = ops.where(ops.lt(limit, size), ops.div(limit, size + 1e-7), ops.ones_like(size))
    return ops.mul(x, expand(factor, x.shape))


@user_op
def cosine_similarity(x1: Operand, x2: Operand, /, dim: int = 1, eps: float = 1e-8) -> Node:
    """The cosine of the angle between x1 and x2 along dim."""
    a, b = common_float(x1, x2)
    axes = axes_of(dim, a.ndim)

    return summed(ops.mul(_unit(a, 2.0, axes, eps), _unit(b, 2.0, axes, eps)), axes)


@user_op
def pairwise_distance(
    x1: Operand, x2: Operand, /, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Node:
    """The p-norm of x1 - x2 + eps along the last dimension."""
    a, b = common_float(x1, x2)
    axes = (a.ndim - 1,)
    return keep(vector_norm_of(ops.sub(a, b) + eps, float(p), axes), a.shape, axes, keepdim)


@user_op
def cdist(x1: Operand, x2: Operand, /, p: float = 2.0, compute_mode: str | None = None) -> Node:
    """Distances of all rows of x1[.., P, M] to all rows of x2[.., R, M]: [.., P, R], from their
    differences whatever `compute_mode` says.
    """
    a, b = to_float(x1), to_float(x2)
    a = reshape(a, (*a.shape[:-1], 1, a.shape[-1]))
    b = reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
    a, b = broadcast(a, b)
    return vector_norm_of(ops.sub(a, b), float(p), (a.ndim - 1,))


@user_op
def dist(input: Operand, other: Operand, /, p: float = 2.0) -> Node:
    """The p-norm of input - other."""
    x, y = common_float(input, other)
    return vector_norm_of(ops.sub(x, y), float(p), tuple(range(x.ndim)))
