"""Functions of one operand, elementwise."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import full_like as filled_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.ir.types import DType, bf16, bool_, f16, f32, f64, i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.arithmetic import named
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    as_type_of,
    broadcast,
    cast,
    require_dtype,
    to_float,
)


def float_unary(op: Op, name: str, doc: str) -> Any:
    """A function of reals: integers become the default dtype."""

    def emit(input: Operand, /) -> Node:
        return op(to_float(input))

    return named(emit, name, doc)


exp = float_unary(ops.exp, "exp", "e ** input.")
expm1 = float_unary(ops.expm1, "expm1", "exp(input) - 1, exact near zero.")
log = float_unary(ops.log, "log", "The natural logarithm; nan below zero.")
log1p = float_unary(ops.log1p, "log1p", "log(1 + input), exact near zero.")
sqrt = float_unary(ops.sqrt, "sqrt", "The square root; nan below zero.")
rsqrt = float_unary(ops.rsqrt, "rsqrt", "1 / sqrt(input).")
sin = float_unary(ops.sin, "sin", "The sine of radians.")
cos = float_unary(ops.cos, "cos", "The cosine of radians.")
tan = float_unary(ops.tan, "tan", "The tangent of radians.")
asin = float_unary(ops.asin, "asin", "The arc sine in radians.")
acos = float_unary(ops.acos, "acos", "The arc cosine in radians.")
atan = float_unary(ops.atan, "atan", "The arc tangent in radians.")
sinh = float_unary(ops.sinh, "sinh", "The hyperbolic sine.")
cosh = float_unary(ops.cosh, "cosh", "The hyperbolic cosine.")
tanh = float_unary(ops.tanh, "tanh", "The hyperbolic tangent.")
asinh = float_unary(ops.asinh, "asinh", "The inverse hyperbolic sine.")
acosh = float_unary(ops.acosh, "acosh", "The inverse hyperbolic cosine.")
atanh = float_unary(ops.atanh, "atanh", "The inverse hyperbolic tangent.")
erf = float_unary(ops.erf, "erf", "The error function.")
erfinv = float_unary(ops.erfinv, "erfinv", "The inverse error function.")
lgamma = float_unary(ops.lgamma, "lgamma", "log(|gamma(input)|).")
digamma = float_unary(ops.digamma, "digamma", "The derivative of lgamma.")
sigmoid = float_unary(ops.sigmoid, "sigmoid", "1 / (1 + exp(-input)).")


def rounding(op: Op, name: str, doc: str) -> Any:
    """A rounding function: integers stay as they are."""

    def emit(input: Operand, /) -> Node:
        x = as_node(input)
        require_dtype(name, (x,), "if")
        return op(x) if x.dtype.is_float else x

    return named(emit, name, doc)


floor = rounding(ops.floor, "floor", "The largest integer not above.")
ceil = rounding(ops.ceil, "ceil", "The smallest integer not below.")
trunc = rounding(ops.trunc, "trunc", "The integer towards zero.")


@user_op
def round_(input: Operand, /, *, decimals: int = 0) -> Node:
    """The nearest multiple of 10**-decimals, half to even."""
    x = as_node(input)
    require_dtype("round", (x,), "if")
    if not x.dtype.is_float:
        if decimals:
            raise IRTypeError("round(decimals=) needs a floating tensor")
        return x
    if decimals == 0:
        return ops.round_(x)
    scale = filled_like(x, 10.0 ** abs(decimals))
    if decimals > 0:
        return ops.div(ops.round_(ops.mul(x, scale)), scale)
    return ops.mul(ops.round_(ops.div(x, scale)), scale)


@user_op
def frac(input: Operand, /) -> Node:
    """The part after the point, with the sign of input."""
    x = as_node(input)
    require_dtype("frac", (x,), "f")
    return ops.sub(x, ops.trunc(x))


@user_op
def neg(input: Operand, /) -> Node:
    """-input. Not of bools (use ~)."""
    x = as_node(input)
    if x.dtype.is_bool:
        raise IRTypeError("neg() of a bool tensor; use ~ or logical_not()")
    return ops.neg(x)


@user_op
def abs_(input: Operand, /) -> Node:
    """|input|; its gradient at 0 is 0."""
    x = as_node(input)
    return x if x.dtype.is_bool else ops.abs_(x)


@user_op
def sign(input: Operand, /) -> Node:
    """-1, 0 or 1; 0 of nan."""
    x = as_node(input)
    if x.dtype.is_bool:
        return x
    if x.dtype.is_float:
        x = ops.where(ops.isnan(x), ops.zeros_like(x), x)
    return ops.sign(x)


@user_op
def square(input: Operand, /) -> Node:
    """input * input; of bools int64."""
    x = as_node(input)
    x = cast(x, i64) if x.dtype.is_bool else x
    return ops.mul(x, x)


@user_op
def reciprocal(input: Operand, /) -> Node:
    """1 / input."""
    x = to_float(input)
    return ops.div(ops.ones_like(x), x)


@user_op
def exp2(input: Operand, /) -> Node:
    """2 ** input."""
    x = to_float(input)
    return ops.pow_(filled_like(x, 2.0), x)


@user_op
def log2(input: Operand, /) -> Node:
    """The logarithm to base 2."""
    return ops.log(to_float(input)) * (1 / math.log(2.0))


@user_op
def log10(input: Operand, /) -> Node:
    """The logarithm to base 10."""
    return ops.log(to_float(input)) * (1 / math.log(10.0))


@user_op
def erfc(input: Operand, /) -> Node:
    """1 - erf(input)."""
    return 1 - ops.erf(to_float(input))


@user_op
def logit(input: Operand, /, eps: float | None = None) -> Node:
    """log(p / (1 - p)), p clamped to [eps, 1 - eps] if eps is given."""
    x = to_float(input)
    if eps is not None:
        low, high = filled_like(x, eps), filled_like(x, 1 - eps)
        x = ops.where(ops.lt(x, low), low, ops.where(ops.lt(high, x), high, x))
    return ops.sub(ops.log(x), ops.log1p(ops.neg(x)))


@user_op
def sinc(input: Operand, /) -> Node:
    """sin(pi x) / (pi x), 1 at 0."""
    x = to_float(input) * math.pi
    # Near 0 the series: the slope (cos x - sin x / x) / x of the quotient would lose its digits.
    small = ops.lt(ops.abs_(x), filled_like(x, 0.05 if x.dtype is f64 else 0.5))
    square = ops.mul(x, x)
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    safe = ops.where(small, ops.ones_like(x), x)
    return ops.where(small, series, ops.div(ops.sin(safe), safe))


@user_op
def deg2rad(input: Operand, /) -> Node:
    """Degrees to radians."""
    return to_float(input) * (math.pi / 180)


@user_op
def rad2deg(input: Operand, /) -> Node:
    """Radians to degrees."""
    return to_float(input) * (180 / math.pi)


@user_op
def isnan(input: Operand, /) -> Node:
    """Whether not a number."""
    x = as_node(input)
    if x.dtype.is_complex:
        return ops.or_(ops.isnan(ops.real(x)), ops.isnan(ops.imag(x)))
    return ops.isnan(x) if x.dtype.is_float else _all(x, False)


@user_op
def isfinite(input: Operand, /) -> Node:
    """Whether neither infinite nor nan."""
    x = as_node(input)
    if x.dtype.is_complex:
        return ops.and_(ops.isfinite(ops.real(x)), ops.isfinite(ops.imag(x)))
    return ops.isfinite(x) if x.dtype.is_float else _all(x, True)


@user_op
def isinf(input: Operand, /) -> Node:
    """Whether infinite."""
    x = as_node(input)
    if not x.dtype.is_float:
        return _all(x, False)
    return ops.eq(ops.abs_(x), filled_like(x, math.inf))


@user_op
def isposinf(input: Operand, /) -> Node:
    """Whether plus infinity."""
    x = as_node(input)
    return ops.eq(x, filled_like(x, math.inf)) if x.dtype.is_float else _all(x, False)


@user_op
def isneginf(input: Operand, /) -> Node:
    """Whether minus infinity."""
    x = as_node(input)
    return ops.eq(x, filled_like(x, -math.inf)) if x.dtype.is_float else _all(x, False)


def _all(x: Node, value: bool) -> Node:
    return ops.splat(value, x.type.with_dtype(bool_))


_LARGEST = {
    f16: 65504.0,
    bf16: 3.3895313892515355e38,
    f32: 3.4028234663852886e38,
    f64: 1.7976931348623157e308,
}


@user_op
def nan_to_num(
    input: Operand,
    /,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Node:
    """nan as `nan` (0), infinities as the given numbers (the largest finite ones)."""
    x = as_node(input)
    if not x.dtype.is_float:
        return x
    largest = _LARGEST[x.dtype]
    infinity = filled_like(x, math.inf)
    y = ops.where(ops.isnan(x), filled_like(x, 0.0 if nan is None else nan), x)
    y = ops.where(ops.eq(x, infinity), filled_like(x, largest if posinf is None else posinf), y)
    return ops.where(
        ops.eq(x, ops.neg(infinity)), filled_like(x, -largest if neginf is None else neginf), y
    )


@user_op
def cast_(input: Operand, /, dtype: DType) -> Node:
    """input as another dtype. Floats truncate to integers; nonzero is True."""
    return cast(as_node(input), dtype)


@user_op
def full_like(input: Operand, fill_value: Operand, /, *, dtype: DType | None = None) -> Node:
    """fill_value (a number or 0-d tensor) at the shape and dtype of input."""
    x = as_node(input)
    return as_type_of(fill_value, ops.splat(0, x.type.with_dtype(dtype or x.dtype)))


@user_op
def clone(input: Operand, /) -> Node:
    """A copy; the gradient flows through."""
    return as_node(input)


@user_op
def real(input: Operand, /) -> Node:
    """The real part."""
    x = as_node(input)
    return ops.real(x) if x.dtype.is_complex else x


@user_op
def imag(input: Operand, /) -> Node:
    """The imaginary part of a complex tensor."""
    x = as_node(input)
    require_dtype("imag", (x,), "c")
    return ops.imag(x)


@user_op
def conj_(input: Operand, /) -> Node:
    """The complex conjugate of a complex tensor."""
    return ops.conj(as_node(input))


@user_op
def angle(input: Operand, /) -> Node:
    """The angle of a complex number; of a real one 0 or pi."""
    x = to_float(input)
    if x.dtype.is_complex:
        return ops.atan2(ops.imag(x), ops.real(x))
    zero = ops.zeros_like(x)
    turned = ops.where(ops.lt(x, zero), filled_like(x, math.pi), zero)
    return ops.where(ops.isnan(x), x, turned)


def complex_parts(name: str, first: Operand, second: Operand) -> tuple[Node, ...]:
    x, y = as_node(first), as_node(second)
    if x.dtype is not y.dtype or not x.dtype.is_float:
        names = f"{x.dtype.public_name} and {y.dtype.public_name}"
        raise IRTypeError(f"{name}() needs two tensors of one floating dtype, got {names}")
    return broadcast(x, y)


@user_op
def complex_(real: Operand, imag: Operand, /) -> Node:
    """real + imag * i, of two floating tensors of one dtype."""
    return ops.complex_(*complex_parts("complex", real, imag))


@user_op
def polar(abs: Operand, angle: Operand, /) -> Node:
    """abs * exp(i * angle), of two floating tensors of one dtype."""
    size, turn = complex_parts("polar", abs, angle)
    return ops.complex_(ops.mul(size, ops.cos(turn)), ops.mul(size, ops.sin(turn)))


@user_op
def view_as_real(input: Operand, /) -> Node:
    """A complex tensor's parts as a last dimension of 2 (a copy)."""
    x = as_node(input)
    require_dtype("view_as_real", (x,), "c")
    parts = [reshape(part, (*x.shape, 1)) for part in (ops.real(x), ops.imag(x))]
    return ops.concatenate(*parts, axis=x.ndim)


@user_op
def view_as_complex(input: Operand, /) -> Node:
    """A last dimension of 2 as the parts of complex numbers (a copy)."""
    x = as_node(input)
    require_dtype("view_as_complex", (x,), "f")
    if not x.ndim or x.shape[-1] != 2:
        raise IRTypeError(f"view_as_complex() needs a last dimension of 2, got {list(x.shape)}")
    parts = (reshape(take_range(x, x.ndim - 1, k, k + 1), x.shape[:-1]) for k in (0, 1))
    return ops.complex_(*parts)


# As in PyTorch, these give the tensor itself where nothing changes: a write to the result is one to it.


def positive(input: Any) -> Any:
    """+input."""
    return input


def type_as(input: Any, other: Any) -> Any:
    """input as the dtype of other."""
    return input if input.dtype is other.dtype else cast_(input, dtype=other.dtype)


def conj(input: Any) -> Any:
    """The complex conjugate."""
    return conj_(input) if input.dtype.is_complex else input


PLAIN = (positive, type_as, conj)
