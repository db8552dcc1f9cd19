"""Dropout, which keeps only its key for backward."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import of_category, register, require, traits
from tracegrad.ir.ops.build import full, full_like
from tracegrad.ir.ops.random import THREEFRY_FLOPS, key_type
from tracegrad.ir.ops.traits import COMPOSITE, RANDOM
from tracegrad.ir.types import TensorType, u32

# ---- dropout(x, key; rate): x / (1 - rate) where random_bits(key) >= rate 2^32, else 0 ----


def _dropout_type(x: TensorType, key: TensorType, rate: float) -> TensorType:
    of_category(x, "f")
    key_type(key)
    require(0.0 <= rate <= 1.0, f"rate must lie in [0, 1], not {rate}")
    return x


def _dropout(x: Node, key: Node, rate: float) -> Node:
    threshold = round(rate * 2**32)
    if threshold == 2**32:  # no u32 reaches it
        return full_like(x, 0)
    if threshold == 0:
        return x
    bits = ops.random_bits(key, shape=x.shape)
    kept = ops.le(full(x.shape, u32, threshold), bits)
    return ops.where(kept, x * (1.0 / (1.0 - rate)), full_like(x, 0))


def _dropout_vjp(ct: Node, y: Node, x: Node, key: Node, rate: float) -> tuple[Node, None]:
    # linear in x: the same mask and scale, drawn again from the key
    return ops.dropout(ct, key, rate=rate), None


dropout = register(
    Op(
        "dropout",
        attrs=("rate",),
        infer=_dropout_type,
        vjp=_dropout_vjp,
        decompose=_dropout,
        traits=traits(COMPOSITE, RANDOM),
        flops=lambda node: (THREEFRY_FLOPS + 2) * node.type.size,
    )
)
