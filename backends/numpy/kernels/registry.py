"""The table of kernels and the two helpers every kernel uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
Kernel = Callable[..., Any]
F = TypeVar("F", bound=Kernel)

KERNELS: dict[str, Kernel] = {}

FLOAT32 = np.dtype(np.float32)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V"  # no other dtype of ours is of this kind


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether arithmetic is done in float32 and rounded once at the end."""
    return dtype.itemsize == 2 and dtype.kind in "fV"


def kernel(name: str) -> Callable[[F], F]:
    """Register the decorated function as the meaning of op `name`."""

    def register(function: F) -> F:
        KERNELS[name] = function
        return function

    return register


def array(value: Any) -> Array:
    """NumPy answers 0-d operations with scalars; the IR knows only arrays."""
    if type(value) is np.ndarray:
        return value
    return np.asarray(value)


@cache
def scalar(value: int, dtype: np.dtype[Any]) -> Array:
    """A 0-d array: a ufunc takes it in half the time of a number."""
    made: Array = np.array(value, dtype)
    made.flags.writeable = False
    return made


def widen(x: Array) -> Array:
    """`x`, or its float32 copy when it is a 16-bit float: sums and series need the digits."""
    return x.astype(FLOAT32) if is_half(x.dtype) else x


def narrow(value: Any, dtype: np.dtype[Any]) -> Array:
    """`value` as an array of `dtype` (no copy when it already is one)."""
    result: Array = array(value)
    return result if result.dtype == dtype else result.astype(dtype)
