"""Reductions and scans along an axis in jax.lax."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from tracegrad.backends.jax.lowering_elementwise import Lowering, is_bool

Ints = tuple[int, ...]


def _is_half(x: Any) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iu"


def _widened(function: Any) -> Lowering:
    """Sixteen-bit floats accumulate in float32, as the NumPy kernels do."""

    def run(x: Any, *args: Any) -> Any:
        if _is_half(x):
            return lax.convert_element_type(
                function(lax.convert_element_type(x, np.float32), *args), x.dtype
            )
        return function(x, *args)

    return run


_sum, _prod = _widened(lax.reduce_sum), _widened(lax.reduce_prod)
_cumsum, _cumprod = _widened(lax.cumsum), _widened(lax.cumprod)
_cumlogsumexp = _widened(lax.cumlogsumexp)


def sum_(x: Any, *, axes: Ints) -> Any:
    return lax.reduce_or(x, axes) if is_bool(x) else _sum(x, axes)


def prod(x: Any, *, axes: Ints) -> Any:
    return lax.reduce_and(x, axes) if is_bool(x) else _prod(x, axes)


def max_(x: Any, *, axes: Ints) -> Any:
    return lax.reduce_or(x, axes) if is_bool(x) else lax.reduce_max(x, axes)


def min_(x: Any, *, axes: Ints) -> Any:
    return lax.reduce_and(x, axes) if is_bool(x) else lax.reduce_min(x, axes)


def cumsum(x: Any, *, axis: int) -> Any:
    return _cumsum(x, axis)


def cumprod(x: Any, *, axis: int) -> Any:
    return _cumprod(x, axis)


def _cumulative_extreme(function: Any) -> Lowering:
    def run(x: Any, *, axis: int) -> Any:
        if is_bool(x):
            bytes_ = function(lax.convert_element_type(x, np.uint8), axis)
            return lax.convert_element_type(bytes_, np.bool_)
        return function(x, axis)

    return run


def cumlogsumexp(x: Any, *, axis: int) -> Any:
    return _cumlogsumexp(x, axis)


LOWERINGS: dict[str, Lowering] = {
    "sum": sum_, "prod": prod, "max": max_, "min": min_, "cumsum": cumsum, "cumprod": cumprod,
    "cummax": _cumulative_extreme(lax.cummax), "cummin": _cumulative_extreme(lax.cummin),
    "cumlogsumexp": cumlogsumexp,
}  # fmt: skip
