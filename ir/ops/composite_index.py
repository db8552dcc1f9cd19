"""The k largest or smallest along an axis."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import checked_axis, of_category, register, traits
from tracegrad.ir.ops.build import full_like, part
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.ops.traits import COMPOSITE, EXPENSIVE, MULTI
from tracegrad.ir.types import TensorType, TupleType, i64

# ---- topk(x; k, axis, largest) -> (values, i64 indices), sorted, nan counts as the largest ----


def _topk_type(x: TensorType, k: int, axis: int, largest: bool) -> TupleType:
    of_category(x, "if")
    checked_axis(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise IRTypeError(f"k={k} of {x.shape[axis]} elements along axis {axis}")
    values = x.with_shape((*x.shape[:axis], k, *x.shape[axis + 1 :]))
    return TupleType((values, values.with_dtype(i64)))


def _topk(x: Node, k: int, axis: int, largest: bool) -> tuple[Node, Node]:
    order = ops.argsort(x, axis=axis, descending=largest)
    first = take_range(order, axis, 0, k)
    return ops.take_along(x, first, axis=axis), first


def _topk_vjp(
    ct: tuple[Node | None, ...], out: Node, x: Node, k: int, axis: int, largest: bool
) -> tuple[Node | None]:
    # to the positions that were taken; saves the indices
    if ct[0] is None:
        return (None,)
    zeros = full_like(x, 0)
    return (ops.scatter_along(zeros, part(out, 1), ct[0], axis=axis, mode="add"),)


topk = register(
    Op(
        "topk",
        attrs=("k", "axis", "largest"),
        infer=_topk_type,
        vjp=_topk_vjp,
        decompose=_topk,
        traits=traits(COMPOSITE, MULTI, EXPENSIVE),
        flops=lambda node: 10.0 * node.inputs[0].type.size,
    )
)
