"""Rewrite rules of matrix products: batches that share a weight are one large product.

A linear layer on x[B, T, D] has one weight for all B. As B products of T rows it runs at the speed
of small matrices; as one product of B*T rows it is a single BLAS call. Its weight gradient, summed
over B, is the same: one product whose inner size is B*T.
"""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.build import reshape, swap
from tracegrad.ir.types import TensorType, f32
from tracegrad.passes.rules.patterns import Match, op, var
from tracegrad.passes.rules.rewrite import Rule, rule

x, y, w = var("x"), var("y"), var("w")


def _shared_matrix(broadcast: Node) -> Node | None:
    """The matrix w[k, n] that `broadcast_to` repeats along batch axes only, as a 2-D node."""
    source, dims, shape = broadcast.inputs[0], broadcast.attrs["dims"], broadcast.shape
    rank = len(shape)
    placed = dict(zip(dims, source.shape))
    if any(placed.get(axis, 1) != 1 for axis in range(rank - 2)):
        return None
    if any(placed.get(axis) != shape[axis] for axis in (rank - 2, rank - 1)):
        return None
    return reshape(source, shape[-2:])


def _flatten_rows(found: Match) -> Node | None:
    """x[.., m, k] @ w[k, n] -> (x as rows) @ w, then back."""
    weight = _shared_matrix(found["wide"])
    if weight is None or found.root.type.size == 0:
        return None
    *batch, m, k = found.x.shape
    rows = reshape(found.x, (prod(batch) * m, k))
    return reshape(ops.matmul(rows, weight), found.root.shape)


def _sum_of_products(found: Match) -> Node | None:
    """sum over b of x[b, m, k] @ y[b, k, n] -> one product with inner size b*k."""
    product = found["product"]
    batch = product.ndim - 2
    if batch == 0 or found.root.attrs["axes"] != tuple(range(batch)) or product.type.size == 0:
        return None
    *_, m, k = found.x.shape
    n = found.y.shape[-1]
    inner = prod(found.x.shape[:-2]) * k
    # In a gradient x is a transposed activation: transposing it back costs nothing, and both
    # operands are then plain rows.
    left = swap(reshape(swap(found.x), (inner, m)))
    return ops.matmul(left, reshape(found.y, (inner, n)))


def _example_linear(batch: tuple[int, ...]) -> Graph:
    rows = placeholder(TensorType((*batch, 3, 4), f32))
    weight = placeholder(TensorType((4, 5), f32))
    rank = len(batch) + 2
    wide = ops.broadcast_to(weight, shape=(*batch, 4, 5), dims=(rank - 2, rank - 1))
    return Graph((rows, weight), (ops.matmul(rows, wide),))


def _example_gradient(batch: tuple[int, ...]) -> Graph:
    rows = placeholder(TensorType((*batch, 3, 4), f32))
    ct = placeholder(TensorType((*batch, 3, 5), f32))
    product = ops.matmul(swap(rows), ct)
    return Graph((rows, ct), (ops.sum_(product, axes=tuple(range(len(batch)))),))


CONTRACTIONS: tuple[Rule, ...] = (
    rule(
        "matmul-shared-weight",
        op("matmul", x, op("broadcast_to", w, label="wide")),
        to=_flatten_rows,
        examples=(lambda: _example_linear((2,)), lambda: _example_linear((2, 3))),
    ),
    rule(
        "sum-of-matmuls",
        op("sum", op("matmul", x, y, label="product")),
        to=_sum_of_products,
        examples=(lambda: _example_gradient((2,)), lambda: _example_gradient((2, 3))),
    ),
)
