"""Elementwise formulas on one tile, without allocation: every intermediate goes to a given buffer.

All arguments are float32 or float64 arrays of one shape; `out` may be `x`, the scratch may not.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels import special
from tracegrad.backends.numpy.kernels.special import ERF32_LIMIT, ERF32_P, ERF32_Q

# 0-d arrays: a Python scalar costs the ufunc 150 ns more
_P = tuple(np.array(c, np.float32) for c in ERF32_P)
_Q = tuple(np.array(c, np.float32) for c in ERF32_Q)
_LOW, _HIGH = np.array(-ERF32_LIMIT, np.float32), np.array(ERF32_LIMIT, np.float32)


def erf(x: Array, out: Array, a: Array, b: Array, c: Array) -> None:
    """out = erf(x); the same rational as the kernel, term by term. a, b, c are scratch."""
    if x.dtype != np.float32:
        np.copyto(out, special.erf(x))
        return
    np.maximum(x, _LOW, out=a)  # np.clip is Python, and ten times slower on a few elements
    np.minimum(a, _HIGH, out=a)
    np.multiply(a, a, out=b)
    np.multiply(b, _P[0], out=c)
    for coefficient in _P[1:-1]:
        np.add(c, coefficient, out=c)
        np.multiply(c, b, out=c)
    np.add(c, _P[-1], out=c)
    np.multiply(a, c, out=a)
    np.multiply(b, _Q[0], out=c)
    for coefficient in _Q[1:-1]:
        np.add(c, coefficient, out=c)
        np.multiply(c, b, out=c)
    np.add(c, _Q[-1], out=c)
    np.divide(a, c, out=out)


def gelu(x: Array, out: Array, a: Array, b: Array, c: Array, d: Array) -> None:
    """out = x (1 + erf(x / sqrt 2)) / 2."""
    np.multiply(x, x.dtype.type(1 / sqrt(2)), out=d)
    erf(d, d, a, b, c)
    np.add(d, x.dtype.type(1), out=d)
    np.multiply(d, x.dtype.type(0.5), out=d)
    np.multiply(x, d, out=out)


def gelu_of(x: Array) -> Array:
    """`gelu` in a new array."""
    out, (a, b, c, d) = np.empty(x.shape, x.dtype), np.empty((4, *x.shape), x.dtype)
    gelu(x, out, a, b, c, d)
    return out


def sigmoid(x: Array, out: Array) -> None:
    """out = (1 + tanh(x / 2)) / 2; absolute error of one ulp of 1, no overflow."""
    half = x.dtype.type(0.5)
    np.multiply(x, half, out=out)
    np.tanh(out, out=out)
    np.multiply(out, half, out=out)
    np.add(out, half, out=out)
