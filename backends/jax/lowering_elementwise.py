"""Elementwise ops, selection, casts and sources in jax.lax.

Inputs have equal shapes and dtypes (the IR is strict), so nothing here broadcasts or promotes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

Lowering = Callable[..., Any]


def is_bool(x: Any) -> bool:
    return bool(x.dtype == np.bool_)


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def is_complex(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.complexfloating))


def full_like(x: Any, value: Any) -> Any:
    return lax.full(x.shape, value, x.dtype)


def zeros_like(x: Any) -> Any:
    return full_like(x, 0)


def absolute(x: Any) -> Any:
    unsigned = is_bool(x) or jnp.issubdtype(x.dtype, jnp.unsignedinteger)
    return x if unsigned else lax.abs(x)


def sign(x: Any) -> Any:
    return x if is_bool(x) else lax.sign(x)


def trunc(x: Any) -> Any:
    return lax.select(lax.lt(x, zeros_like(x)), lax.ceil(x), lax.floor(x))


def round_(x: Any) -> Any:
    return lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)


def add(x: Any, y: Any) -> Any:
    return lax.bitwise_or(x, y) if is_bool(x) else lax.add(x, y)


def mul(x: Any, y: Any) -> Any:
    return lax.bitwise_and(x, y) if is_bool(x) else lax.mul(x, y)


def maximum(x: Any, y: Any) -> Any:
    return lax.bitwise_or(x, y) if is_bool(x) else lax.max(x, y)


def minimum(x: Any, y: Any) -> Any:
    return lax.bitwise_and(x, y) if is_bool(x) else lax.min(x, y)


def floor_div(x: Any, y: Any) -> Any:
    """Rounded towards minus infinity; an integer divided by 0 is 0 (and a flag, see `flags`)."""
    if is_float(x):
        return jnp.floor_divide(x, y)
    by_zero = lax.eq(y, zeros_like(y))
    return lax.select(
        by_zero, zeros_like(x), jnp.floor_divide(x, lax.select(by_zero, full_like(y, 1), y))
    )


def rem(x: Any, y: Any) -> Any:
    """Sign of the divisor; an integer modulo 0 is 0 (and a flag)."""
    if is_float(x):
        return jnp.remainder(x, y)
    by_zero = lax.eq(y, zeros_like(y))
    return lax.select(
        by_zero, zeros_like(x), jnp.remainder(x, lax.select(by_zero, full_like(y, 1), y))
    )


def power(x: Any, y: Any) -> Any:
    if x.dtype == jnp.float16:  # XLA makes products of small powers, each rounded
        return power(x.astype(jnp.float32), y.astype(jnp.float32)).astype(x.dtype)
    if is_float(x) or is_complex(x):
        return lax.pow(x, y)
    if jnp.issubdtype(y.dtype, jnp.unsignedinteger):
        return whole_power(x, y)
    # 1 / x**|y|, truncated: only 1 and -1 are not 0 then. jnp.power knows no negative powers.
    zero = zeros_like(y)
    negative = lax.lt(y, zero)
    inverse = lax.select(lax.eq(lax.bitwise_and(y, full_like(y, 1)), zero), lax.mul(x, x), x)
    inverse = lax.select(lax.eq(lax.abs(x), full_like(x, 1)), inverse, zeros_like(x))
    return lax.select(negative, inverse, whole_power(x, lax.max(y, zero)))


def whole_power(x: Any, y: Any) -> Any:
    """Of integers, y >= 0; wraps around. jnp.power looks at the lowest six bits of an exponent."""
    bits = full_like(y, 6)

    def more(state: Any) -> Any:
        return (state[1] > 0).any()

    def turn(state: Any) -> Any:
        base, exponent, result = state
        low = lax.bitwise_and(exponent, full_like(exponent, 63))
        following = jnp.power(jnp.power(base, 32), 2)
        rest = lax.shift_right_logical(exponent, bits)
        return following, rest, lax.mul(result, jnp.power(base, low))

    return lax.while_loop(more, turn, (x, y, full_like(x, 1)))[2]


def shift_right(x: Any, y: Any) -> Any:
    """Arithmetic for signed integers, logical for unsigned ones."""
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        return lax.shift_right_logical(x, y)
    return lax.shift_right_arithmetic(x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    return lax.select(condition, x, y)


def cast(x: Any, *, dtype: Any) -> Any:
    target = dtype.np
    if target == np.bool_:
        return lax.ne(x, zeros_like(x))
    if is_complex(x) and not dtype.is_complex:
        x = lax.real(x)
    if is_float(x) and dtype.is_int and target != np.uint64:
        return _truncated(x, target)
    return lax.convert_element_type(x, target)


def _truncated(x: Any, target: Any) -> Any:
    """A float as an integer, as NumPy and PyTorch convert on x86: through int32 (int64 for wider
    targets), whose least number stands for whatever does not fit; narrower integers wrap. XLA alone
    saturates.
    """
    through: Any = np.dtype(np.int64 if target.itemsize > 4 or target == np.uint32 else np.int32)
    limit = 2.0 ** (8 * through.itemsize - 1)
    wide = lax.convert_element_type(x, jnp.promote_types(x.dtype, np.float32))
    fits = lax.bitwise_and(
        lax.ge(wide, full_like(wide, -limit)), lax.lt(wide, full_like(wide, limit))
    )
    whole = lax.convert_element_type(wide, through)
    whole = lax.select(fits, whole, full_like(whole, np.iinfo(through).min))
    return lax.convert_element_type(whole, target)


def bitcast(x: Any, *, dtype: Any) -> Any:
    return lax.bitcast_convert_type(x, dtype.np)


def digamma(x: Any) -> Any:
    """-1/x at the two zeros, as in PyTorch; XLA says nan."""
    return lax.select(lax.eq(x, zeros_like(x)), lax.div(full_like(x, -1), x), lax.digamma(x))


def constant(*, value: Any) -> Any:
    array = value.array
    if array.size == 0:
        return lax.full(array.shape, 0, array.dtype)
    if value.splat is not None:
        # The element itself, not the Python scalar: -0.0, nan payloads and uint64 survive.
        return lax.full(array.shape, array[(0,) * array.ndim], array.dtype)
    return jnp.asarray(array)


def iota(*, shape: tuple[int, ...], axis: int, dtype: Any) -> Any:
    return lax.broadcasted_iota(dtype.np, shape, axis)


LOWERINGS: dict[str, Lowering] = {
    # unary
    "neg": lax.neg, "abs": absolute, "sign": sign, "floor": lax.floor, "ceil": lax.ceil,
    "trunc": trunc, "round": round_, "exp": lax.exp, "expm1": lax.expm1, "log": lax.log,
    "log1p": lax.log1p, "sqrt": lax.sqrt, "rsqrt": lax.rsqrt, "sin": lax.sin, "cos": lax.cos,
    "tan": lax.tan, "asin": lax.asin, "acos": lax.acos, "atan": lax.atan, "sinh": lax.sinh,
    "cosh": lax.cosh, "tanh": lax.tanh, "asinh": lax.asinh, "acosh": lax.acosh,
    "atanh": lax.atanh, "erf": lax.erf, "erfc": lax.erfc, "erfinv": lax.erf_inv, "lgamma": lax.lgamma,
    "digamma": digamma, "bitwise_not": lax.bitwise_not, "isfinite": lax.is_finite,
    "isnan": lambda x: lax.ne(x, x), "real": lax.real, "imag": lax.imag, "conj": lax.conj,
    # binary
    "add": add, "sub": lax.sub, "mul": mul, "div": lax.div, "floor_div": floor_div, "rem": rem,
    "pow": power, "atan2": lax.atan2, "maximum": maximum, "minimum": minimum,
    "nextafter": lax.nextafter, "and": lax.bitwise_and, "or": lax.bitwise_or,
    "xor": lax.bitwise_xor, "shl": lax.shift_left, "shr": shift_right, "complex": lax.complex,
    "eq": lax.eq, "lt": lax.lt, "le": lax.le,
    # selection, types, sources
    "where": where, "cast": cast, "bitcast": bitcast, "constant": constant, "iota": iota,
}  # fmt: skip
