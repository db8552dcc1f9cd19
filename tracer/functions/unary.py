"""Functions of one operand, elementwise."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import full_like as filled_like
from tracegrad.ir.types import DType, bf16, bool_, f16, f32, f64, i64
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.arithmetic import named
from tracegrad.tracer.functions.promotion import (
    EPSILON,
    Operand,
    as_node,
    as_type_of,
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
erfc = float_unary(ops.erfc, "erfc", "1 - erf(input), exact where it is small.")
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
    require_dtype("sign", (x,), "if")
    if x.dtype.is_float:
        x = ops.where(ops.isnan(x), ops.zeros_like(x), x)
    return ops.sign(x)


@user_op
def sgn(input: Operand, /) -> Node:
    """As sign; of complex numbers the direction x / |x|."""
    x = as_node(input)
    return ops.sign(x) if x.dtype.is_complex else sign.emit(x)


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


def logarithm(base: float, name: str) -> Any:
    """Whole numbers for powers of the base: a quotient of logarithms is off by a rounding, and
    floor(log2(8)) would be 2.
    """

    def emit(input: Operand, /) -> Node:
        quotient = ops.log(to_float(input)) * (1 / math.log(base))
        if quotient.dtype.is_complex:
            return quotient
        whole = ops.round_(quotient)
        off = ops.abs_(ops.sub(quotient, whole))
        near = ops.le(off, ops.abs_(whole) * (2 * EPSILON[quotient.dtype]))
        return ops.rebind(quotient, ops.where(near, whole, quotient))

    return named(emit, name, f"The logarithm to base {base:.0f}.", rounds_once=True)


log2, log10 = logarithm(2.0, "log2"), logarithm(10.0, "log10")


@user_op(rounds_once=True)
def logit(input: Operand, /, eps: float | None = None) -> Node:
    """log(p / (1 - p)), p clamped to [eps, 1 - eps] if eps is given."""
    x = to_float(input)
    if eps is not None:
        low, high = filled_like(x, eps), filled_like(x, 1 - eps)
        x = ops.where(ops.lt(x, low), low, ops.where(ops.lt(high, x), high, x))
    return ops.sub(ops.log(x), ops.log1p(ops.neg(x)))


@user_op(rounds_once=True)
def sinc(input: Operand, /) -> Node:
    """sin(pi x) / (pi x), 1 at 0."""
    x = to_float(input) * math.pi
    # Near 0 the series: the slope (cos x - sin x / x) / x of the quotient would lose its digits.
    small = ops.lt(ops.abs_(x), filled_like(x, 0.05 if x.dtype is f64 else 0.5))
    square = ops.mul(x, x)
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    safe = ops.where(small, ops.ones_like(x), x)
    return ops.where(small, series, ops.div(ops.sin(safe), safe))


@user_op(rounds_once=True)
def deg2rad(input: Operand, /) -> Node:
    """Degrees to radians."""
    return to_float(input) * (math.pi / 180)


@user_op(rounds_once=True)
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
    if x.dtype.is_complex:
        return ops.or_(_is(ops.abs_(ops.real(x)), math.inf), _is(ops.abs_(ops.imag(x)), math.inf))
    return _is(ops.abs_(x), math.inf) if x.dtype.is_float else _all(x, False)


@user_op
def isposinf(input: Operand, /) -> Node:
    """Whether plus infinity."""
    x = as_node(input)
    require_dtype("isposinf", (x,), "bif")
    return _is(x, math.inf) if x.dtype.is_float else _all(x, False)


@user_op
def isneginf(input: Operand, /) -> Node:
    """Whether minus infinity."""
    x = as_node(input)
    require_dtype("isneginf", (x,), "bif")
    return _is(x, -math.inf) if x.dtype.is_float else _all(x, False)


def _is(x: Node, value: float) -> Node:
    return ops.eq(x, filled_like(x, value))


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
    if x.dtype.is_complex:
        parts = (nan_to_num.emit(part, nan, posinf, neginf) for part in (ops.real(x), ops.imag(x)))
        return ops.complex_(*parts)
    if not x.dtype.is_float:
        return x
    largest = _LARGEST[x.dtype]
    y = ops.where(ops.isnan(x), filled_like(x, 0.0 if nan is None else nan), x)
    y = ops.where(_is(x, math.inf), filled_like(x, largest if posinf is None else posinf), y)
    return ops.where(_is(x, -math.inf), filled_like(x, -largest if neginf is None else neginf), y)


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


# As in PyTorch, these give the tensor itself where nothing changes: a write to the result is one to it.


def positive(input: Any) -> Any:
    """+input."""
    return input


def type_as(input: Any, other: Any) -> Any:
    """input as the dtype of other."""
    return input if input.dtype is other.dtype else cast_(input, dtype=other.dtype)


PLAIN = (positive, type_as)
