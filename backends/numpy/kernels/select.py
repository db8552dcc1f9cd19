"""where, cast, bitcast; constants and counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array, array, is_bfloat16, kernel


@kernel("where")
def where(condition: Array, x: Array, y: Array) -> Array:
    return array(np.where(condition, x, y))


@kernel("cast")
def cast(x: Array, dtype: Any) -> Array:
    """Float to bool is != 0, complex to real takes the real part, float to int truncates."""
    target = dtype.np
    if x.dtype == target:
        return x
    if target == np.bool_:
        return array(x != 0)
    if x.dtype.kind == "c" and target.kind != "c":
        x = array(x.real)
    if (is_bfloat16(x.dtype) or is_bfloat16(target)) and (
        x.dtype.kind == "c" or target.kind == "c"
    ):
        return x.astype(np.float32).astype(target)
    return x.astype(target)


@kernel("bitcast")
def bitcast(x: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(x).reshape(x.shape).view(dtype.np)


@kernel("constant")
def constant(value: Any) -> Array:
    return value.array


@kernel("iota")
def iota(shape: tuple[int, ...], axis: int, dtype: Any) -> Array:
    """Counts 0, 1, ... along `axis`, constant along the others."""
    counter = np.arange(shape[axis]).astype(dtype.np)
    column = counter.reshape(tuple(-1 if i == axis else 1 for i in range(len(shape))))
    return np.broadcast_to(column, shape)
