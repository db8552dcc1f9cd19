"""Numbers that are stored in a dtype: refused where it cannot hold them, as in PyTorch."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from tracegrad.ir.types import DType, bf16, f32, f64
from tracegrad.tracer.errors import InvalidValueError

_USUAL = (f32, f64)
EXACT = 2**53  # Python ints up to here are exact as floats, rounded once to narrower ones


@cache
def limits(dtype: DType) -> tuple[float, float]:
    """The smallest and largest number that `dtype` holds."""
    if dtype.is_bool or dtype.is_complex:
        return -math.inf, math.inf
    if dtype.is_int:
        return int(np.iinfo(dtype.np).min), int(np.iinfo(dtype.np).max)
    if dtype is bf16:  # whose package is imported with its first tensor
        return -(2.0**128 - 2.0**120), 2.0**128 - 2.0**120
    return float(np.finfo(dtype.np).min), float(np.finfo(dtype.np).max)


def fits(value: Any, dtype: DType, halves: bool = True) -> bool:
    """Whether `dtype` holds a number, fractions cut off. Infinities fit floats; a negative integer
    fits unsigned ones if its size does, and wraps. Without `halves` 16-bit floats take any number.
    """
    if value.__class__ is complex and not dtype.is_complex:
        return not value.imag and fits(value.real, dtype, halves)
    low, high = limits(dtype)
    if dtype.is_complex or low <= value <= high:
        return True
    if dtype.is_int:
        return low == 0 and isinstance(value, int) and -high <= value < 0
    return dtype.is_bool or not math.isfinite(value) or (dtype.itemsize == 2 and not halves)


def check_fits(value: Any, dtype: DType, halves: bool = True) -> None:
    """Raises InvalidValueError if `value` is a number that `dtype` cannot hold."""
    if value.__class__ is float:
        low, high = limits(dtype)
        if low <= value <= high:
            return
    if isinstance(value, (int, float, complex)) and not fits(value, dtype, halves):
        raise InvalidValueError(
            f"{value} cannot be stored in a {dtype.public_name} tensor without overflow",
            fix="give a number that fits, or use a wider dtype",
        )


def check_all_fit(array: np.ndarray, dtype: DType) -> None:
    """Raises InvalidValueError unless the integer `dtype` holds all numbers of an array."""
    if array.size and array.dtype.kind in "iufO":
        # The extremes as Python numbers: exact, and nan where there is one.
        for extreme in (array.min(), array.max()):
            value = extreme.item() if isinstance(extreme, np.generic) else extreme
            check_fits(value, dtype)


def stored(value: Any, dtype: DType) -> np.ndarray:
    """A number as an array of `dtype`, negative integers wrapped and fractions cut off."""
    if value.__class__ is int and -EXACT <= value <= EXACT and dtype in _USUAL:
        value = float(value)
    if value.__class__ is float and dtype in _USUAL:
        low, high = limits(dtype)
        if low <= value <= high:
            return np.array(value, dtype.np)
    with np.errstate(all="ignore"):
        value = np.asarray(value)
        if value.dtype.kind == "c" and not dtype.is_complex:
            value = value.real
        return value.astype(dtype.np)
