"""Running reductions and differences along a dimension."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import wide_dtype
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import DType, i64, u8
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import axis_of, dimension_of, reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    cast,
    promote,
    to_float,
)
from tracegrad.tracer.functions.reductions import accumulated, summed
from tracegrad.tracer.functions.shaping import cat


@user_op
def cumsum(input: Operand, /, dim: int, *, dtype: DType | None = None) -> Node:
    """Running sums along dim. Integers and bools give int64."""
    x = accumulated(as_node(input), dtype)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return x
    return cast(ops.cumsum(cast(x, wide_dtype(x.dtype)), axis=axis), x.dtype)


@user_op
def cumprod(input: Operand, /, dim: int, *, dtype: DType | None = None) -> Node:
    """Running products along dim. Integers and bools give int64."""
    x = accumulated(as_node(input), dtype)
    axis = axis_of(dim, x.ndim)
    return ops.cumprod(x, axis=axis) if x.ndim else x


@user_op
def logcumsumexp(input: Operand, /, dim: int) -> Node:
    """The logarithm of running sums of exp(input) along dim."""
    x = to_float(input)
    axis = axis_of(dim, x.ndim)
    return ops.cumlogsumexp(x, axis=axis) if x.ndim else x


def _running(op: Op, input: Operand, dim: int) -> tuple[Node, Node]:
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return x, ops.splat(0, x.type.with_dtype(i64))
    ordered = cast(x, u8) if x.dtype.is_bool else x
    reached = op(ordered, axis=axis)
    new = ops.eq(ordered, reached)
    if x.dtype.is_float:
        new = ops.or_(new, ops.isnan(x))
    # The index of the latest element that equals the running extreme.
    steps = ops.iota(shape=x.shape, axis=axis, dtype=i64)
    index = ops.cummax(ops.where(new, steps, ops.splat(-1, steps.type)), axis=axis)
    return ops.take_along(x, index, axis=axis), index


@user_op(results=("values", "indices"))
def cummax(input: Operand, /, dim: int) -> tuple[Node, Node]:
    """Running largest along dim and its index, the latest of equals."""
    return _running(ops.cummax, input, dim)


@user_op(results=("values", "indices"))
def cummin(input: Operand, /, dim: int) -> tuple[Node, Node]:
    """Running smallest along dim and its index, the latest of equals."""
    return _running(ops.cummin, input, dim)


@user_op
def diff_(input: Operand, /, *, n: int, dim: int) -> Node:
    """Differences of neighbours along dim, n times over."""
    x = as_node(input)
    if not x.ndim or n < 0:
        raise IRTypeError(f"diff(n={n}) of {list(x.shape)}: at least a vector and n >= 0")
    axis = axis_of(dim, x.ndim)
    for _ in range(n):
        if x.shape[axis] == 0:
            return x
        x = _of_neighbours(ops.xor if x.dtype.is_bool else ops.sub, x, axis)
    return x


def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along dim, n times over; of prepend, input and append joined."""
    if n and (prepend is not None or append is not None):
        input = cat([part for part in (prepend, input, append) if part is not None], dim)
    return diff_(input, n=n, dim=dim)


@user_op
def trapezoid(y: Operand, x: Operand | None = None, /, *, dx: float = 1.0, dim: int = -1) -> Node:
    """The integral along dim by the trapezoid rule, at the points x or with spacing dx."""
    strips, axis = _strips(y, x, dim)
    return summed(strips, (axis,)) * ((dx if x is None else 1) / 2)


@user_op
def cumulative_trapezoid(
    y: Operand, x: Operand | None = None, /, *, dx: float = 1.0, dim: int = -1
) -> Node:
    """The running integral along dim by the trapezoid rule, at the points x or with spacing dx."""
    strips, axis = _strips(y, x, dim)
    return ops.cumsum(strips, axis=axis) * ((dx if x is None else 1) / 2)


def _strips(y: Operand, x: Operand | None, dim: int) -> tuple[Node, int]:
    """Twice the areas between neighbours along dim (at distance 1 without x), and the axis."""
    values, points = promote(to_float(y), as_node(y if x is None else x))
    axis = dimension_of(dim, values.ndim)
    size = values.shape[axis]
    if not size:
        return values, axis
    pairs = _of_neighbours(ops.add, values, axis)
    if x is None:
        return pairs, axis
    if points.ndim == 1:  # one point for each place along dim, whatever the other dimensions are
        if points.shape[0] != size:
            raise IRTypeError(f"{points.shape[0]} points x for {size} values along dim {dim}")
        points = reshape(points, (size, *(1,) * (values.ndim - 1 - axis)))
    if points.ndim < values.ndim - axis or points.ndim > values.ndim:
        raise IRTypeError(
            f"points x of {list(points.shape)} along dim {dim} of {list(values.shape)}"
        )
    widths = _of_neighbours(ops.sub, points, axis + points.ndim - values.ndim)
    return ops.mul(*broadcast(pairs, widths)), axis


def _of_neighbours(op: Op, x: Node, axis: int) -> Node:
    """`op` of the later and the earlier one of all neighbours along the axis."""
    size = x.shape[axis]
    return op(take_range(x, axis, 1, size), take_range(x, axis, 0, size - 1))


PLAIN = (diff,)
