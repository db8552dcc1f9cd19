"""Differentiation by hand: `grad`, `backward`, and custom functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegrad.names import public
from tracegrad.tracer.creation.tensors import zeros_like
from tracegrad.tracer.custom import Function
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.state import enable_grad, inference_mode, no_grad, set_grad_enabled
from tracegrad.tracer.tape.backward import backward as _backward
from tracegrad.tracer.tape.backward import grad_of
from tracegrad.tracer.tensor import Tensor


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, Tensor) or value is None else list(value)


def grad(
    outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
    retain_graph: bool | None = None, create_graph: bool = False, only_inputs: bool = True,
    allow_unused: bool | None = None, is_grads_batched: bool = False, materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of the sum of outputs with respect to inputs, weighted by `grad_outputs`
    (cotangents).

    Returns one tensor of each input's shape and dtype. Leaves `.grad` alone. Raises GradientError
    for an unused input (unless allow_unused, which gives None, or materialize_grads, which gives
    zeros) and for a graph that was freed.
    """
    if not only_inputs:
        raise UnsupportedError("grad(only_inputs=False)", fix="call backward() on the outputs")
    if is_grads_batched:
        raise UnsupportedError(
            "grad(is_grads_batched=True)", fix="use tg.func.vmap over a function that calls grad"
        )
    out, into = _listed(outputs), _listed(inputs)
    cotangents = [None] * len(out) if grad_outputs is None else _listed(grad_outputs)
    allow_unused = True if materialize_grads else allow_unused
    found = grad_of(out, into, cotangents, retain_graph, create_graph, allow_unused)
    if materialize_grads:
        return tuple(zeros_like(x) if g is None else g for g, x in zip(found, into))
    return tuple(found)


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """A tensor on the same memory, as gradients were asked for before PyTorch 0.4."""
    return data.detach().requires_grad_() if requires_grad else data.detach()


def backward(
    tensors: Tensor | Sequence[Tensor], grad_tensors: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, inputs: Any = None,
) -> None:  # fmt: skip
    """Accumulate the gradients of `tensors` into the leaves' `.grad`."""
    roots = _listed(tensors)
    cotangents = [None] * len(roots) if grad_tensors is None else _listed(grad_tensors)
    _backward(roots, cotangents, retain_graph, create_graph, inputs)


__all__ = [
    "Function", "Variable", "backward", "enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled",
]  # fmt: skip

public(__name__)
