"""The larger or the smaller of an array and one number.

NumPy has vector code for two arrays that lie alike, not for an array and a number: from a thousand
elements on that is three to ten times as slow. So the number comes as an array of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels.registry import scalar

PAYS_FROM = 1024  # elements
BLOCK = 1 << 15  # elements of one call: the filled array stays in the cache


def has_vector_code(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or dtype.char in "fd"


@lru_cache(32)
def _filled(shape: tuple[int, ...], element: bytes, dtype: np.dtype[Any]) -> Array:
    made = np.full(shape, np.frombuffer(element, dtype)[0])
    made.flags.writeable = False
    return made


def filled(shape: tuple[int, ...], number: Array) -> Array:
    """A read-only array of this shape with the 0-d `number` throughout, the sign of a zero kept."""
    return _filled(shape, number.tobytes(), number.dtype)


def with_number(ufunc: np.ufunc, x: Array, number: Array) -> Array:
    """np.maximum or np.minimum of x and a 0-d array of its dtype; nan stays nan."""
    if x.size < PAYS_FROM or not x.flags.c_contiguous or not has_vector_code(x.dtype):
        return ufunc(x, number)  # type: ignore[no-any-return]
    out = np.empty(x.shape, x.dtype)
    source, target, numbers = x.reshape(-1), out.reshape(-1), filled((BLOCK,), number)
    for first in range(0, x.size, BLOCK):
        part = source[first : first + BLOCK]
        ufunc(part, numbers[: part.size], out=target[first : first + BLOCK])
    return out


def relu(x: Array) -> Array:
    """The larger of x and 0."""
    return with_number(np.maximum, x, scalar(0, x.dtype))
