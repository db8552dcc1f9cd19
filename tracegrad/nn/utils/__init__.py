"""Gradient clipping and parameters as one vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import tracegrad as tg
from tracegrad.names import public
from tracegrad.nn.parameter import Parameter
from tracegrad.nn.utils import rnn
from tracegrad.tracer import Tensor, no_grad
from tracegrad.tracer.errors import ArgumentError, InvalidValueError


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Those that there are."""
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [grad for p in listed if (grad := p.grad) is not None]


@no_grad()
def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of all tensors seen as one vector (0 for none).

    Raises RuntimeError for a nan or infinite norm if `error_if_nonfinite`.
    """
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not listed:
        return tg.tensor(0.0)
    norm_type = float(norm_type)
    if norm_type == float("inf"):
        total = tg.stack([t.abs().max() for t in listed]).max()
    elif norm_type == 2.0:
        total = sum((t * t).sum() for t in listed).sqrt()
    else:
        total = sum((t.abs() ** norm_type).sum() for t in listed) ** (1.0 / norm_type)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise InvalidValueError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            "so it cannot be clipped. To disable this error and scale the gradients by the "
            "non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
    error_if_nonfinite: bool = False, foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)); returns the norm before."""
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in gradients:
        grad.mul_(scale.to(grad.dtype))
    return total


@no_grad()
def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every gradient element to [-clip_value, clip_value], in place."""
    bound = float(clip_value)
    for grad in _gradients(parameters):
        grad.clamp_(min=-bound, max=bound)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters, flattened, in one vector."""
    return tg.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write consecutive slices of `vec` into the parameters. Raises ValueError if sizes differ."""
    if not isinstance(vec, Tensor):
        raise ArgumentError(f"expected a Tensor, but got: {type(vec).__name__}")
    listed = list(parameters)
    size = sum(p.numel() for p in listed)
    if size != vec.numel():
        raise InvalidValueError(f"the vector has {vec.numel()} elements, the parameters {size}")
    start = 0
    with no_grad():
        for p in listed:
            p.copy_(vec[start : start + p.numel()].reshape(p.shape))
            start += p.numel()


def fuse_conv_bn_eval(conv: Any, bn: Any) -> Any:
    """A copy of the convolution whose weights include the batch norm; both in eval mode."""
    if conv.training or bn.training:
        raise InvalidValueError("Fusion only for eval!")
    fused = copy.deepcopy(conv)
    with no_grad():
        scale = (bn.running_var + bn.eps).rsqrt()
        if bn.weight is not None:
            scale = scale * bn.weight
        shape = (-1,) + (1,) * (conv.weight.dim() - 1)
        fused.weight = Parameter(conv.weight * scale.reshape(shape), conv.weight.requires_grad)
        bias = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
        bias = bias * scale
        if bn.bias is not None:
            bias = bias + bn.bias
        fused.bias = Parameter(bias)
    return fused


public(__name__)
