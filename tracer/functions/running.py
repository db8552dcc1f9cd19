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
from tracegrad.tracer.functions.axes import axis_of, dimension_of
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
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
        size = x.shape[axis]
        if size == 0:
            return x
        later, earlier = take_range(x, axis, 1, size), take_range(x, axis, 0, size - 1)
        x = ops.xor(later, earlier) if x.dtype.is_bool else ops.sub(later, earlier)
    return x


def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along dim, n times over; of prepend, input and append joined."""
    if n and (prepend is not None or append is not None):
        input = cat([part for part in (prepend, input, append) if part is not None], dim)
    return diff_(input, n=n, dim=dim)


@user_op
def trapezoid(y: Operand, /, *, dx: float = 1.0, dim: int = -1) -> Node:
    """The integral along dim by the trapezoid rule, with spacing dx."""
    x = to_float(y)
    axis = dimension_of(dim, x.ndim)
    size = x.shape[axis]
    if not size:
        return summed(x, (axis,))
    pairs = ops.add(take_range(x, axis, 1, size), take_range(x, axis, 0, size - 1))
    return summed(pairs, (axis,)) * (dx / 2)


PLAIN = (diff,)
