"""Arithmetic of two operands, promoted and broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.build import full_like, to, wide
from tracegrad.ir.types import TensorType, bool_, f16, f64, i64
from tracegrad.tracer.dispatch import Factor, Weak, user_op
from tracegrad.tracer.functions import promotion
from tracegrad.tracer.functions.checking import linked, required
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    cast,
    common,
    common_float,
    constant_value,
    keeping_digits,
    lift,
    promote,
    require_dtype,
)


def not_(x: Node) -> Node:
    return ops.bitwise_not(x)


def as_bool(operand: Operand) -> Node:
    """Nonzero as bool."""
    return cast(as_node(operand), bool_)


def check_alpha(name: str, dtype: Any, alpha: Factor) -> None:
    fraction = alpha.category == "float" if isinstance(alpha, Weak) else isinstance(alpha, float)
    if fraction and not dtype.is_inexact:
        raise IRTypeError(f"{name}(): alpha must be an integer for {dtype.public_name} tensors")


def scaled(node: Node, factor: Factor) -> Node:
    """factor * node, in the node's dtype."""
    if isinstance(factor, Weak):
        return ops.mul(node, lift(factor, node.dtype, node.shape))
    return node if factor == 1 else node * factor


def with_factor(op: Op, x: Node, y: Node, factor: Factor) -> Node:
    """op(x, factor * y); of 16-bit floats the factor is rounded, then nothing before the end."""
    if isinstance(factor, Weak):
        product = ops.mul(wide(y), wide(lift(factor, y.dtype, y.shape)))
    elif factor == 1:
        return op(x, y)
    else:
        product = wide(y) * factor
    return to(op(wide(x), product), x.dtype)


@user_op
def add(input: Operand, other: Operand, /, *, alpha: Factor = 1) -> Node:
    """input + alpha * other."""
    x, y = common(input, other)
    check_alpha("add", x.dtype, alpha)
    return with_factor(ops.add, x, y, alpha)


def refuse_bool(name: str, *operands: Operand) -> None:
    """Raise IRTypeError for bool tensors and numbers, as PyTorch's subtraction does."""
    if any(as_node(x).dtype.is_bool for x in operands):
        raise IRTypeError(
            f"{name}() with a bool; use logical_xor(), ~ to invert a mask, or cast first"
        )


@user_op
def sub(input: Operand, other: Operand, /, *, alpha: Factor = 1) -> Node:
    """input - alpha * other. Not of bools (use logical_xor or ~)."""
    refuse_bool("sub", input, other)
    x, y = common(input, other)
    check_alpha("sub", x.dtype, alpha)
    return with_factor(ops.sub, x, y, alpha)


@user_op
def rsub(input: Operand, other: Operand, /, *, alpha: Factor = 1) -> Node:
    """other - alpha * input."""
    refuse_bool("rsub", input, other)
    x, y = common(input, other)
    return with_factor(ops.sub, y, x, alpha)


@user_op
def mul(input: Operand, other: Operand, /) -> Node:
    """input * other."""
    return keeping_digits(ops.mul, input, other)


@user_op
def div(input: Operand, other: Operand, /, *, rounding_mode: str | None = None) -> Node:
    """input / other. Integers divide to floats unless rounding_mode is "floor" or "trunc"."""
    if rounding_mode is None:
        dtype = promotion.float_dtype(promotion.result_dtype(input, other))
        return keeping_digits(ops.div, input, other, dtype=dtype)
    x, y = common(input, other)
    if rounding_mode == "floor":
        return _floor_divide(x, y)
    if rounding_mode != "trunc":
        raise IRTypeError(f'rounding_mode must be None, "floor" or "trunc", not {rounding_mode!r}')
    if x.dtype.is_float:
        return keeping_digits(lambda x, y: ops.trunc(ops.div(x, y)), input, other)
    return _truncated(x, y)


def _floor_divide(x: Node, y: Node) -> Node:
    if x.dtype.is_bool:
        x, y = cast(x, promotion.i8), cast(y, promotion.i8)
        return ops.cast(ops.floor_div(x, y), dtype=bool_)
    return ops.floor_div(x, y)


def _truncated(x: Node, y: Node) -> Node:
    """The quotient of integers towards zero: one more than its floor where that is below zero."""
    quotient = ops.floor_div(x, y)
    inexact = not_(ops.eq(ops.mul(quotient, y), x))
    negative = ops.xor(_negative(x), _negative(y))
    return ops.where(ops.and_(inexact, negative), quotient + 1, quotient)


def _negative(x: Node) -> Node:
    return ops.lt(x, ops.zeros_like(x))


@user_op
def floor_divide(input: Operand, other: Operand, /) -> Node:
    """The quotient rounded down."""
    return _floor_divide(*common(input, other))


@user_op
def remainder(input: Operand, other: Operand, /) -> Node:
    """input - other * floor(input / other): the sign of the divisor, as Python's %."""
    x, y = common(input, other)
    return ops.rem(x, y)


@user_op
def fmod(input: Operand, other: Operand, /) -> Node:
    """The remainder with the sign of the dividend, as C's fmod."""
    x, y = common(input, other)
    if x.dtype.is_int:
        return ops.sub(x, ops.mul(_truncated(x, y), y))
    # Of magnitudes rem is fmod; where, not abs and sign, so that the gradient at 0 is right.
    negative = _negative(x)
    size = ops.where(negative, ops.neg(x), x)
    divisor = ops.where(_negative(y), ops.neg(y), y)
    remains = ops.rem(size, divisor)
    return ops.where(negative, ops.neg(remains), remains)


@user_op
def pow_(input: Operand, exponent: Operand, /) -> Node:
    """input ** exponent. Integers refuse a negative integer exponent where it is known."""
    value = constant_value(exponent)
    x, y = common(input, exponent)
    if isinstance(exponent, Weak) and x.dtype.is_int:
        if isinstance(value, int) and value < 0:
            raise IRTypeError(
                f"pow() of {x.dtype.public_name} tensors to the negative power {value}; use floats"
            )
        if value is None:
            power_ = exponent.node
            legal = ops.le(ops.zeros_like(power_), power_)
            x = required(x, legal, "integers to a negative integer power; use floats")
    if x.dtype.is_bool:
        x, y = cast(x, promotion.i64), cast(y, promotion.i64)
        return cast(ops.pow_(x, y), bool_)
    return power(x, y, value)


@user_op(shown="pow")
def _known_power(input: Operand, /, exponent: float) -> Node:
    category = "int" if isinstance(exponent, int) else "float"
    number = ops.splat(exponent, TensorType((), i64 if category == "int" else f64))
    return pow_.emit(input, Weak(number, category))


pow_.known = (frozenset((-2, -1, -0.5, 0.5, 2, 3)), _known_power)


def power(x: Node, y: Node, value: Any) -> Node:
    """x ** y; small powers that are known become multiplications and roots where PyTorch's do."""
    if x.dtype is f16:
        return ops.pow_(x, y)
    if value == 2:
        return ops.mul(x, x)
    if value == 3:
        return ops.mul(ops.mul(x, x), x)
    if value == 0.5 and x.dtype.is_inexact:
        return ops.sqrt(x)
    if value == -0.5 and x.dtype.is_inexact:
        return ops.rsqrt(x)
    if value == -1 and x.dtype.is_inexact:
        return ops.div(ops.ones_like(x), x)
    if value == -2 and x.dtype.is_inexact:
        return ops.div(ops.ones_like(x), ops.mul(x, x))
    return ops.pow_(x, y)


@user_op
def float_power(input: Operand, exponent: Operand, /) -> Node:
    """input ** exponent in float64 (complex128)."""
    dtype = promotion.promote_types(promotion.result_dtype(input, exponent), promotion.f64)
    x, y = broadcast(cast(as_node(input), dtype), cast(as_node(exponent), dtype))
    return ops.pow_(x, y)


def binary_of(op: Op, doc: str, name: str) -> Any:
    """A function of two promoted operands of any real dtype that is one IR op."""

    def emit(input: Operand, other: Operand, /) -> Node:
        return op(*common(input, other))

    return named(emit, name, doc)


def float_binary_of(op: Op, doc: str, name: str) -> Any:
    """A function of two floats (integers are converted) that is one IR op."""

    def emit(input: Operand, other: Operand, /) -> Node:
        return op(*common_float(input, other))

    return named(emit, name, doc)


def named(emit: Callable[..., Any], name: str, doc: str, **options: Any) -> Any:
    emit.__name__ = emit.__qualname__ = name
    emit.__doc__ = doc
    return user_op(**options)(emit)


atan2 = float_binary_of(ops.atan2, "The angle of the point (other, input).", "atan2")
nextafter = float_binary_of(ops.nextafter, "The next float from input towards other.", "nextafter")


@user_op(rounds_once=True)
def lerp(input: Operand, end: Operand, weight: Operand, /) -> Node:
    """input + weight * (end - input)."""
    x, y, w = promote(input, end, weight)
    # What follows from the weight alone, mostly a number, is not broadcast first.
    near, rest = ops.lt(ops.abs_(w), full_like(w, 0.5)), ops.sub(ops.ones_like(w), w)
    x, y, w, near, rest = broadcast(x, y, w, near, rest)
    # Near weight 1 count back from the end, so that weight 1 gives exactly the end.
    step = ops.sub(y, x)
    return ops.where(near, ops.add(x, ops.mul(w, step)), ops.sub(y, ops.mul(step, rest)))


@user_op(rounds_once=True)
def addcmul(input: Operand, tensor1: Operand, tensor2: Operand, /, *, value: Factor = 1) -> Node:
    """input + value * tensor1 * tensor2."""
    x, a, b = common(input, tensor1, tensor2)
    return ops.add(x, ops.mul(scaled(a, value), b))


@user_op(rounds_once=True)
def addcdiv(input: Operand, tensor1: Operand, tensor2: Operand, /, *, value: Factor = 1) -> Node:
    """input + value * tensor1 / tensor2, of floats."""
    x, a, b = common(input, tensor1, tensor2)
    require_dtype("addcdiv", (x,), "fc")
    return ops.add(x, ops.div(scaled(a, value), b))


@user_op
def copysign(input: Operand, other: Operand, /) -> Node:
    """The magnitude of input with the sign of other (also of -0.0)."""
    x, y = common_float(input, other)
    magnitude = ops.abs_(x)
    return linked(ops.where(_signbit(y), ops.neg(magnitude), magnitude), y)


def _signbit(x: Node) -> Node:
    """The sign bit of a float: 1 / x tells -0.0 from 0.0; of nan it counts as positive."""
    zero = ops.zeros_like(x)
    return ops.or_(
        ops.lt(x, zero), ops.and_(ops.eq(x, zero), ops.lt(ops.div(ops.ones_like(x), x), zero))
    )


@user_op
def signbit(input: Operand, /) -> Node:
    """Whether the sign is minus (of a float also for -0.0)."""
    x = as_node(input)
    if x.dtype.is_bool:
        return ops.splat(False, x.type)
    return _signbit(x) if x.dtype.is_float else _negative(x)


@user_op(rounds_once=True)
def hypot(input: Operand, other: Operand, /) -> Node:
    """sqrt(input**2 + other**2), scaled so that squares do not overflow."""
    x, y = common_float(input, other)
    a, b = ops.abs_(x), ops.abs_(y)
    large, small = ops.maximum(a, b), ops.minimum(a, b)
    zero = ops.eq(large, ops.zeros_like(large))
    ratio = ops.div(small, ops.where(zero, ops.ones_like(large), large))
    scaled = large * ops.sqrt(ratio * ratio + 1)
    # An infinite side wins, over nan too (C99 F.9.4.3).
    infinity = full_like(large, float("inf"))
    return ops.where(ops.or_(ops.eq(a, infinity), ops.eq(b, infinity)), infinity, scaled)


@user_op(rounds_once=True)
def logaddexp(input: Operand, other: Operand, /) -> Node:
    """log(exp(input) + exp(other)), without overflow."""
    x, y = common_float(input, other)
    high = ops.maximum(x, y)
    # Equal infinities have no difference; their sum's logarithm is the same infinity.
    same = ops.eq(x, y)
    gap = ops.where(same, ops.zeros_like(x), ops.neg(ops.abs_(ops.sub(x, y))))
    return ops.add(high, ops.log1p(ops.exp(gap)))


@user_op(rounds_once=True)
def logaddexp2(input: Operand, other: Operand, /) -> Node:
    """log2(2**input + 2**other)."""
    x, y = common_float(input, other)
    log2 = 0.6931471805599453
    return logaddexp.emit(x * log2, y * log2) * (1 / log2)


@user_op
def heaviside(input: Operand, values: Operand, /) -> Node:
    """0 below zero (and of nan), 1 above, `values` at zero."""
    x, at_zero = common(input, values)
    zero, one = ops.zeros_like(x), ops.ones_like(x)
    return ops.where(ops.eq(x, zero), at_zero, ops.where(ops.lt(zero, x), one, zero))


@user_op
def xlogy(input: Operand, other: Operand, /) -> Node:
    """input * log(other), zero where input is zero (unless other is nan)."""
    x, y = common_float(input, other)
    zero = ops.eq(x, ops.zeros_like(x))
    safe = ops.where(ops.and_(zero, not_(ops.isnan(y))), ops.ones_like(y), y)
    return ops.mul(x, ops.log(safe))


@user_op
def gcd(input: Operand, other: Operand, /) -> Node:
    """Greatest common divisor of integers (Euclid, unrolled: 64-bit numbers need at most 92
    steps).
    """
    x, y = common(input, other)
    require_dtype("gcd", (x,), "i")
    a, b = ops.abs_(x), ops.abs_(y)
    zero = ops.zeros_like(a)
    for _ in range({1: 14, 2: 25, 4: 48, 8: 94}[x.dtype.itemsize]):
        done = ops.eq(b, zero)
        safe = ops.where(done, ops.ones_like(b), b)
        a, b = ops.where(done, a, b), ops.where(done, b, ops.rem(a, safe))
    return ops.abs_(a)  # of the least number there is none
