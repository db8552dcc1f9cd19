"""What the losses ask of their arguments, and how they reduce."""

from __future__ import annotations

from typing import Any

from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import ArgumentError, InvalidValueError, ShapeError
from tracegrad.tracer.locate import warn


def legacy_reduction(size_average: Any, reduce: Any, reduction: str) -> str:
    """What the old `size_average` / `reduce` flags mean; `reduction` itself if both are None."""
    refuse_tensors(size_average=size_average, reduce=reduce, reduction=reduction)
    if size_average is None and reduce is None:
        return check_reduction(reduction)
    if reduce is not None and not reduce:
        return "none"
    return "mean" if size_average is None or size_average else "sum"


def refuse_tensors(**options: Any) -> None:
    """Raises ArgumentError for an option that is a tensor: one meant for the loss's call."""
    for name, value in options.items():
        if isinstance(value, Tensor):
            raise ArgumentError(
                f"{name} of a loss is a tensor",
                why="tensors go to the call of the loss, after it is made with its options",
                fix="nn.MSELoss()(output, target), not nn.MSELoss(output, target); options by name",
            )


def check_reduction(reduction: str) -> str:
    """`reduction` itself. Raises ValueError for an unknown one."""
    if reduction not in ("none", "mean", "sum"):
        raise InvalidValueError(
            f"{reduction} is not a valid value for reduction: none, mean or sum"
        )
    return reduction


def reduced(values: Tensor, reduction: str) -> Tensor:
    """`values`, their mean or their sum."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def pair(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both, after PyTorch's warning if their shapes differ: [N] and [N, 1] make [N, N]."""
    tensors(name, input, target)
    if input.shape != target.shape:
        warn(
            f"{name}: using a target size ({tuple(target.shape)}) that is different to the input "
            f"size ({tuple(input.shape)}). This will likely lead to incorrect results due to "
            "broadcasting. Please ensure they have the same size."
        )
    return input, target


def tensors(name: str, input: Any, target: Any) -> None:
    for value, what in ((input, "input"), (target, "target")):
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"{name}: {what} is {type(value).__name__}, a tensor is needed",
                fix="make it a tensor first: tg.tensor(value)",
            )


def same_shape(name: str, input: Tensor, target: Tensor) -> None:
    """Raises ShapeError for tensors of two shapes."""
    tensors(name, input, target)
    if input.shape != target.shape:
        raise ShapeError(
            f"{name}: target size ({tuple(target.shape)}) is different to the input size "
            f"({tuple(input.shape)})",
            fix="reshape one of them, for example target.reshape(input.shape)",
        )


def same_rank(name: str, *given: Tensor) -> None:
    """Raises ShapeError for tensors of different numbers of dimensions: [N] and [N, 1] make [N, N]."""
    if len({tensor.dim() for tensor in given}) > 1:
        raise ShapeError(
            f"{name}: the shapes {', '.join(str(list(t.shape)) for t in given)}",
            why="as many dimensions are needed in all",
            fix="reshape or squeeze one of them",
        )


def keeps_shape(name: str, values: Tensor, input: Tensor) -> Tensor:
    """`values`, which are weighted by another tensor. Raises ShapeError if that made them more."""
    if values.shape != input.shape:
        raise ShapeError(
            f"{name}: values of shape {list(values.shape)} for an input of shape {list(input.shape)}",
            why="a weight or target of more dimensions broadcasts the loss",
            fix="give one that broadcasts to the input's shape",
        )
    return values


def same_dtype(name: str, input: Tensor, target: Tensor) -> None:
    """Raises ShapeError, as PyTorch does where it promotes neither."""
    if input.dtype is not target.dtype:
        raise ShapeError(
            f"{name}: the target is {target.dtype.public_name}, the input {input.dtype.public_name}",
            fix="cast the target: target.to(input.dtype)",
        )


def not_integers(name: str, **values: Tensor) -> None:
    """Raises ShapeError for a tensor that is not of a float dtype."""
    for what, value in values.items():
        if not value.dtype.is_inexact:
            raise ShapeError(
                f"{name}: the {what} is {value.dtype.public_name}, a float dtype is needed",
                fix=f"cast it: {what}.float()",
            )
