"""Elementwise ops of one input. Their result has the shape of the input.

Note [Complex gradients]: as in PyTorch a gradient is dL/d(re) + i dL/d(im), so a holomorphic op
with derivative p passes on ct * conj(p). `_conj` is the identity on real nodes: one rule serves
both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    of_category,
    output_flops,
    register,
    require,
    same_float_types,
    same_type,
    to_bool,
    traits,
)
from tracegrad.ir.ops.special import trigamma
from tracegrad.ir.ops.traits import CHEAP, ELEMENTWISE
from tracegrad.ir.types import DType, TensorType, c64, c128, f32, f64

VJP = Callable[..., tuple[Any, ...]]


def conj_if_complex(x: Node) -> Node:
    """The conjugate of a complex node; a real node itself."""
    return ops.conj(x) if x.dtype.is_complex else x


_conj = conj_if_complex


def real_of(dtype: DType) -> DType:
    """The float dtype of the parts of a complex dtype."""
    return f32 if dtype is c64 else f64


def complex_of(dtype: DType) -> DType:
    """The complex dtype whose parts have float dtype `dtype`."""
    return c64 if dtype is f32 else c128


def _unary(
    name: str,
    categories: str,
    vjp: VJP | None = None,
    *,
    flops: float = 1,
    infer: Callable[..., TensorType] | None = None,
    not_differentiable: str = "",
) -> Op:
    """One op of this family; those of one operation an element are cheap."""
    return register(
        Op(
            name,
            infer=infer or same_type(categories),
            vjp=vjp,
            not_differentiable=not_differentiable,
            traits=traits(ELEMENTWISE, CHEAP) if flops <= 1 else traits(ELEMENTWISE),
            flops=output_flops(flops),
        )
    )


def _flat(ct: Node, y: Node, x: Node) -> tuple[Node]:
    """The VJP of a piecewise constant op: zeros (not "no gradient"), as in PyTorch."""
    return (ops.zeros_like(x),)


def _derivative(partial: Callable[[Node, Node], Node]) -> VJP:
    """The VJP of a holomorphic op from its derivative, partial(x, y) with y = op(x)."""
    return lambda ct, y, x: (ct * _conj(partial(x, y)),)


# ---------------------------------------------------------------- sign and size


def _abs_type(x: TensorType) -> TensorType:
    of_category(x, "ifc")
    return x.with_dtype(real_of(x.dtype)) if x.dtype.is_complex else x


def _abs_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    # d|x| = sign(x), with sign(0) = 0: the subgradient of PyTorch
    if x.dtype.is_complex:
        ct = ops.cast(ct, dtype=x.dtype)
    return (ct * ops.sign(x),)


def _sign_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    if not x.dtype.is_complex:
        return (ops.zeros_like(x),)
    # y = x / |x| turns with x but keeps length 1: the radial part of ct falls away
    size = ops.abs_(x)
    zero = ops.eq(size, ops.zeros_like(size))
    safe = ops.cast(ops.where(zero, ops.ones_like(size), size), dtype=x.dtype)
    radial = ops.cast(ops.real(ct * ops.conj(y)), dtype=x.dtype)
    return (ops.where(zero, ops.zeros_like(x), (ct - radial * y) / safe),)


neg = _unary("neg", "ifc", lambda ct, y, x: (-ct,))
abs_ = _unary("abs", "ifc", _abs_vjp, infer=_abs_type)  # complex -> float
sign = _unary("sign", "ifc", _sign_vjp)  # complex: x / |x|, and 0 at 0

# ---------------------------------------------------------------- rounding; round goes half to even

floor = _unary("floor", "f", _flat)
ceil = _unary("ceil", "f", _flat)
trunc = _unary("trunc", "f", _flat)
round_ = _unary("round", "f", _flat)

# ---------------------------------------------------------------- exponentials and roots

exp = _unary("exp", "fc", _derivative(lambda x, y: y), flops=8)
expm1 = _unary("expm1", "fc", _derivative(lambda x, y: y + 1), flops=8)
log = _unary("log", "fc", lambda ct, y, x: (ct / _conj(x),), flops=8)
log1p = _unary("log1p", "fc", lambda ct, y, x: (ct / _conj(x + 1),), flops=8)
# d sqrt = 1 / (2 sqrt)
sqrt = _unary("sqrt", "fc", lambda ct, y, x: (ct / _conj(y * 2),), flops=2)
# d x^(-1/2) = -1/2 x^(-3/2)
rsqrt = _unary("rsqrt", "fc", _derivative(lambda x, y: y * y * y * -0.5), flops=3)

# ---------------------------------------------------------------- trigonometric

sin = _unary("sin", "fc", _derivative(lambda x, y: ops.cos(x)), flops=8)
cos = _unary("cos", "fc", _derivative(lambda x, y: -ops.sin(x)), flops=8)
tan = _unary("tan", "fc", _derivative(lambda x, y: y * y + 1), flops=10)
asin = _unary("asin", "fc", _derivative(lambda x, y: ops.rsqrt(1 - x * x)), flops=10)
acos = _unary("acos", "fc", _derivative(lambda x, y: -ops.rsqrt(1 - x * x)), flops=10)
atan = _unary("atan", "fc", lambda ct, y, x: (ct / _conj(x * x + 1),), flops=10)

# ---------------------------------------------------------------- hyperbolic


def _d_acosh(x: Node, y: Node) -> Node:
    if x.dtype.is_complex:  # sqrt(a b) = sqrt(a) sqrt(b) fails across the branch cut
        return ops.rsqrt(x + 1) * ops.rsqrt(x - 1)
    return ops.rsqrt(x * x - 1)


sinh = _unary("sinh", "fc", _derivative(lambda x, y: ops.cosh(x)), flops=10)
cosh = _unary("cosh", "fc", _derivative(lambda x, y: ops.sinh(x)), flops=10)
tanh = _unary("tanh", "fc", _derivative(lambda x, y: 1 - y * y), flops=10)
asinh = _unary("asinh", "fc", _derivative(lambda x, y: ops.rsqrt(x * x + 1)), flops=10)
acosh = _unary("acosh", "fc", _derivative(_d_acosh), flops=10)
atanh = _unary("atanh", "fc", lambda ct, y, x: (ct / _conj(1 - x * x),), flops=10)

# ---------------------------------------------------------------- special functions


def _d_erf(x: Node, y: Node) -> Node:
    return ops.exp(-(x * x)) * (2 / math.sqrt(math.pi))


def _d_erfinv(x: Node, y: Node) -> Node:
    return ops.exp(y * y) * (math.sqrt(math.pi) / 2)


erf = _unary("erf", "f", _derivative(_d_erf), flops=16)
erfc = _unary("erfc", "f", _derivative(lambda x, y: -_d_erf(x, y)), flops=20)
erfinv = _unary("erfinv", "f", _derivative(_d_erfinv), flops=20)
lgamma = _unary("lgamma", "f", _derivative(lambda x, y: ops.digamma(x)), flops=30)
digamma = _unary("digamma", "f", _derivative(lambda x, y: trigamma(x)), flops=30)

# ---------------------------------------------------------------- bits and predicates

bitwise_not = _unary("bitwise_not", "bi", not_differentiable="acts on bits")
isfinite = _unary("isfinite", "f", infer=to_bool("f"), not_differentiable="the result is bool")
isnan = _unary("isnan", "f", infer=to_bool("f"), not_differentiable="the result is bool")

# ---------------------------------------------------------------- complex numbers


def _part_type(x: TensorType) -> TensorType:
    return of_category(x, "c").with_dtype(real_of(x.dtype))


def _complex_type(x: TensorType, y: TensorType) -> TensorType:
    same = same_float_types(x, y)
    require(same.dtype in (f32, f64), f"complex numbers have f32 or f64 parts, not {same}")
    return TensorType(same.shape, complex_of(same.dtype))


def _real_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    return (ops.complex_(ct, ops.zeros_like(ct)),)


def _imag_vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
    return (ops.complex_(ops.zeros_like(ct), ct),)


real = _unary("real", "c", _real_vjp, infer=_part_type)
imag = _unary("imag", "c", _imag_vjp, infer=_part_type)
conj = _unary("conj", "c", lambda ct, y, x: (ops.conj(ct),))
# x + i y
complex_ = _unary(
    "complex", "f", lambda ct, z, x, y: (ops.real(ct), ops.imag(ct)), infer=_complex_type
)
