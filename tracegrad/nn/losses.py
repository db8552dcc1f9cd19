"""Loss functions of `tracegrad.nn.functional`, in PyTorch's argument order."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import tracegrad as tg
from tracegrad.nn.loss_arguments import (
    check_reduction,
    keeps_shape,
    legacy_reduction,
    not_integers,
    pair,
    reduced,
    refuse_tensors,
    same_dtype,
    same_rank,
    same_shape,
)
from tracegrad.tracer import Tensor, functions
from tracegrad.tracer.errors import InvalidValueError, ShapeError


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Cross-entropy of softmax(input) along axis 1 ([N, C, ...] or [C]) with `target`.

    target: class indices [N, ...], or probabilities of input's shape. "mean" divides by the total
    weight of the rows that count (their number without `weight`), so ignored rows drop out of both
    sides; for probabilities by the number of rows.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise InvalidValueError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    single = input.dim() == 1
    if single:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
    if input.dim() < 2:
        raise ShapeError(
            f"cross_entropy: input has shape {list(input.shape)}",
            why="it needs a dimension of classes",
            fix="give logits of shape [N, C, ...] or [C]",
        )
    classes = input.shape[1]
    if target.is_floating_point():
        if target.dim() == input.dim() - 1:
            raise ShapeError(
                f"cross_entropy: class indices of dtype {target.dtype}",
                why="a floating target holds probabilities, one for each class",
                fix="give class indices as integers: target.long()",
            )
        same_shape("cross_entropy with probabilities", input, target)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        terms = target * functions.log_softmax(input, 1)
        if weight is not None:
            terms = terms * _per_channel(weight, input)
        rows = -terms.sum(1)
        if reduction == "mean":
            return rows.sum() / rows.numel()
    else:
        _check_classes("cross_entropy", input, target)
        if weight is None and not label_smoothing:
            logits, labels = _as_rows(input, target)
            if reduction == "mean":
                return functions.cross_entropy_mean(logits, labels, ignore_index=ignore_index)
            rows = functions.cross_entropy_rows(logits, labels, ignore_index=ignore_index)
            rows = rows.reshape(target.shape)
        else:
            logp = functions.log_softmax(input, 1)
            rows, weights = _nll_rows(logp, target, weight, ignore_index)
            if label_smoothing:
                weighted = logp if weight is None else logp * _per_channel(weight, logp)
                flat = -weighted.sum(1).masked_fill(target == ignore_index, 0)
                rows = rows * (1 - label_smoothing) + flat * (label_smoothing / classes)
            if reduction == "mean":
                return rows.sum() / weights.sum()
    if single and reduction == "none":
        return rows.squeeze(0)
    return reduced(rows, reduction)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-weight[t] input[n, t] of log-probabilities ([N, C, ...] or [C]) at the classes `target`."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    single = input.dim() == 1
    if single:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
    _check_classes("nll_loss", input, target)
    rows, weights = _nll_rows(input, target, weight, ignore_index)
    if reduction == "mean":
        return rows.sum() / weights.sum()
    if single and reduction == "none":
        return rows.squeeze(0)
    return reduced(rows, reduction)


def _check_classes(name: str, input: Tensor, target: Tensor) -> None:
    if target.dtype not in (tg.int64, tg.uint8):
        raise ShapeError(
            f"{name}: class indices of dtype {target.dtype.public_name}",
            why="class indices are int64 (or uint8), as in PyTorch",
            fix="give target.long()",
        )
    wanted = (input.shape[0], *input.shape[2:])
    if tuple(target.shape) != wanted:
        raise ShapeError(
            f"{name}: input has shape {list(input.shape)}, so class indices need shape "
            f"{list(wanted)}; target has {list(target.shape)}",
            fix="give one class index for each row (int64), or probabilities of input's shape",
        )


def _as_rows(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """[N, C, ...] and [N, ...] as [M, C] and [M]."""
    if input.dim() == 2:
        return input, target
    classes = input.shape[1]
    return input.movedim(1, -1).reshape(-1, classes), target.reshape(-1)


def _nll_rows(
    logp: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """(loss of each row, its weight); both 0 where ignored."""
    counted = target != ignore_index
    safe = functions.where(counted, target, 0)
    picked = logp.gather(1, safe.unsqueeze(1)).squeeze(1)
    if weight is not None:
        _check_weight(weight, logp)
    weights = counted.to(logp.dtype) if weight is None else weight[safe] * counted
    # where, not a product: an ignored row may hold -inf.
    return functions.where(counted, -picked * weights, 0.0), weights


def _check_weight(weight: Tensor, input: Tensor) -> None:
    if tuple(weight.shape) != (input.shape[1],):
        raise ShapeError(
            f"the weight has shape {list(weight.shape)}, the input {list(input.shape)}",
            why="every class has a weight",
            fix=f"give a weight of shape [{input.shape[1]}]",
        )


def _per_channel(weight: Tensor, input: Tensor) -> Tensor:
    _check_weight(weight, input)
    return weight.reshape(1, -1, *(1,) * (input.dim() - 2))


def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(input - target)^2; equal shapes. With `weight`, "mean" divides by its sum."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    input, target = pair("mse_loss", input, target)
    difference = input - target
    return _weighted(difference * difference, weight, reduction)


def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """|input - target|; equal shapes. With `weight`, "mean" divides by its sum."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    input, target = pair("l1_loss", input, target)
    return _weighted((input - target).abs(), weight, reduction)


def _weighted(values: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return reduced(values, reduction)
    if weight.shape != values.shape:
        raise ShapeError(
            f"the weight has shape {list(weight.shape)}, the input {list(values.shape)}",
            fix="expand the weight: weight.expand_as(input)",
        )
    if reduction == "mean":
        return (values * weight).sum() / weight.sum()
    return reduced(values * weight, reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise InvalidValueError("smooth_l1_loss does not support negative values for beta")
    input, target = pair("smooth_l1_loss", input, target)
    size = (input - target).abs()
    if beta == 0:
        return reduced(size, reduction)
    small = size < beta
    # Else the gradient of an infinite one were inf * 0.
    near = functions.where(small, size, 0.0)
    return reduced(functions.where(small, near * near * (0.5 / beta), size - 0.5 * beta), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """d^2 / 2 where |d| <= delta, delta (|d| - delta / 2) elsewhere."""
    check_reduction(reduction)
    if delta <= 0:
        raise InvalidValueError("huber_loss does not support non-positive values for delta.")
    input, target = pair("huber_loss", input, target)
    size = (input - target).abs()
    small = size <= delta
    # Else the gradient of an infinite one were inf * 0.
    near = functions.where(small, size, 0.0)
    values = functions.where(small, near * near * 0.5, (size - 0.5 * delta) * delta)
    return _weighted(values, weight, reduction)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(t log x + (1 - t) log(1 - x)) of probabilities; each log is clamped at -100."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    same_shape("binary_cross_entropy", input, target)
    same_dtype("binary_cross_entropy", input, target)
    values = functions.binary_cross_entropy_values(input, target)
    if weight is not None:
        values = keeps_shape("binary_cross_entropy", values * weight, input)
    return reduced(values, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of sigmoid(input), from the logits; `pos_weight` scales positives."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    same_shape("binary_cross_entropy_with_logits", input, target)
    not_integers("binary_cross_entropy_with_logits", target=target)
    # -log sigmoid(x) = softplus(-x), and -log(1 - sigmoid(x)) = x + softplus(-x).
    softplus = -functions.logsigmoid(input)
    if pos_weight is None:
        values = (1 - target) * input + softplus
    else:
        values = (1 - target) * input + (1 + (pos_weight - 1) * target) * softplus
    return reduced(values if weight is None else values * weight, reduction)


def kl_div(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """target (log target - input) for log-probabilities `input`; 0 where target is 0.

    "batchmean" (sum / batch size) is the divergence; "mean" also divides by the other axes.
    """
    refuse_tensors(reduction=reduction)
    not_integers("kl_div", input=input, target=target)
    batch_mean = reduction == "batchmean"
    reduction = "sum" if batch_mean else legacy_reduction(size_average, reduce, reduction)
    if log_target:
        values = target.exp() * (target - input)
    else:
        values = functions.xlogy(target, target) - target * input
    result = reduced(values, reduction)
    return result / input.shape[0] if batch_mean and input.dim() else result


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos where target is 1, max(0, cos - margin) where it is -1; rows [N, D]."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.dim() > 1 or input1.dim() != target.dim() + 1:
        raise ShapeError(
            f"cosine_embedding_loss: inputs of shape {list(input1.shape)}, a target of shape "
            f"{list(target.shape)}",
            fix="give rows [N, D] and a target [N], or one row [D] and a target of no dimensions",
        )
    cos = functions.cosine_similarity(input1, input2, dim=-1)
    apart = (cos - margin).clamp(min=0)
    zero = tg.zeros_like(cos)
    values = functions.where(target == 1, 1 - cos, zero)
    return reduced(values + functions.where(target == -1, apart, zero), reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, margin - target (input1 - input2))."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    same_rank("margin_ranking_loss", input1, input2, target)
    return reduced((margin - target * (input1 - input2)).clamp(min=0), reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """(log var + (input - target)^2 / var) / 2, with var clamped below at eps without gradient: a
    number, or of the input's shape, its last dimension missing, or one of 1."""
    check_reduction(reduction)
    given_var = var if isinstance(var, Tensor) else functions.full_like(input, var)
    variance: Tensor = functions.checked_variance(given_var)
    shape, given = tuple(input.shape), tuple(variance.shape)
    if shape != given and shape[:-1] == given:
        variance = variance.unsqueeze(-1)
    elif shape != given and [n for m, n in zip_longest(shape, given) if m != n] != [1]:
        raise InvalidValueError(
            f"gaussian_nll_loss(): var of shape {list(given)} for an input of shape {list(shape)}",
            fix="give one variance for each element, or one for each row",
        )
    # The clamp moves the value and leaves the gradient of `var` alone.
    variance = variance + (variance.detach().clamp(min=eps) - variance.detach())
    values = 0.5 * (variance.log() + (input - target) ** 2 / variance)
    if full:
        values = values + 0.9189385332046727  # log(2 pi) / 2
    return reduced(values, reduction)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """input where target is 1, max(0, margin - input) where it is -1."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    apart = (margin - input).clamp(min=0)
    near = functions.where(target == -1, 0.0, input)
    return reduced(near + functions.where(target == 1, 0.0, apart), reduction)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """log(1 + exp(-target input))."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    values = keeps_shape("soft_margin_loss", -functions.logsigmoid(target * input), input)
    return reduced(values, reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
    size_average: Any = None, eps: float = 1e-8, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """exp(input) - target input, or input - target log(input + eps); `full` adds a constant."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if log_input:
        values = input.exp() - target * input
    else:
        values = input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        values = values + functions.where(target > 1, stirling, 0.0)
    return reduced(values, reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
    eps: float = 1e-6, swap: bool = False, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, |anchor - positive| - |anchor - negative| + margin), p-norms over the last axis."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if margin <= 0:
        raise InvalidValueError(f"margin must be greater than 0, got {margin}")
    same_rank("triplet_margin_loss", anchor, positive, negative)
    near = functions.pairwise_distance(anchor, positive, p, eps)
    far = functions.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = functions.minimum(far, functions.pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp(min=0), reduction)
