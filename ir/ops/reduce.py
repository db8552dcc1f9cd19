"""Reductions, which drop their axes, and running reductions along one axis. The dtype stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    along_axis,
    checked_axes,
    input_flops,
    of_category,
    register,
    require,
    traits,
    without_axes,
)
from tracegrad.ir.ops.build import spread
from tracegrad.ir.ops.elementwise import conj_if_complex as _conj
from tracegrad.ir.ops.shape import reverse_axes, take_range
from tracegrad.ir.ops.traits import REDUCTION
from tracegrad.ir.types import TensorType, i64

Axes = tuple[int, ...]
VJP = Callable[..., tuple[Any, ...]]


def _reduction(name: str, categories: str, vjp: VJP, *, has_identity: bool) -> Op:
    def infer(x: TensorType, axes: Axes) -> TensorType:
        of_category(x, categories)
        checked_axes(axes, x.ndim)
        if not has_identity:
            require(all(x.shape[axis] > 0 for axis in axes), "no extreme of an empty axis")
        return x.with_shape(without_axes(x.shape, axes))

    return register(
        Op(
            name,
            attrs=("axes",),
            infer=infer,
            vjp=vjp,
            traits=traits(REDUCTION),
            flops=input_flops,
        )
    )


# ---------------------------------------------------------------- sum, prod, max, min


def _sum_vjp(ct: Node, y: Node, x: Node, axes: Axes) -> tuple[Node]:
    return (spread(ct, x.shape, axes),)


def _prod_vjp(ct: Node, y: Node, x: Node, axes: Axes) -> tuple[Node]:
    """Multiplies pairs of halves up a tree and walks it back down.

    d(a b) = b da + a db at each level, so that no division by a factor, which may be zero, is
    needed and every order is exact. n factors cost 3 n multiplications.
    """
    if x.type.size == 0:
        return (ops.zeros_like(x),)
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    perm = (*kept, *axes)
    moved = ops.transpose(x, perm=perm)
    rows = ct.type.size
    level = ops.reshape(moved, shape=(rows, x.type.size // rows))
    halves: list[tuple[Node, Node, bool]] = []
    while (n := level.shape[1]) > 1:
        odd = n % 2 == 1
        if odd:
            one = ops.splat(1, level.type.with_shape((rows, 1)))
            level = ops.concatenate(level, one, axis=1)
            n += 1
        a, b = take_range(level, 1, 0, n // 2), take_range(level, 1, n // 2, n)
        halves.append((a, b, odd))
        level = a * b
    grad = ops.reshape(ct, shape=(rows, 1))
    for a, b, odd in reversed(halves):
        grad = ops.concatenate(grad * _conj(b), grad * _conj(a), axis=1)
        if odd:
            grad = take_range(grad, 1, 0, grad.shape[1] - 1)
    inverse = tuple(sorted(range(len(perm)), key=perm.__getitem__))
    return (ops.transpose(ops.reshape(grad, shape=moved.shape), perm=inverse),)


def _extreme_vjp(ct: Node, y: Node, x: Node, axes: Axes) -> tuple[Node]:
    # Elements that tie share the gradient evenly (PyTorch's amax).
    hit = ops.eq(x, spread(y, x.shape, axes))
    count = ops.sum_(ops.cast(hit, dtype=x.dtype), axes=axes)
    return (ops.where(hit, spread(ct / count, x.shape, axes), ops.zeros_like(x)),)


sum_ = _reduction("sum", "ifc", _sum_vjp, has_identity=True)
prod = _reduction("prod", "ifc", _prod_vjp, has_identity=True)
# They propagate nan; on bool they are any and all.
max_ = _reduction("max", "bif", _extreme_vjp, has_identity=False)
min_ = _reduction("min", "bif", _extreme_vjp, has_identity=False)

# ---------------------------------------------------------------- running reductions


def _shifted(x: Node, axis: int, distance: int, fill: float) -> Node:
    """s[i] = x[i + distance], and `fill` beyond either end."""
    n = x.shape[axis]
    length = min(abs(distance), n)
    border = ops.splat(fill, x.type.with_shape((*x.shape[:axis], length, *x.shape[axis + 1 :])))
    if distance > 0:
        return ops.concatenate(take_range(x, axis, length, n), border, axis=axis)
    return ops.concatenate(border, take_range(x, axis, 0, n - length), axis=axis)


def _backward_recurrence(a: Node, b: Node, axis: int) -> Node:
    """s[i] = b[i] + a[i] s[i + 1], with 0 beyond the end, by doubling in log2(n) steps.

    Only products and sums of the given numbers (Hillis & Steele 1986): exact where some are zero.
    """
    distance = 1
    while distance < b.shape[axis]:
        b = b + a * _shifted(b, axis, distance, 0)
        a = a * _shifted(a, axis, distance, 0)
        distance *= 2
    return b


def _cumsum_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    back = ops.cumsum(reverse_axes(ct, (axis,)), axis=axis)
    return (reverse_axes(back, (axis,)),)


def _cumprod_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # dx[i] = prod(x[:i]) * sum over k >= i of ct[k] prod(x[i+1 : k+1]); the sum s obeys
    # s[i] = ct[i] + x[i+1] s[i+1]. No division, so zeros among x do no harm.
    s = _backward_recurrence(_conj(_shifted(x, axis, 1, 0)), ct, axis)
    return (_conj(_shifted(y, axis, -1, 1)) * s,)


def _cumulative_extreme_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # The gradient goes to the position that set the record: the latest one so far where x = y.
    hit = ops.or_(ops.eq(x, y), ops.isnan(x))
    position = ops.iota(shape=x.shape, axis=axis, dtype=i64)
    index = ops.cummax(ops.where(hit, position, ops.zeros_like(position)), axis=axis)
    return (ops.scatter_along(ops.zeros_like(x), index, ct, axis=axis, mode="add"),)


def _cumlogsumexp_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # dx[i] = exp(x[i] - y[i]) t[i], t[i] = sum over k >= i of ct[k] exp(y[i] - y[k]), and so
    # t[i] = ct[i] + exp(y[i] - y[i+1]) t[i+1]; y grows, so no exponent is positive.
    empty = ops.eq(y, ops.splat(float("-inf"), y.type))  # nothing but -inf so far: no gradient
    safe = ops.where(empty, ops.zeros_like(y), y)
    following = _shifted(y, axis, 1, float("inf"))
    decay = ops.where(empty, ops.zeros_like(y), ops.exp(safe - ops.maximum(following, safe)))
    t = _backward_recurrence(decay, ct, axis)
    weight = ops.exp(ops.where(empty, ops.zeros_like(x), x) - safe)
    return (ops.where(empty, ops.zeros_like(x), weight * t),)


def _running(name: str, categories: str, vjp: VJP) -> Op:
    return register(
        Op(name, attrs=("axis",), infer=along_axis(categories), vjp=vjp, flops=input_flops)
    )


cumsum = _running("cumsum", "ifc", _cumsum_vjp)
cumprod = _running("cumprod", "ifc", _cumprod_vjp)
cummax = _running("cummax", "bif", _cumulative_extreme_vjp)
cummin = _running("cummin", "bif", _cumulative_extreme_vjp)
cumlogsumexp = _running("cumlogsumexp", "f", _cumlogsumexp_vjp)
