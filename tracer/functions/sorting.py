"""Sorting, what follows from an order (medians, quantiles, bins), counts and covariances."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like, part
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import f32, f64, i32, i64
from tracegrad.tracer.creation.tensors import zeros
from tracegrad.tracer.dispatch import Weak, user_op
from tracegrad.tracer.errors import InvalidValueError, ShapeError
from tracegrad.tracer.functions.activations import clipped
from tracegrad.tracer.functions.axes import axis_of, reshape
from tracegrad.tracer.functions.checking import linked
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
    promote,
    require_dtype,
    require_same_dtype,
    to_float,
)
from tracegrad.tracer.functions.reductions import averaged, picked
from tracegrad.tracer.functions.triangles import diagonal_of


def sorted_along(x: Node, axis: int, descending: bool) -> tuple[Node, Node]:
    """(values, i64 indices), stable, nan last."""
    order = ops.argsort(x, axis=axis, descending=descending)
    return ops.take_along(x, order, axis=axis), order


@user_op(results=("values", "indices"))
def sort(
    input: Operand, /, dim: int = -1, descending: bool = False, *, stable: bool = True
) -> tuple[Node, Node]:
    """Values in order along dim and where they came from; always stable, nan counts as largest."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return x, ops.splat(0, x.type.with_dtype(i64))
    return sorted_along(x, axis, descending)


@user_op
def argsort(
    input: Operand, /, dim: int = -1, descending: bool = False, *, stable: bool = True
) -> Node:
    """The indices that sort along dim, int64; stable."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return ops.splat(0, x.type.with_dtype(i64))
    return ops.argsort(x, axis=axis, descending=descending)


@user_op
def msort(input: Operand, /) -> Node:
    """Values in order along dimension 0."""
    x = as_node(input)
    return sorted_along(x, 0, False)[0] if x.ndim else x


@user_op(results=("values", "indices"))
def topk(
    input: Operand, /, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Node, Node]:
    """The k largest (smallest) along dim, in order, and their indices."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    size = x.shape[axis] if x.ndim else 1
    if not 0 <= k <= size:
        raise IRTypeError(f"topk(): k={k} of a dimension of size {size}")
    if x.ndim == 0:
        return x, ops.splat(0, x.type.with_dtype(i64))
    whole = ops.topk(x, k=k, axis=axis, largest=largest)
    return part(whole, 0), part(whole, 1)


@user_op(results=("values", "indices"))
def kthvalue(input: Operand, /, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Node, Node]:
    """The k-th smallest (from 1) along dim and its index."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    size = x.shape[axis] if x.ndim else 1
    if not 1 <= k <= size:
        raise IRTypeError(f"kthvalue(): k={k} of a dimension of size {size}")
    if x.ndim == 0:
        return picked(x, x, 0, keepdim)
    order = ops.argsort(x, axis=axis, descending=False)
    return picked(x, take_range(order, axis, k - 1, k), axis, keepdim)


def middle(x: Node, axis: int, ignore_nan: bool) -> Node:
    """Index (size 1 on the axis) of the lower median; of a nan if there is one and it is not
    ignored.
    """
    size = x.shape[axis]
    order = ops.argsort(x, axis=axis, descending=False)
    at = take_range(order, axis, (size - 1) // 2, (size - 1) // 2 + 1)
    if not x.dtype.is_float:
        return at
    missing = ops.isnan(x)
    number = ops.sum_(ops.cast(missing, dtype=i64), axes=(axis,))
    number = reshape(number, at.shape)
    if ignore_nan:
        place = ops.floor_div(
            ops.maximum(size - 1 - number, ops.zeros_like(number)), full_like(number, 2)
        )
        return ops.take_along(order, place, axis=axis)
    first = reshape(ops.argmax(cast(missing, i32), axis=axis), at.shape)
    return ops.where(ops.eq(number, ops.zeros_like(number)), at, first)


def _median(input: Operand, ignore_nan: bool, name: str) -> Node:
    x = as_node(input)
    flat = reshape(x, (x.type.size,))
    if not x.type.size:
        require_dtype(name, (x,), "f")
        return linked(ops.splat(float("nan"), x.type.with_shape(())), x)
    return reshape(ops.take_along(flat, middle(flat, 0, ignore_nan), axis=0), ())


def _median_dim(input: Operand, dim: int, keepdim: bool, ignore_nan: bool) -> tuple[Node, Node]:
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return picked(x, x, 0, keepdim)
    return picked(x, middle(x, axis, ignore_nan), axis, keepdim)


@user_op(shown="median")
def median_all(input: Operand, /) -> Node:
    """The lower median of all elements; nan if there is one."""
    return _median(input, False, "median")


@user_op(results=("values", "indices"), shown="median")
def median_dim(input: Operand, /, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    """The lower median along dim and its index; nan wins."""
    return _median_dim(input, dim, keepdim, False)


@user_op(shown="nanmedian")
def nanmedian_all(input: Operand, /) -> Node:
    """The lower median of what is not nan."""
    return _median(input, True, "nanmedian")


@user_op(results=("values", "indices"), shown="nanmedian")
def nanmedian_dim(input: Operand, /, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    """The lower median along dim of what is not nan, and its index."""
    return _median_dim(input, dim, keepdim, True)


@user_op(results=("values", "indices"))
def mode(input: Operand, /, dim: int = -1, keepdim: bool = False) -> tuple[Node, Node]:
    """The most frequent value along dim (the smallest of equals) and its last index."""
    x = as_node(input)
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return picked(x, x, 0, keepdim)
    values, order = sorted_along(x, axis, False)
    size = x.shape[axis]
    steps = ops.iota(shape=x.shape, axis=axis, dtype=i64)
    # A run ends where the next value differs; its length is the distance from the run's start.
    same = ops.eq(take_range(values, axis, 1, size), take_range(values, axis, 0, size - 1))
    lead, later = take_range(steps, axis, 0, 1), take_range(steps, axis, 1, size)
    starts = ops.concatenate(lead, ops.where(same, ops.zeros_like(later), later), axis=axis)
    length = ops.sub(steps, ops.cummax(starts, axis=axis))
    best = reshape(ops.argmax(length, axis=axis), lead.shape)
    return picked(x, ops.take_along(order, best, axis=axis), axis, keepdim)


_INTERPOLATIONS = ("linear", "lower", "higher", "nearest", "midpoint")


@user_op
def quantile(
    input: Operand,
    q: Operand,
    /,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Node:
    """The q-th quantiles along dim (None: of all); q's dimension comes first. nan wins."""
    x = as_node(input)
    require_dtype("quantile", (x,), "f")
    if interpolation not in _INTERPOLATIONS:
        raise IRTypeError(f"quantile(): interpolation must be one of {', '.join(_INTERPOLATIONS)}")
    wanted = cast(q.node, x.dtype) if isinstance(q, Weak) else q
    require_same_dtype("quantile", x, wanted)
    if wanted.ndim > 1:
        raise IRTypeError(f"quantile(): q is a number or a vector, not {list(wanted.shape)}")
    ndim = x.ndim
    axis = 0 if dim is None else axis_of(dim, ndim)
    if dim is None or not ndim:
        x, dim = reshape(x, (x.type.size,)), None
    last = [k for k in range(x.ndim) if k != axis]
    x = ops.transpose(x, perm=(axis, *last)) if last else x
    values, _ = sorted_along(x, 0, False)
    size, rest = values.shape[0], values.shape[1:]
    level = reshape(wanted, (wanted.type.size,)) * float(size - 1)
    below, above = ops.floor(level), ops.ceil(level)
    share = ops.sub(level, below)
    if interpolation == "nearest":
        below = above = ops.round_(level)
    elif interpolation == "lower":
        above = below
    elif interpolation == "higher":
        below = above
    elif interpolation == "midpoint":
        share = full_like(share, 0.5)
    low, high = (
        ops.gather(values, ops.cast(level_, dtype=i64), axes=(0,)) for level_ in (below, above)
    )
    shares = ops.broadcast_to(share, shape=low.shape, dims=(0,))
    result = ops.add(low, ops.mul(shares, ops.sub(high, low)))
    missing = ops.broadcast_to(
        ops.max_(x, axes=(0,)), shape=low.shape, dims=tuple(range(1, low.ndim))
    )
    result = ops.where(ops.isnan(missing), missing, result)
    shape = list(rest)
    if keepdim:
        shape = [1] * ndim if dim is None else [*rest[:axis], 1, *rest[axis:]]
    return reshape(result, (*wanted.shape, *shape))


@user_op
def searchsorted(
    sorted_sequence: Operand,
    values: Operand,
    /,
    *,
    right: bool = False,
    out_int32: bool = False,
    side: str | None = None,
) -> Node:
    """Where values go in sorted rows to keep them sorted: how many elements are below (right: not
    above); nan is above all.
    """
    sequence, wanted = promote(sorted_sequence, values)
    if side not in (None, "left", "right") or (right and side == "left"):
        raise IRTypeError(
            f'searchsorted(side={side!r}, right={right}): "left" or "right", not both'
        )
    right = right or side == "right"
    one_row = sequence.ndim == 1
    if not one_row and sequence.shape[:-1] != wanted.shape[:-1]:
        raise IRTypeError(
            f"searchsorted(): rows {list(sequence.shape)} and values {list(wanted.shape)} "
            f"differ in front"
        )
    shape = (*wanted.shape, sequence.shape[-1])
    lead = tuple(range(sequence.ndim - 1))
    steps = ops.broadcast_to(
        sequence, shape=shape, dims=(*(() if one_row else lead), len(shape) - 1)
    )
    levels = ops.broadcast_to(wanted, shape=shape, dims=tuple(range(wanted.ndim)))
    behind = ops.lt(levels, steps) if right else ops.le(levels, steps)
    before = ops.bitwise_not(behind)
    count = ops.sum_(ops.cast(before, dtype=i64), axes=(len(shape) - 1,))
    return cast(count, i32) if out_int32 else count


def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """The bucket of every element, given sorted boundaries."""
    if boundaries.ndim != 1:
        raise ShapeError(f"bucketize(): boundaries are a vector, not {list(boundaries.shape)}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@user_op
def isin(elements: Operand, test_elements: Operand, /, *, invert: bool = False) -> Node:
    """Whether each element is one of test_elements."""
    x, tests = promote(elements, test_elements)
    shape = (*x.shape, tests.type.size)
    wide = ops.broadcast_to(x, shape=shape, dims=tuple(range(x.ndim)))
    row = ops.broadcast_to(reshape(tests, (tests.type.size,)), shape=shape, dims=(x.ndim,))
    if not tests.type.size:
        return ops.splat(invert, ops.eq(x, x).type)
    found = ops.max_(ops.eq(wide, row), axes=(x.ndim,))
    return ops.bitwise_not(found) if invert else found


@user_op(shown="bincount")
def bincount_sized(input: Operand, weights: Operand | None = None, /, *, length: int) -> Node:
    """How often (with what total weight) each of 0 .. length - 1 occurs in a vector."""
    x = cast(as_node(input), i64)
    one = ops.splat(1, x.type)
    if weights is not None:
        one = as_node(weights)
        if one.shape != x.shape:
            raise IRTypeError(f"bincount(): weights {list(one.shape)} of {list(x.shape)} numbers")
        one = one if one.dtype is f32 else cast(one, f64)
    base = ops.splat(0, x.type.with_shape((length,)).with_dtype(one.dtype))
    return ops.scatter(base, x, one, axes=(0,), mode="add")


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each integer from 0 on occurs; the length is the largest plus one, or minlength."""
    if input.ndim != 1 or not input.dtype.is_int or minlength < 0:
        raise InvalidValueError(
            f"bincount() of a {input.dtype} tensor of shape {list(input.shape)}, minlength={minlength}",
            fix="give a vector of integers that are not negative",
        )
    if not input.numel():
        return zeros(minlength, dtype=i64)
    # Compiled, only the comparison is asked of the values: one graph where minlength is enough.
    largest = input.max().item()
    length = minlength if largest < minlength else int(largest) + 1
    return bincount_sized(input, weights, length=length)


@user_op
def histc_(input: Operand, /, *, bins: int, min: float, max: float) -> Node:
    """Counts in equal bins between min and max; others are left out."""
    x = as_node(input)
    require_dtype("histc", (x,), "f")
    flat = reshape(x, (x.type.size,))
    low, high = full_like(flat, min), full_like(flat, max)
    inside = ops.and_(ops.le(low, flat), ops.le(flat, high))
    place = ops.cast(ops.floor(ops.sub(flat, low) * (bins / (max - min))), dtype=i64)
    place = ops.minimum(place, full_like(place, bins - 1))
    place = ops.where(inside, place, ops.zeros_like(place))
    base = ops.splat(0, flat.type.with_shape((bins,)))
    return ops.scatter(base, place, cast(inside, flat.dtype), axes=(0,), mode="add")


def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts in equal bins between min and max (if they are equal: the extremes of input)."""
    if bins < 1 or min > max:
        raise InvalidValueError(
            f"histc(bins={bins}, min={min}, max={max})", fix="give a bin or more, and min <= max"
        )
    if min == max and input.numel():
        min, max = float(input.min()), float(input.max())
    if min == max:
        min, max = min - 1, max + 1
    return histc_(input, bins=bins, min=float(min), max=float(max))


@user_op
def corrcoef(input: Operand, /) -> Node:
    """Correlations of the rows of a matrix; of one row, or a vector, a 0-d tensor."""
    c = covariance(as_node(input), 1.0)
    if not c.ndim:
        return ops.div(c, c)
    scale = ops.sqrt(diagonal_of(c, 0, 0, 1))
    rows = ops.broadcast_to(scale, shape=c.shape, dims=(0,))
    columns = ops.broadcast_to(scale, shape=c.shape, dims=(1,))
    return clipped(ops.div(ops.div(c, rows), columns), -1.0, 1.0)


@user_op
def cov(input: Operand, /, *, correction: int = 1) -> Node:
    """Covariances of the rows of a matrix; of one row, or a vector, its variance, 0-d."""
    return covariance(as_node(input), float(correction))


def covariance(x: Node, correction: float) -> Node:
    require_dtype("cov", (x,), "if")
    if x.ndim > 2:
        raise IRTypeError(f"cov() needs variables as rows of a matrix, got {list(x.shape)}")
    x = to_float(x)
    x = x if x.ndim == 2 else reshape(x, (1, x.type.size))
    mean = ops.broadcast_to(averaged(x, (1,)), shape=x.shape, dims=(0,))
    centred = ops.sub(x, mean)
    product = ops.matmul(centred, ops.transpose(centred, perm=(1, 0)))
    freedom = max(x.shape[1] - correction, 0.0)
    result = ops.div(product, full_like(product, freedom))
    return reshape(result, ()) if result.shape == (1, 1) else result


PLAIN = (bucketize, bincount, histc)
