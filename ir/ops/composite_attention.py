"""Scaled dot-product attention, softmax(q k^T scale + mask) v.

Backward keeps q, k, v, the output and the logsumexp of each row of scores, never the T x S weights
(Dao et al. 2022, appendix B); it computes them again from fenced q and k.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import of_category, register, traits
from tracegrad.ir.ops.build import along, full_like, part, plus, spread, swap, to, wide, wide_dtype
from tracegrad.ir.ops.composite_activation import finite_or_zero
from tracegrad.ir.ops.traits import COMPOSITE, CONTRACTION, EXPENSIVE, MULTI
from tracegrad.ir.types import TensorType, TupleType, i64

Parts = tuple[Node | None, ...]
_TRAITS = traits(COMPOSITE, MULTI, CONTRACTION, EXPENSIVE)


def _attention_shape(q: TensorType, k: TensorType, v: TensorType) -> tuple[int, ...]:
    """Checks q[B,H,T,D], k[B,H,S,D], v[B,H,S,E]; returns (B, H, T, S)."""
    of_category(q, "f")
    same_dtype = q.dtype is k.dtype is v.dtype
    if not same_dtype or q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise IRTypeError(f"needs q, k, v of rank 4 and one dtype, not {q}, {k}, {v}")
    if (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]) or k.shape[:3] != v.shape[:3]:
        raise IRTypeError(f"needs q[B,H,T,D], k[B,H,S,D], v[B,H,S,E], not {q}, {k}, {v}")
    if k.shape[2] == 0:
        raise IRTypeError(f"needs at least one key, not {k}")
    return (*q.shape[:3], k.shape[2])


def _result_type(q: TensorType, v: TensorType) -> TupleType:
    out = q.with_shape((*q.shape[:3], v.shape[3]))
    return TupleType((out, TensorType(q.shape[:3], wide_dtype(q.dtype))))


def _flops(factor: float) -> Callable[[Node], float]:
    def flops(node: Node) -> float:
        *batch, t, d = node.inputs[0].shape
        s, e = node.inputs[2].shape[-2:]
        return factor * math.prod(batch) * t * s * (d + e)

    return flops


def _forward(scores: Node, v: Node, empty_rows: bool) -> tuple[Node, Node]:
    """softmax(scores) v and the logsumexp of the rows; 0 for a row of -inf, if there may be one."""
    top = ops.max_(scores, axes=(3,))
    if empty_rows:
        top = finite_or_zero(top)
    weight = ops.exp(scores - spread(top, scores.shape, (3,)))
    mass = ops.sum_(weight, axes=(3,))
    lse = ops.log(mass) + top
    if empty_rows:
        mass = ops.where(ops.eq(mass, full_like(mass, 0)), full_like(mass, 1), mass)
    out = ops.matmul(weight, v)
    return out / spread(mass, out.shape, (3,)), lse


def _backward(
    ct: Node | None, ct_lse: Node | None, q: Node, k: Node, v: Node, out: Node,
    weight: Node, scale: float,
) -> tuple[Node, Node, Node | None, Node]:  # fmt: skip
    """(dq, dk, dv, dscores) where weight = softmax(scores); one cotangent may be absent.

    dv = w^T ct;  ds = w (ct v^T - <ct, out> + ct_lse);  dq = ds k scale;  dk = ds^T q scale
    """
    to_v = to_weight = None
    per_row = ct_lse
    if ct is not None:
        to_v = ops.matmul(swap(weight), ct)
        to_weight = ops.matmul(ct, swap(v))
        per_row = plus(-ops.sum_(ct * out, axes=(3,)), ct_lse)
    assert per_row is not None  # the walk calls no rule without a cotangent
    to_weight = plus(to_weight, spread(per_row, weight.shape, (3,)))
    assert to_weight is not None
    to_scores = weight * to_weight
    return (
        ops.matmul(to_scores, k) * scale,
        ops.matmul(swap(to_scores), q) * scale,
        to_v,
        to_scores,
    )


# ---- sdpa(q, k, v; causal, scale) -> (out, logsumexp); causal: row t sees keys 0..t ----


def _sdpa_type(
    q: TensorType, k: TensorType, v: TensorType, causal: bool, scale: float
) -> TupleType:
    _attention_shape(q, k, v)
    return _result_type(q, v)


def _scores(q: Node, k: Node, causal: bool, scale: float) -> Node:
    scores = ops.matmul(q * scale, swap(k))
    if not causal:
        return scores
    square = scores.shape[2:]
    seen = ops.le(
        ops.iota(shape=square, axis=1, dtype=i64), ops.iota(shape=square, axis=0, dtype=i64)
    )
    hidden = full_like(scores, -math.inf)
    return ops.where(along(seen, scores.shape, (2, 3)), scores, hidden)


def _sdpa(q: Node, k: Node, v: Node, causal: bool, scale: float) -> tuple[Node, Node]:
    out, lse = _forward(_scores(wide(q), wide(k), causal, scale), wide(v), empty_rows=False)
    return to(out, q.dtype), lse


def _weights(q: Node, k: Node, lse: Node, causal: bool, scale: float) -> Node:
    """softmax(scores), computed again from q and k."""
    scores = _scores(ops.fence(q), ops.fence(k), causal, scale)
    return ops.exp(scores - spread(lse, scores.shape, (3,)))


def _sdpa_vjp(
    ct: Parts, result: Node, q: Node, k: Node, v: Node, causal: bool, scale: float
) -> tuple[Node | None, Node | None, Node | None]:
    out, lse = part(result, 0), part(result, 1)
    grads: tuple[Node | None, ...] = (None, None, None)
    if ct[0] is not None:
        whole = ops.sdpa_backward(ct[0], q, k, v, out, lse, causal=causal, scale=scale)
        grads = tuple(part(whole, index) for index in range(3))
    if ct[1] is not None:  # reached in second order only: the backward reads the logsumexp
        weight = _weights(wide(q), wide(k), lse, causal, scale)
        to_q, to_k, _, _ = _backward(
            None, ct[1], wide(q), wide(k), wide(v), wide(out), weight, scale
        )
        grads = (plus(grads[0], to(to_q, q.dtype)), plus(grads[1], to(to_k, k.dtype)), grads[2])
    return grads[0], grads[1], grads[2]


sdpa = register(
    Op(
        "sdpa",
        attrs=("causal", "scale"),
        infer=_sdpa_type,
        vjp=_sdpa_vjp,
        decompose=_sdpa,
        traits=_TRAITS,
        flops=_flops(2.0),
    )
)

# ---- sdpa_backward(ct, q, k, v, out, lse; causal, scale) -> (dq, dk, dv) ----


def _sdpa_backward_type(
    ct: TensorType, q: TensorType, k: TensorType, v: TensorType, out: TensorType, lse: TensorType,
    causal: bool, scale: float,
) -> TupleType:  # fmt: skip
    _attention_shape(q, k, v)
    expected = _result_type(q, v).parts
    if (out, lse) != expected or ct != out:
        raise IRTypeError(
            f"ct, out and lse must be {expected[0]}, {expected}, not {ct}, {out}, {lse}"
        )
    return TupleType((q, k, v))


def _sdpa_backward(
    ct: Node, q: Node, k: Node, v: Node, out: Node, lse: Node, causal: bool, scale: float
) -> tuple[Node, Node, Node]:
    dtype = q.dtype
    ct, q, k, v, out = (wide(x) for x in (ct, q, k, v, out))
    weight = _weights(q, k, lse, causal, scale)
    to_q, to_k, to_v, _ = _backward(ct, None, q, k, v, out, weight, scale)
    assert to_v is not None
    return to(to_q, dtype), to(to_k, dtype), to(to_v, dtype)


sdpa_backward = register(
    Op(
        "sdpa_backward",
        attrs=("causal", "scale"),
        infer=_sdpa_backward_type,
        decompose=_sdpa_backward,
        traits=_TRAITS,
        flops=_flops(5.0),
    )
)

# ---- sdpa_mask(q, k, v, mask[B,H,T,S]; scale) -> (out, logsumexp); scores + mask ----


def _sdpa_mask_type(
    q: TensorType, k: TensorType, v: TensorType, mask: TensorType, scale: float
) -> TupleType:
    expected = q.with_shape(_attention_shape(q, k, v))
    if mask != expected:
        raise IRTypeError(f"the mask must be {expected}, not {mask}")
    return _result_type(q, v)


def _sdpa_mask(q: Node, k: Node, v: Node, mask: Node, scale: float) -> tuple[Node, Node]:
    scores = _scores(wide(q), wide(k), False, scale) + wide(mask)
    out, lse = _forward(scores, wide(v), empty_rows=True)
    return to(out, q.dtype), lse


def _sdpa_mask_vjp(
    ct: Parts, result: Node, q: Node, k: Node, v: Node, mask: Node, scale: float
) -> tuple[Node | None, ...]:
    dtype, lse = q.dtype, part(result, 1)
    wide_q, wide_k, wide_v, out = (wide(x) for x in (q, k, v, part(result, 0)))
    scores = _scores(ops.fence(wide_q), ops.fence(wide_k), False, scale) + wide(mask)
    # a row that sees nothing has the logsumexp -inf; its weights exp(-inf - 0) are 0
    weight = ops.exp(scores - spread(finite_or_zero(lse), scores.shape, (3,)))
    ct_out = None if ct[0] is None else wide(ct[0])
    grads = _backward(ct_out, ct[1], wide_q, wide_k, wide_v, out, weight, scale)
    return tuple(None if grad is None else to(grad, dtype) for grad in grads)


sdpa_mask = register(
    Op(
        "sdpa_mask",
        attrs=("scale",),
        infer=_sdpa_mask_type,
        vjp=_sdpa_mask_vjp,
        decompose=_sdpa_mask,
        traits=_TRAITS,
        flops=_flops(2.0),
    )
)
