"""Clearing and looking at `.grad` of parameters, also where a compiled step did not keep it."""

from __future__ import annotations

from collections.abc import Iterable

from tracegrad.tracer import Tensor
from tracegrad.tracer.errors import DroppedGradientError


def present_grad(tensor: Tensor) -> Tensor | None:
    """The gradient, or None where there is none or a compiled step kept it inside its graph."""
    try:
        return tensor.grad
    except DroppedGradientError:
        return None


def clear_grads(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Set every gradient to None, or those that are there to zeros, in place."""
    for tensor in tensors:
        if set_to_none:
            tensor.grad = None  # without reading it: a compiled step need not keep it
        else:
            grad = present_grad(tensor)
            if grad is not None:
                if grad.requires_grad:
                    grad = tensor.grad = grad.detach()  # same memory, no history
                grad.zero_()  # not times zero: nan would stay
