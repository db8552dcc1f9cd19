"""Activations and softmax. Each saves one tensor for backward; a rule that would recompute part of
the forward reads x through `fence`, or CSE would keep the forward's copy alive instead.
"""

from __future__ import annotations

import math

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    checked_axis,
    of_category,
    output_flops,
    register,
    require,
    same_float_type,
    traits,
    without_axes,
)
from tracegrad.ir.ops.build import full_like, greater, spread, to, wide
from tracegrad.ir.ops.traits import COMPOSITE, ELEMENTWISE
from tracegrad.ir.types import TensorType

_ELEMENTWISE = traits(COMPOSITE, ELEMENTWISE)

# ---- softmax, log_softmax (x; axis), logsumexp(x; axis) which drops the axis ----


def _axis_type(x: TensorType, axis: int) -> TensorType:
    of_category(x, "f")
    checked_axis(axis, x.ndim)
    require(x.shape[axis] > 0, "no softmax of an empty axis")
    return x


def _shifted(x: Node, axis: int) -> Node:
    """x - max(x): the largest exponent is 0, so exp cannot overflow."""
    return x - spread(ops.max_(x, axes=(axis,)), x.shape, (axis,))


def _softmax(x: Node, axis: int) -> Node:
    e = ops.exp(_shifted(wide(x), axis))
    return to(e / spread(ops.sum_(e, axes=(axis,)), x.shape, (axis,)), x.dtype)


def _softmax_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # dx = y (ct - <ct, y>); saves y
    ct, wide_y = wide(ct), wide(y)
    inner = ops.sum_(ct * wide_y, axes=(axis,))
    return (to(wide_y * (ct - spread(inner, x.shape, (axis,))), x.dtype),)


softmax = register(
    Op(
        "softmax",
        attrs=("axis",),
        infer=_axis_type,
        vjp=_softmax_vjp,
        decompose=_softmax,
        traits=traits(COMPOSITE),
        flops=output_flops(5),
    )
)


def _log_softmax(x: Node, axis: int) -> Node:
    shifted = _shifted(wide(x), axis)
    total = ops.log(ops.sum_(ops.exp(shifted), axes=(axis,)))
    return to(shifted - spread(total, x.shape, (axis,)), x.dtype)


def _log_softmax_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # dx = ct - softmax(x) sum(ct); saves y
    ct = wide(ct)
    total = spread(ops.sum_(ct, axes=(axis,)), x.shape, (axis,))
    return (to(ct - ops.exp(wide(y)) * total, x.dtype),)


log_softmax = register(
    Op(
        "log_softmax",
        attrs=("axis",),
        infer=_axis_type,
        vjp=_log_softmax_vjp,
        decompose=_log_softmax,
        traits=traits(COMPOSITE),
        flops=output_flops(5),
    )
)


def _logsumexp_type(x: TensorType, axis: int) -> TensorType:
    return _axis_type(x, axis).with_shape(without_axes(x.shape, (axis,)))


def finite_or_zero(top: Node) -> Node:
    """A shift that keeps exp(x - shift) defined where every x, and so the maximum, is infinite."""
    return ops.where(ops.isfinite(top), top, full_like(top, 0))


def _logsumexp(x: Node, axis: int) -> Node:
    x, dtype = wide(x), x.dtype
    top = finite_or_zero(ops.max_(x, axes=(axis,)))
    e = ops.exp(x - spread(top, x.shape, (axis,)))
    return to(ops.log(ops.sum_(e, axes=(axis,))) + top, dtype)


def _logsumexp_vjp(ct: Node, y: Node, x: Node, axis: int) -> tuple[Node]:
    # dx = ct exp(x - y): softmax; zeros where y = -inf, that is, where every x is
    nothing = ops.eq(y, full_like(y, -math.inf))
    shift = ops.where(nothing, full_like(y, 0), y)
    weight = ops.exp(wide(x) - spread(wide(shift), x.shape, (axis,)))
    return (to(spread(wide(ct), x.shape, (axis,)) * weight, x.dtype),)


logsumexp = register(
    Op(
        "logsumexp",
        attrs=("axis",),
        infer=_logsumexp_type,
        vjp=_logsumexp_vjp,
        decompose=_logsumexp,
        traits=traits(COMPOSITE),
        flops=lambda node: 4.0 * node.inputs[0].type.size,
    )
)

# ---- sigmoid, silu, softplus, relu ----


def _sigmoid(x: Node) -> Node:
    # exp may overflow to inf, which divides to the right 0
    wide_x = wide(x)
    return to(1.0 / (ops.exp(-wide_x) + 1.0), x.dtype)


def _sigmoid_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    # d sigmoid = y (1 - y); saves y
    return (ct * (y * (1.0 - y)),)


sigmoid = register(
    Op(
        "sigmoid",
        infer=same_float_type,
        vjp=_sigmoid_vjp,
        decompose=_sigmoid,
        traits=_ELEMENTWISE,
        flops=output_flops(10),
    )
)


def _silu(x: Node) -> Node:
    wide_x = wide(x)
    return to(wide_x * ops.sigmoid(wide_x), x.dtype)


def _silu_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    # d silu = s (1 + x (1 - s)), s = sigmoid(x); saves x
    wide_x = wide(ops.fence(x))
    s = ops.sigmoid(wide_x)
    return (to(wide(ct) * (s * (wide_x * (1.0 - s) + 1.0)), x.dtype),)


silu = register(
    Op(
        "silu",
        infer=same_float_type,
        vjp=_silu_vjp,
        decompose=_silu,
        traits=_ELEMENTWISE,
        flops=output_flops(11),
    )
)


def _softplus_type(x: TensorType, beta: float, threshold: float) -> TensorType:
    return same_float_type(x)


def _softplus(x: Node, beta: float, threshold: float) -> Node:
    # log(1 + e^z) / beta = (max(z, 0) + log1p(e^-|z|)) / beta, z = beta x; x above the threshold
    wide_x = wide(x)
    z = wide_x * beta
    smooth = ops.maximum(z, full_like(z, 0)) + ops.log1p(ops.exp(-ops.abs_(z)))
    return to(ops.where(greater(z, full_like(z, threshold)), wide_x, smooth / beta), x.dtype)


def _softplus_vjp(ct: Node, y: Node, x: Node, beta: float, threshold: float) -> tuple[Node]:
    # d softplus = sigmoid(beta x), 1 above the threshold; saves x
    z = wide(ops.fence(x)) * beta
    slope = ops.where(greater(z, full_like(z, threshold)), full_like(z, 1), ops.sigmoid(z))
    return (to(wide(ct) * slope, x.dtype),)


softplus = register(
    Op(
        "softplus",
        attrs=("beta", "threshold"),
        infer=_softplus_type,
        vjp=_softplus_vjp,
        decompose=_softplus,
        traits=_ELEMENTWISE,
        flops=output_flops(20),
    )
)


def _relu_type(x: TensorType) -> TensorType:
    return of_category(x, "if")


def _relu(x: Node) -> Node:
    return ops.maximum(x, full_like(x, 0))


def _relu_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    # 0 at 0, ct where x is nan, as in PyTorch; saves y, which the next layer usually saves too
    return (ops.where(ops.le(y, full_like(y, 0)), full_like(ct, 0), ct),)


relu = register(
    Op(
        "relu",
        infer=_relu_type,
        vjp=_relu_vjp,
        decompose=_relu,
        traits=_ELEMENTWISE,
        flops=output_flops(1),
    )
)

# ---- gelu(x; approximate): Hendrycks & Gimpel 2016 ----

_CUBIC = 0.044715
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def _gelu_type(x: TensorType, approximate: str) -> TensorType:
    require(
        approximate in ("none", "tanh"), f'approximate is "none" or "tanh", not {approximate!r}'
    )
    return same_float_type(x)


def _gelu(x: Node, approximate: str) -> Node:
    wide_x = wide(x)
    if approximate == "none":
        bell = ops.erf(wide_x * math.sqrt(0.5))
    else:
        bell = ops.tanh((wide_x * wide_x * wide_x * _CUBIC + wide_x) * _SQRT_2_OVER_PI)
    return to(wide_x * 0.5 * (bell + 1.0), x.dtype)


def _gelu_vjp(ct: Node, y: Node, x: Node, approximate: str) -> tuple[Node]:
    # x Phi(x): Phi + x phi, phi the density; or the same of the tanh formula. Saves x.
    wide_x = wide(ops.fence(x))
    square = wide_x * wide_x
    if approximate == "none":
        cdf = (ops.erf(wide_x * math.sqrt(0.5)) + 1.0) * 0.5
        density = ops.exp(square * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
        slope = cdf + wide_x * density
    else:
        t = ops.tanh((wide_x * square * _CUBIC + wide_x) * _SQRT_2_OVER_PI)
        inner = (square * (3.0 * _CUBIC) + 1.0) * _SQRT_2_OVER_PI
        slope = (t + 1.0) * 0.5 + wide_x * 0.5 * (1.0 - t * t) * inner
    return (to(wide(ct) * slope, x.dtype),)


gelu = register(
    Op(
        "gelu",
        attrs=("approximate",),
        infer=_gelu_type,
        vjp=_gelu_vjp,
        decompose=_gelu,
        traits=_ELEMENTWISE,
        flops=output_flops(15),
    )
)
