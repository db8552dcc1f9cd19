"""Reductions and scans. Same dtype out; 16-bit floats accumulate in float32 and round once."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.registry import KERNELS, Array, array, kernel, narrow, widen


@kernel("sum")
def sum(x: Array, axes: tuple[int, ...]) -> Array:
    """On bool: or."""
    wide = widen(x)
    return narrow(np.add.reduce(wide, axis=axes, dtype=wide.dtype), x.dtype)


@kernel("prod")
def prod(x: Array, axes: tuple[int, ...]) -> Array:
    """On bool: and."""
    wide = widen(x)
    return narrow(np.multiply.reduce(wide, axis=axes, dtype=wide.dtype), x.dtype)


def lowest(dtype: np.dtype[Any]) -> Any:
    """The identity of max: -inf, the smallest integer, or False."""
    if dtype == np.bool_:
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def highest(dtype: np.dtype[Any]) -> Any:
    """The identity of min: inf, the largest integer, or True."""
    if dtype == np.bool_:
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


@kernel("max")
def max(x: Array, axes: tuple[int, ...]) -> Array:
    """nan propagates; the identity where nothing is reduced. On bool: any."""
    if x.size == 0:
        return narrow(np.maximum.reduce(widen(x), axis=axes, initial=lowest(x.dtype)), x.dtype)
    return narrow(np.maximum.reduce(widen(x), axis=axes), x.dtype)


@kernel("min")
def min(x: Array, axes: tuple[int, ...]) -> Array:
    """nan propagates; the identity where nothing is reduced. On bool: all."""
    if x.size == 0:
        return narrow(np.minimum.reduce(widen(x), axis=axes, initial=highest(x.dtype)), x.dtype)
    return narrow(np.minimum.reduce(widen(x), axis=axes), x.dtype)


def _scan(name: str, ufunc: np.ufunc) -> None:
    def scan(x: Array, axis: int) -> Array:
        wide = widen(x)
        return narrow(array(ufunc.accumulate(wide, axis=axis, dtype=wide.dtype)), x.dtype)

    scan.__name__ = name
    KERNELS[name] = scan


_scan("cumsum", np.add)
_scan("cumprod", np.multiply)
_scan("cummax", np.maximum)
_scan("cummin", np.minimum)
_scan("cumlogsumexp", np.logaddexp)
