"""Elementwise primitives. Integers wrap around; the caller silences float warnings (errstate)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.backends.base import DivisionByZero
from tracegrad.backends.numpy.kernels import special
from tracegrad.backends.numpy.kernels.registry import KERNELS, Array, array, is_half, kernel, narrow


def _plain(name: str, ufunc: Callable[..., Any]) -> None:
    """A ufunc that is right for every dtype it is given, 16-bit floats included."""

    def unary_or_binary(*xs: Array) -> Array:
        return array(ufunc(*xs))

    unary_or_binary.__name__ = name
    KERNELS[name] = unary_or_binary


def _widened(name: str, function: Callable[..., Any]) -> None:
    """A function evaluated in float32 for 16-bit floats and rounded once."""

    def unary(x: Array) -> Array:
        if is_half(x.dtype):
            return array(function(x.astype(np.float32))).astype(x.dtype)
        return array(function(x))

    unary.__name__ = name
    KERNELS[name] = unary


def rsqrt(x: Array) -> Any:
    return 1 / np.sqrt(x)


PLAIN: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "add": np.add,  # on bool: or
    "mul": np.multiply,  # on bool: and
    "sub": np.subtract,
    "div": np.true_divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "nextafter": np.nextafter,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "bitwise_not": np.invert,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "isfinite": np.isfinite,
    "isnan": np.isnan,
    "real": np.real,
    "imag": np.imag,
    "conj": np.conjugate,
}
for _name, _ufunc in PLAIN.items():
    _plain(_name, _ufunc)

WIDENED: dict[str, Callable[..., Any]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,  # half to even
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": rsqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "erfinv": special.erfinv,
    "lgamma": special.lgamma,
    "digamma": special.digamma,
}
for _name, _function in WIDENED.items():
    _widened(_name, _function)


def _refuse_zero(divisor: Array) -> None:
    if divisor.dtype.kind in "iub" and not divisor.all():
        raise DivisionByZero("integer division by zero; test the divisor, or divide floats")


def _float_division(function: Callable[..., Any], x: Array, y: Array) -> Array:
    if is_half(x.dtype):
        return array(function(x.astype(np.float32), y.astype(np.float32))).astype(x.dtype)
    return narrow(function(x, y), x.dtype)  # NumPy answers bool operands in int8


@kernel("floor_div")
def floor_div(x: Array, y: Array) -> Array:
    """Rounded towards minus infinity, as Python's //."""
    _refuse_zero(y)
    return _float_division(np.floor_divide, x, y)


@kernel("rem")
def rem(x: Array, y: Array) -> Array:
    """Sign of the divisor, as Python's %: x == floor_div(x, y) * y + rem(x, y)."""
    _refuse_zero(y)
    return _float_division(np.remainder, x, y)


def power(x: Array, y: Array, out: Array | None = None) -> Array:
    """np.power of floats; where it would take the root, for a single exponent of 0.5, too: the root of
    -inf is nan, and of -0.0 it is -0.0.
    """
    if y.dtype.kind == "f" and y.size and not any(y.strides) and y.flat[0] == 0.5:
        y = np.full(np.broadcast_shapes(x.shape, y.shape), y.flat[0], y.dtype)
    result: Array = np.power(x, y, out)
    return result


@kernel("pow")
def pow(x: Array, y: Array) -> Array:
    """Integers: a negative exponent truncates (1 and -1 survive, the rest is 0)."""
    kind = x.dtype.kind
    if kind == "i" and (negative := y < 0).any():
        parity = np.where(y % 2 == 0, 1, -1)
        inverse = np.where(x == 1, 1, np.where(x == -1, parity, 0))
        powers = np.power(x, np.where(negative, 0, y).astype(x.dtype))
        return array(np.where(negative, inverse, powers).astype(x.dtype))
    return _float_division(power, x, y)


@kernel("atan2")
def atan2(y: Array, x: Array) -> Array:
    return _float_division(np.arctan2, y, x)


@kernel("complex")
def complex(real: Array, imag: Array) -> Array:
    """f32 pairs make c64, f64 pairs c128. Generated code may give a constant part as 0-d."""
    out = np.empty(
        np.broadcast_shapes(real.shape, imag.shape),
        np.complex64 if real.dtype.itemsize == 4 else np.complex128,
    )
    out.real = real
    out.imag = imag
    return out
