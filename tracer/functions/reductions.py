"""Reductions over some or all dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import count, full_like, spread, wide_dtype
from tracegrad.ir.types import DType, i64, u8
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.arithmetic import as_bool, not_
from tracegrad.tracer.functions.axes import axes_of, axis_of, keep, reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
    common,
    require_dtype,
    to_float,
)


def summed(x: Node, axes: tuple[int, ...]) -> Node:
    """Sum over axes (dropped), half precision accumulated in float32."""
    if not axes:
        return x
    return cast(ops.sum_(cast(x, wide_dtype(x.dtype)), axes=axes), x.dtype)


def averaged(x: Node, axes: tuple[int, ...]) -> Node:
    """Mean over axes (dropped) of floats."""
    number = count(x.shape, axes)
    wide = cast(x, wide_dtype(x.dtype))
    total = ops.sum_(wide, axes=axes) if axes else wide
    return cast(ops.div(total, full_like(total, float(number))), x.dtype)


def accumulated(x: Node, dtype: DType | None) -> Node:
    """The operand of a sum or product: bools and integers count in int64."""
    if dtype is not None:
        return cast(x, dtype)
    return x if x.dtype.is_inexact else cast(x, i64)


@user_op
def sum_(
    input: Operand, /, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """The sum over dim (all by default). Integers and bools give int64."""
    x = accumulated(as_node(input), dtype)
    axes = axes_of(dim, x.ndim)
    return keep(summed(x, axes), x.shape, axes, keepdim)


@user_op
def nansum(
    input: Operand, /, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """The sum over dim, nan counted as 0."""
    x = as_node(input)
    if x.dtype.is_float:
        x = ops.where(ops.isnan(x), ops.zeros_like(x), x)
    return sum_.emit(x, dim, keepdim, dtype=dtype)


@user_op
def mean(
    input: Operand, /, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """The mean over dim (all by default), of floats."""
    x = as_node(input)
    if dtype is not None:
        x = cast(x, dtype)
    if not x.dtype.is_inexact:
        raise IRTypeError(
            f"mean() of {x.dtype.public_name}: cast to a floating dtype, or give dtype="
        )
    axes = axes_of(dim, x.ndim)
    return keep(averaged(x, axes), x.shape, axes, keepdim)


@user_op
def nanmean(
    input: Operand, /, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """The mean over dim of what is not nan."""
    x = as_node(input) if dtype is None else cast(as_node(input), dtype)
    require_dtype("nanmean", (x,), "f")
    axes = axes_of(dim, x.ndim)
    present = cast(not_(ops.isnan(x)), x.dtype)
    total = summed(ops.where(ops.isnan(x), ops.zeros_like(x), x), axes)
    return keep(ops.div(total, summed(present, axes)), x.shape, axes, keepdim)


@user_op
def prod(
    input: Operand, /, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """The product over dim (all by default). Integers and bools give int64."""
    x = accumulated(as_node(input), dtype)
    axes = axes_of(dim, x.ndim)
    return keep(ops.prod(x, axes=axes) if axes else x, x.shape, axes, keepdim)


def extreme(op: Op, name: str, x: Node, dim: Any, keepdim: bool) -> Node:
    axes = axes_of(dim, x.ndim)
    if 0 in (x.shape[a] for a in axes):
        raise IRTypeError(
            f"{name}() of no elements: a tensor of shape {list(x.shape)} over dim {dim}"
        )
    return keep(op(x, axes=axes) if axes else x, x.shape, axes, keepdim)


@user_op
def amax(input: Operand, /, dim: Any = (), keepdim: bool = False) -> Node:
    """The largest over dim (all by default); nan wins. Ties share the gradient."""
    return extreme(ops.max_, "amax", as_node(input), dim, keepdim)


@user_op
def amin(input: Operand, /, dim: Any = (), keepdim: bool = False) -> Node:
    """The smallest over dim (all by default); nan wins. Ties share the gradient."""
    return extreme(ops.min_, "amin", as_node(input), dim, keepdim)


@user_op(results=("min", "max"))
def aminmax(
    input: Operand, /, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Node, Node]:
    """Smallest and largest over dim (all by default)."""
    x = as_node(input)
    return extreme(ops.min_, "aminmax", x, dim, keepdim), extreme(
        ops.max_, "aminmax", x, dim, keepdim
    )


def position(op: Op, name: str, x: Node, dim: int | None, keepdim: bool) -> Node:
    """argmax or argmin over one axis, or of all elements in row-major order."""
    if x.dtype.is_bool:
        x = cast(x, u8)
    if dim is None:
        if x.type.size == 0:
            raise IRTypeError(f"{name}() of no elements needs dim")
        index = op(reshape(x, (x.type.size,)), axis=0)
        return reshape(index, (1,) * x.ndim) if keepdim else index
    axis = axis_of(dim, x.ndim)
    if x.ndim == 0:
        return ops.splat(0, x.type.with_dtype(i64))
    if x.shape[axis] == 0:
        raise IRTypeError(f"{name}() over a dimension of size 0")
    return keep(op(x, axis=axis), x.shape, (axis,), keepdim)


@user_op
def argmax(input: Operand, /, dim: int | None = None, keepdim: bool = False) -> Node:
    """The int64 index of the largest element, the first of equals; nan wins."""
    return position(ops.argmax, "argmax", as_node(input), dim, keepdim)


@user_op
def argmin(input: Operand, /, dim: int | None = None, keepdim: bool = False) -> Node:
    """The int64 index of the smallest element, the first of equals; nan wins."""
    return position(ops.argmin, "argmin", as_node(input), dim, keepdim)


def picked(x: Node, index: Node, axis: int, keepdim: bool) -> tuple[Node, Node]:
    """(values, indices) of a reduction that picks one element: `index` has size 1 on the axis."""
    if x.ndim == 0:
        return x, ops.splat(0, x.type.with_dtype(i64))
    values = ops.take_along(x, index, axis=axis)
    if keepdim:
        return values, index
    shape = tuple(n for k, n in enumerate(x.shape) if k != axis)
    return reshape(values, shape), reshape(index, shape)


@user_op(results=("values", "indices"), shown="max")
def max_dim(input: Operand, /, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    """The largest along dim and its index; the gradient goes to that element."""
    x = as_node(input)
    return picked(x, position(ops.argmax, "max", x, dim, True), axis_of(dim, x.ndim), keepdim)


@user_op(results=("values", "indices"), shown="min")
def min_dim(input: Operand, /, dim: int, keepdim: bool = False) -> tuple[Node, Node]:
    """The smallest along dim and its index; the gradient goes to that element."""
    x = as_node(input)
    return picked(x, position(ops.argmin, "min", x, dim, True), axis_of(dim, x.ndim), keepdim)


@user_op
def any_(input: Operand, /, dim: Any = None, keepdim: bool = False) -> Node:
    """Whether any element is nonzero."""
    return _bool_reduction(ops.max_, False, input, dim, keepdim)


@user_op
def all_(input: Operand, /, dim: Any = None, keepdim: bool = False) -> Node:
    """Whether every element is nonzero."""
    return _bool_reduction(ops.min_, True, input, dim, keepdim)


def _bool_reduction(op: Op, of_nothing: bool, input: Operand, dim: Any, keepdim: bool) -> Node:
    x = as_bool(input)
    axes = axes_of(dim, x.ndim)
    if 0 in (x.shape[a] for a in axes):
        shape = tuple(n for k, n in enumerate(x.shape) if k not in axes)
        reduced = ops.splat(of_nothing, x.type.with_shape(shape))
    else:
        reduced = op(x, axes=axes) if axes else x
    if as_node(input).dtype is u8:  # as in PyTorch, from the time when uint8 stood for bool
        reduced = cast(reduced, u8)
    return keep(reduced, x.shape, axes, keepdim)


@user_op
def count_nonzero(input: Operand, /, dim: Any = None) -> Node:
    """How many elements are not zero, int64."""
    x = as_bool(input)
    return summed(cast(x, i64), axes_of(dim, x.ndim))


def moments(x: Node, axes: tuple[int, ...], correction: float) -> tuple[Node, Node]:
    """Mean and variance (axes dropped) of floats, two passes, in float32 for half precision.

    The divisor is max(0, n - correction): too few elements give nan.
    """
    wide = cast(x, wide_dtype(x.dtype))
    mean = averaged(wide, axes)
    centred = ops.sub(wide, spread(mean, x.shape, axes))
    total = summed(ops.mul(centred, centred), axes)
    divisor = float(max(0.0, count(x.shape, axes) - correction))
    return mean, ops.div(total, full_like(total, divisor))


def root(x: Node) -> Node:
    """sqrt whose gradient at 0 is 0: where all deviations vanish, so does the gradient."""
    zero = ops.eq(x, ops.zeros_like(x))
    safe = ops.where(zero, ops.ones_like(x), x)
    return ops.where(zero, ops.zeros_like(x), ops.sqrt(safe))


def _make_moments(name: str, doc: str, finish: Callable[[Node, Node], Any]) -> Any:
    """An op of mean and variance: `finish(mean, variance)` is what it returns."""

    def emit(
        input: Operand,
        /,
        dim: Any = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: Any = None,
    ) -> Any:
        x = as_node(input)
        require_dtype(name, (x,), "f")
        if isinstance(dim, bool):  # var(False): the old spelling of unbiased=False
            dim, unbiased = None, dim
        if correction is None:
            correction = 1 if unbiased is None or unbiased else 0
        axes = axes_of(dim, x.ndim)
        kept = [keep(m, x.shape, axes, keepdim) for m in moments(x, axes, float(correction))]
        found = finish(*kept)
        if isinstance(found, tuple):
            return tuple(cast(value, x.dtype) for value in found)
        return cast(found, x.dtype)

    emit.__name__ = emit.__qualname__ = name
    emit.__doc__ = f"{doc} over dim (all by default), the variance divided by n - correction (1)."
    return user_op(emit)


var = _make_moments("var", "The variance", lambda mean, var: var)
std = _make_moments("std", "The standard deviation", lambda mean, var: root(var))
var_mean = _make_moments("var_mean", "Variance and mean", lambda mean, var: (var, mean))
std_mean = _make_moments(
    "std_mean", "Standard deviation and mean", lambda mean, var: (root(var), mean)
)


def joined_axes(x: Node, axes: tuple[int, ...]) -> Node:
    """`x` with `axes` as one last axis."""
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    perm = (*rest, *axes)
    if perm != tuple(range(x.ndim)):
        x = ops.transpose(x, perm=perm)
    return reshape(x, (*x.shape[: len(rest)], count(x.shape, range(len(rest), x.ndim))))


@user_op
def logsumexp(input: Operand, /, dim: Any, keepdim: bool = False) -> Node:
    """log(sum(exp(input))) over dim, without overflow."""
    x = to_float(input)
    axes = axes_of(dim, x.ndim)
    if not axes:
        return x
    if not count(x.shape, axes):
        reduced = ops.log(ops.sum_(ops.exp(x), axes=axes))  # of nothing: log 0
    elif len(axes) == 1:
        reduced = ops.logsumexp(x, axis=axes[0])
    else:
        flat = joined_axes(x, axes)
        reduced = ops.logsumexp(flat, axis=flat.ndim - 1)
    return keep(reduced, x.shape, axes, keepdim)


@user_op
def equal(input: Operand, other: Operand, /) -> Node:
    """Whether shapes and all elements are equal, as a 0-d bool."""
    x, y = as_node(input), as_node(other)
    if x.shape != y.shape:
        return ops.literal(False)
    same = ops.eq(*common(x, y))
    return _bool_reduction(ops.min_, True, same, None, False)
