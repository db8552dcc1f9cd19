"""Losses that few models use."""

from __future__ import annotations

from typing import Any

from tracegrad.nn.losses import (
    binary_cross_entropy_with_logits,
    check_reduction,
    legacy_reduction,
    reduced,
)
from tracegrad.tracer import Tensor, functions


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance_function: Any = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the 2-norm unless given."""
    check_reduction(reduction)
    distance = distance_function or functions.pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = functions.minimum(far, distance(positive, negative))
    return reduced((near - far + margin).clamp(min=0), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of sigmoid(input) for every class, averaged over the classes."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    target = target.to(input.dtype)  # classes given as integers, unlike in the binary loss
    values = binary_cross_entropy_with_logits(input, target, weight, reduction="none")
    return reduced(values.mean(-1), reduction)
