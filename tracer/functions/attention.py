"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like, part, swap
from tracegrad.ir.types import f32
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.activations import checked_rate, floating
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast_shapes,
    cast,
    expand,
    require_same_dtype,
)
from tracegrad.tracer.functions.triangles import band


def four(x: Node, batch: tuple[int, ...]) -> Node:
    """[.., T, D] as [B, H, T, D], its leading dimensions broadcast to `batch`."""
    x = expand(x, (*batch, *x.shape[-2:]))
    heads = batch[-1] if batch else 1
    rows = math.prod(batch[:-1])
    return reshape(x, (rows, heads, *x.shape[-2:]))


def additive(mask: Node, like: Node) -> Node:
    """A mask as numbers to add to scores: bool False becomes -inf."""
    if mask.dtype is like.dtype or mask.dtype is f32:
        return cast(mask, like.dtype)
    if not mask.dtype.is_bool:
        raise IRTypeError(
            f"attn_mask is bool, float32 or of the query's dtype, not {mask.dtype.public_name}"
        )
    zero = ops.splat(0.0, mask.type.with_dtype(like.dtype))
    return ops.where(mask, zero, full_like(zero, -math.inf))


def _grouped(x: Node, heads: int) -> Node:
    """Key or value heads repeated to the number of query heads (grouped-query attention)."""
    own = x.shape[-3]
    if own == heads:
        return x
    if heads % own:
        raise IRTypeError(f"{heads} query heads are not a multiple of {own} key heads")
    *batch, _, t, d = x.shape
    spread = (*batch, own, heads // own, t, d)
    k = len(batch)
    wide = ops.broadcast_to(x, shape=spread, dims=(*range(k + 1), k + 2, k + 3))
    return reshape(wide, (*batch, heads, t, d))


@user_op
def attention_(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    random_key: Operand | None = None,
    /,
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Node:
    """softmax(query key^T scale + mask) value, over [.., T, D]."""
    q, k, v = (floating("scaled_dot_product_attention", x) for x in (query, key, value))
    require_same_dtype("scaled_dot_product_attention", q, k, v)
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise IRTypeError(
            f"attention needs query[.., T, D], key[.., S, D], value[.., S, E], got "
            f"{list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if is_causal and attn_mask is not None:
        raise IRTypeError("attention takes attn_mask or is_causal=True, not both")
    if enable_gqa:
        k, v = _grouped(k, q.shape[-3]), _grouped(v, q.shape[-3])
    batch = broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    factor = 1.0 / math.sqrt(q.shape[-1] or 1) if scale is None else float(scale)
    shape = (*batch, q.shape[-2], v.shape[-1])
    if attn_mask is not None:
        mask = additive(as_node(attn_mask), q)
        batch = broadcast_shapes(batch, mask.shape[:-2])
        shape = (*batch, *shape[-2:])
        mask = expand(mask, (*batch, q.shape[-2], k.shape[-2]))
        mask = four(mask, batch)
    q, k, v = four(q, batch), four(k, batch), four(v, batch)
    if not k.shape[-2]:  # no keys: zeros
        return reshape(ops.matmul(ops.matmul(q, swap(k)), v), shape)
    if dropout_p:
        assert random_key is not None
        weight = ops.matmul(q * factor, swap(k))
        if is_causal:
            seen = band(weight.shape, 0, True)
            weight = ops.where(seen, weight, full_like(weight, -math.inf))
        if attn_mask is not None:
            weight = ops.add(weight, mask)
        weight = ops.dropout(
            ops.softmax(weight, axis=3), as_node(random_key), rate=checked_rate(dropout_p)
        )
        return reshape(ops.matmul(weight, v), shape)
    if attn_mask is not None:
        return reshape(part(ops.sdpa_mask(q, k, v, mask, scale=factor), 0), shape)
    return reshape(part(ops.sdpa(q, k, v, causal=bool(is_causal), scale=factor), 0), shape)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query key^T scale + mask) value over [.., T, D]; a bool mask says what may be seen.

    is_causal hides later positions (aligned at the first). dropout_p applies whenever it is not 0,
    as in PyTorch.
    """
    from tracegrad.tracer.creation.random import next_key  # tensors come after functions

    random_key = next_key() if dropout_p else None
    return attention_(
        query,
        key,
        value,
        attn_mask,
        random_key,
        dropout_p=float(dropout_p),
        is_causal=bool(is_causal),
        scale=scale,
        enable_gqa=bool(enable_gqa),
    )


PLAIN = (scaled_dot_product_attention,)
