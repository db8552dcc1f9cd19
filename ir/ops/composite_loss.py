"""Losses that are one op because together their parts save less."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.hazards import INSIDE, Hazard
from tracegrad.ir.ops.base import index_type, of_category, register, same_type, traits
from tracegrad.ir.ops.build import full_like, reshape, spread, to, wide
from tracegrad.ir.ops.traits import COMPOSITE, ELEMENTWISE
from tracegrad.ir.types import TensorType, i64

# ---- cross_entropy(logits[N, C], target: i64[N]; ignore_index) -> [N], 0 in ignored rows ----


def _cross_entropy_type(logits: TensorType, target: TensorType, ignore_index: int) -> TensorType:
    of_category(logits, "f")
    index_type(target, "target")
    if logits.ndim != 2 or target.shape != logits.shape[:1] or logits.shape[1] == 0:
        raise IRTypeError(f"needs logits[N, C] and target[N], not {logits} and {target}")
    return logits.with_shape(logits.shape[:1])


def _ignored(target: Node, ignore_index: int) -> Node:
    return ops.eq(target, full_like(target, ignore_index))


def _cross_entropy(logits: Node, target: Node, ignore_index: int) -> Node:
    # logsumexp(row) - row[target]
    wide_logits = wide(logits)
    ignored = _ignored(target, ignore_index)
    # an ignored target may lie outside [0, C)
    column = ops.where(ignored, full_like(target, 0), target)
    column = reshape(column, (*target.shape, 1))
    picked = reshape(ops.take_along(wide_logits, column, axis=1), target.shape)
    loss = ops.logsumexp(wide_logits, axis=1) - picked
    return to(ops.where(ignored, full_like(loss, 0), loss), logits.dtype)


def _cross_entropy_vjp(
    ct: Node, loss: Node, logits: Node, target: Node, ignore_index: int
) -> tuple[Node, None]:
    # ct (softmax - onehot), zero in ignored rows; saves the logits and one logsumexp a row (the
    # forward's own, merged by cse), and computes softmax = exp(logits - logsumexp) again
    shape = logits.shape
    sums = ops.logsumexp(wide(logits), axis=1)
    p = ops.exp(wide(ops.fence(logits)) - spread(sums, shape, (1,)))
    hit = ops.eq(ops.iota(shape=shape, axis=1, dtype=i64), spread(target, shape, (1,)))
    kept = ops.where(_ignored(target, ignore_index), full_like(ct, 0), ct)
    per_row = spread(wide(kept), shape, (1,))
    return to(per_row * (p - to(hit, p.dtype)), logits.dtype), None


cross_entropy = register(
    Op(
        "cross_entropy",
        attrs=("ignore_index",),
        infer=_cross_entropy_type,
        vjp=_cross_entropy_vjp,
        decompose=_cross_entropy,
        traits=traits(COMPOSITE),
        flops=lambda node: 5.0 * node.inputs[0].type.size,
        hazards=lambda node: [Hazard(INSIDE, node)],  # a target outside [0, C)
    )
)

# ---- binary_cross_entropy(x, target): probabilities; each logarithm is cut off at -100 ----


def _bce(x: Node, target: Node) -> Node:
    p, t = wide(x), wide(target)
    log_p = ops.maximum(ops.log(p), full_like(p, -100.0))
    log_rest = ops.maximum(ops.log1p(-p), full_like(p, -100.0))
    return to((t - 1.0) * log_rest - t * log_p, x.dtype)


def _bce_vjp(ct: Node, loss: Node, x: Node, target: Node) -> tuple[Node, Node]:
    # (p - t) / (p (1 - p)), finite at 0 and 1 too; and log(1 - p) - log(p)
    p, t, ct = wide(x), wide(target), wide(ct)
    slope = (p - t) / ops.maximum(p * (1.0 - p), full_like(p, 1e-12))
    return to(ct * slope, x.dtype), to(ct * (ops.log1p(-p) - ops.log(p)), target.dtype)


binary_cross_entropy = register(
    Op(
        "binary_cross_entropy",
        infer=same_type("f", 2),
        vjp=_bce_vjp,
        decompose=_bce,
        traits=traits(COMPOSITE, ELEMENTWISE),
        flops=lambda node: 20.0 * node.inputs[0].type.size,
    )
)
