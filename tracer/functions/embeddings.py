"""One-hot vectors and rows of an embedding table."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.types import TensorType, i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.functions.checking import required
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    cast,
)
from tracegrad.tracer.locate import here


def indicator(target: Node, classes: int) -> Node:
    """Bool [.., classes]: which class each target is."""
    shape = (*target.shape, classes)
    wide = ops.broadcast_to(target, shape=shape, dims=tuple(range(target.ndim)))
    return ops.eq(ops.iota(shape=shape, axis=target.ndim, dtype=i64), wide)


@user_op(shown="one_hot")
def one_hot_classes(input: Operand, /, num_classes: int) -> Node:
    """1 at the class, 0 elsewhere, int64 [.., num_classes]."""
    target = as_node(input)
    if target.dtype is not i64:
        raise IRTypeError(f"one_hot() needs int64 classes, not {target.dtype.public_name}")
    count = ops.splat(num_classes, target.type)
    legal = ops.and_(ops.le(ops.zeros_like(target), target), ops.lt(target, count))
    target = required(target, legal, f"one_hot() needs classes in [0, {num_classes})")
    return cast(indicator(target, num_classes), i64)


def one_hot(input: Any, num_classes: int = -1) -> Any:
    """1 at the class, 0 elsewhere, int64 [.., num_classes]; -1 takes the largest class from the
    values.
    """
    if num_classes == -1:
        num_classes = int(input.max().item()) + 1
    return one_hot_classes(input, num_classes)


@user_op
def embedding_(input: Operand, weight: Operand, /, *, padding_idx: int | None) -> Node:
    """Rows of weight[V, D] at integer indices: [.., D]. The row padding_idx gets no gradient."""
    at, w = as_node(input), as_node(weight)
    if not at.dtype.is_int:
        raise IRTypeError(f"embedding() needs integer indices, not {at.dtype.public_name}")
    if w.ndim != 2:
        raise IRTypeError(f"embedding() needs a weight [V, D], not one of shape {list(w.shape)}")
    rows = ops.gather(w, cast(at, i64), axes=(0,))
    if padding_idx is None:
        return rows
    if not -w.shape[0] <= padding_idx < w.shape[0]:
        raise IRTypeError(f"padding_idx {padding_idx} is none of the {w.shape[0]} rows of weight")
    padding = ops.eq(cast(at, i64), ops.splat(padding_idx % w.shape[0], TensorType(at.shape, i64)))
    hidden = ops.broadcast_to(padding, shape=rows.shape, dims=tuple(range(at.ndim)))
    return ops.where(hidden, ops.detach(rows), rows)


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of weight[V, D] at integer indices: [.., D]. The row padding_idx gets no gradient."""
    if max_norm is not None or scale_grad_by_freq:
        raise UnsupportedError(
            "embedding(max_norm=, scale_grad_by_freq=)",
            where=here(),
            fix="renormalise the weight yourself",
        )
    return embedding_(input, weight, padding_idx=padding_idx)


@user_op(shown="embedding_bag")
def bag_offsets(offsets: Operand, /, count: int) -> Node:
    """Where bags begin among `count` indices: at 0 first, then each not before the last."""
    at = as_node(offsets)
    if at.ndim != 1 or not at.dtype.is_int:
        raise IRTypeError(f"embedding_bag() needs a vector of integer offsets, not {at.type}")
    at = cast(at, i64)
    if not at.type.size:
        return at
    zero = ops.splat(0, TensorType((1,), i64))
    before = ops.slice_(at, start=(0,), stop=(at.shape[0] - 1,), step=(1,))
    # The first is compared with 0 from both sides.
    low = ops.concatenate(zero, before, axis=0)
    high = ops.concatenate(zero, ops.splat(count, before.type), axis=0)
    legal = ops.and_(ops.le(low, at), ops.le(at, high))
    return required(
        at, legal, f"embedding_bag() needs offsets that begin with 0, rise, and end by {count}"
    )


PLAIN = (one_hot, embedding)
