"""What cannot be differentiated: the same errors, eager and recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracegrad.tracer.errors import ArgumentError, GradientError, ShapeError
from tracegrad.tracer.tape.entries import Entry, Part, Tape
from tracegrad.tracer.tensor import Tensor


def checked_cotangent(tensor: Tensor, tracked: bool, gradient: Any) -> Tensor | None:
    """`gradient` in the dtype of `tensor`, from which a backward starts; None for a single one.

    Raises GradientError, ShapeError, ArgumentError.
    """
    if not tracked:
        raise GradientError(
            "backward() on a tensor that does not require grad",
            why="nothing it was computed from requires grad, or it was made under no_grad or detached",
            fix="call requires_grad_() on an input, or compute it outside no_grad",
        )
    if gradient is None:
        if tensor.numel() != 1:
            raise GradientError(
                f"backward() of a tensor with {tensor.numel()} elements needs a gradient",
                fix="reduce it to a scalar first, or pass gradient=tg.ones_like(x)",
            )
        return None
    if not isinstance(gradient, Tensor):
        raise ArgumentError(
            f"a gradient is a tensor or None, not {type(gradient).__name__}",
            fix="make it one: tg.tensor(gradient)",
        )
    if gradient.shape != tensor.shape:
        raise ShapeError(
            f"the gradient's shape {list(gradient.shape)} is not the output's {list(tensor.shape)}",
            fix="pass a gradient of the output's shape",
        )
    if gradient.is_complex() is not tensor.is_complex():
        raise ShapeError(
            f"the gradient is {gradient.dtype}, the output {tensor.dtype}",
            fix="pass a gradient of the output's dtype",
        )
    return gradient if gradient.dtype is tensor.dtype else gradient.to(tensor.dtype)


def check_stored_gradient(tensor: Tensor, value: Any) -> None:
    """Raises ArgumentError or ShapeError for what `tensor.grad` cannot be."""
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"a gradient is a tensor or None, not {type(value).__name__}",
            fix="make it one: tg.full_like(x, value)",
        )
    if value.shape != tensor.shape or value.dtype is not tensor.dtype:
        raise ShapeError(
            f"a gradient {value.dtype.public_name} {list(value.shape)} for a tensor "
            f"{tensor.dtype.public_name} {list(tensor.shape)}",
            fix="give one of the tensor's shape and dtype",
        )


def through_a_cut_view() -> GradientError:
    return GradientError(
        "backward through a view that was made under no_grad, and whose base was written with gradients since",
        why="the view does not know how it came from its base",
        fix="make the view outside no_grad, or use view.detach() if it is to be a constant",
    )


def walked_before() -> GradientError:
    return GradientError(
        "backward through a graph a second time",
        why="its saved values were freed after the first backward",
        fix="pass retain_graph=True to the first backward() or grad()",
    )


def refuse_between_results(tape: Tape, wanted: Iterable[Entry | None]) -> None:
    """Raise GradientError where a gradient would have to pass from one result of a compiled call to
    another: the call is one entry of the tape.
    """
    for entry in wanted:
        if not isinstance(entry, Part) or not entry.parents:  # another one, or walked before
            continue
        call = entry.parents[0]
        from_it = getattr(call.kind, "dependents", {}).get(entry.index, ())
        if from_it and any(
            isinstance(other, Part) and other.parents[0] is call and other.index in from_it
            for other in tape.order
        ):
            raise GradientError(
                "the gradient with respect to a result of a compiled call, from another of its results",
                why="outside the compiled function it is not known how the one was computed from the other",
                fix="take this gradient inside the function, or compute the second result outside it",
            )


def no_leaf() -> GradientError:
    return GradientError(
        "requires_grad can be switched off on leaf tensors only",
        fix="use x.detach() to get a tensor without history",
    )


def no_gradient_wanted(position: int) -> GradientError:
    return GradientError(
        f"grad(): input {position} does not require grad",
        fix="call x.requires_grad_() before using it",
    )


def not_used(position: int) -> GradientError:
    return GradientError(
        f"grad(): input {position} was not used to compute the outputs",
        fix="pass allow_unused=True to get None for it",
    )
