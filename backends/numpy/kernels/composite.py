"""Composites that have a direct NumPy form; the others are interpreted through their decomposition.

16-bit floats are computed in float32 and rounded once. Statistics that backward saves stay float32.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from tracegrad.backends.numpy.kernels.index import argsort, check_bounds
from tracegrad.backends.numpy.kernels.random import random_bits
from tracegrad.backends.numpy.kernels.registry import Array, array, kernel, narrow, scalar, widen
from tracegrad.backends.numpy.kernels.special import erf


@kernel("softmax")
def softmax(x: Array, axis: int) -> Array:
    wide = widen(x)
    e = np.exp(wide - np.maximum.reduce(wide, axis=axis, keepdims=True))
    return narrow(e / np.add.reduce(e, axis=axis, keepdims=True), x.dtype)


@kernel("log_softmax")
def log_softmax(x: Array, axis: int) -> Array:
    wide = widen(x)
    shifted = wide - np.maximum.reduce(wide, axis=axis, keepdims=True)
    mass = np.add.reduce(np.exp(shifted), axis=axis, keepdims=True)
    return narrow(shifted - np.log(mass), x.dtype)


@kernel("logsumexp")
def logsumexp(x: Array, axis: int) -> Array:
    """-inf where every element is."""
    wide = widen(x)
    top = np.maximum.reduce(wide, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, wide.dtype.type(0))
    mass = np.add.reduce(np.exp(wide - shift), axis=axis)
    return narrow(np.log(mass) + np.squeeze(shift, axis), x.dtype)


@kernel("sigmoid")
def sigmoid(x: Array) -> Array:
    wide = widen(x)
    one = scalar(1, wide.dtype)
    return narrow(one / (np.exp(-wide) + one), x.dtype)  # exp may overflow: 1 / inf is the right 0


@kernel("silu")
def silu(x: Array) -> Array:
    wide = widen(x)
    return narrow(wide * (1 / (np.exp(-wide) + 1)), x.dtype)


@kernel("softplus")
def softplus(x: Array, beta: float, threshold: float) -> Array:
    """log(1 + e^(beta x)) / beta, and x itself where beta x is above the threshold."""
    wide = widen(x)
    z = wide * wide.dtype.type(beta)
    smooth = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / wide.dtype.type(beta)
    return narrow(np.where(z > threshold, wide, smooth), x.dtype)


@kernel("relu")
def relu(x: Array) -> Array:
    """nan stays nan."""
    return array(np.maximum(x, scalar(0, x.dtype)))


@kernel("gelu")
def gelu(x: Array, approximate: str) -> Array:
    wide = array(widen(x))
    number = wide.dtype.type
    if approximate == "none":
        bell = erf(array(wide * number(sqrt(0.5))))
    else:
        bell = np.tanh((wide * wide * wide * number(0.044715) + wide) * number(sqrt(2 / pi)))
    return narrow(wide * number(0.5) * (bell + 1), x.dtype)


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Mean and biased variance with their axes kept, and x - mean; two passes, no cancellation."""
    mean = array(np.mean(x, axis=axes, keepdims=True, dtype=x.dtype))
    centred = array(x - mean)
    variance = array(np.mean(centred * centred, axis=axes, keepdims=True, dtype=x.dtype))
    return mean, variance, centred


@kernel("layer_norm_stats")
def layer_norm_stats(
    x: Array, weight: Array, bias: Array, ndim: int, eps: float
) -> tuple[Array, Array, Array]:
    """(y, mean, 1 / sqrt(variance + eps)), over the last ndim axes, which the statistics drop."""
    wide = widen(x)
    mean, variance, centred = _moments(wide, tuple(range(x.ndim - ndim, x.ndim)))
    rstd = array(1 / np.sqrt(variance + wide.dtype.type(eps)))
    y = centred * rstd * widen(weight) + widen(bias)
    lead = x.shape[: x.ndim - ndim]
    return narrow(y, x.dtype), mean.reshape(lead), rstd.reshape(lead)


@kernel("layer_norm")
def layer_norm(x: Array, weight: Array, bias: Array, ndim: int, eps: float) -> Array:
    return layer_norm_stats(x, weight, bias, ndim, eps)[0]


@kernel("rms_norm")
def rms_norm(x: Array, weight: Array, ndim: int, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over the last ndim axes."""
    wide = widen(x)
    axes = tuple(range(x.ndim - ndim, x.ndim))
    square = np.mean(wide * wide, axis=axes, keepdims=True, dtype=wide.dtype)
    scaled = wide * (1 / np.sqrt(square + wide.dtype.type(eps)))
    return narrow(scaled * widen(weight), x.dtype)


@kernel("batch_norm")
def batch_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """(y, mean[C], biased variance[C]) by the batch's own statistics; axis 1 is the channel."""
    wide = widen(x)
    mean, variance, centred = _moments(wide, (0, *range(2, x.ndim)))
    channels = mean.shape
    scale = 1 / np.sqrt(variance + wide.dtype.type(eps)) * widen(weight).reshape(channels)
    y = centred * scale + widen(bias).reshape(channels)
    return narrow(y, x.dtype), mean.reshape(-1), variance.reshape(-1)


@kernel("cross_entropy")
def cross_entropy(logits: Array, target: Array, ignore_index: int) -> Array:
    """Each row's logsumexp minus its target's logit; 0 for an ignored row, whatever its target."""
    wide = widen(logits)
    ignored = target == ignore_index
    column = np.where(ignored, 0, target)
    check_bounds(column, logits.shape[1], 1)
    picked = wide[np.arange(len(wide)), column]
    loss = logsumexp(wide, axis=1) - picked
    return narrow(np.where(ignored, wide.dtype.type(0), loss), logits.dtype)


@kernel("dropout")
def dropout(x: Array, key: Array, rate: float) -> Array:
    """x / (1 - rate) where the element's random bits reach round(rate 2^32), else exactly 0."""
    threshold = round(rate * 2**32)
    if threshold == 0:
        return x
    if threshold == 2**32:
        return np.zeros_like(x)
    kept = random_bits(key, x.shape) >= np.uint32(threshold)
    return narrow(np.where(kept, x * x.dtype.type(1 / (1 - rate)), x.dtype.type(0)), x.dtype)


@kernel("topk")
def topk(x: Array, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """(values, indices) in order; equal values in the order they stand; nan counts as largest."""
    first = argsort(x, axis, largest)[(*(slice(None),) * axis, slice(k))]
    return np.take_along_axis(x, first, axis), first


@kernel("sdpa")
def sdpa(q: Array, k: Array, v: Array, causal: bool, scale: float) -> tuple[Array, Array]:
    """(softmax(q k^T scale) v, logsumexp of the rows of scores); causal: row t sees keys 0..t."""
    wide = widen(q)
    scores = np.matmul(wide * wide.dtype.type(scale), np.swapaxes(widen(k), -1, -2))
    if causal:
        seen = np.tri(scores.shape[2], scores.shape[3], dtype=np.bool_)
        scores = np.where(seen, scores, scores.dtype.type(-np.inf))
    top = np.maximum.reduce(scores, axis=-1, keepdims=True)
    weight = np.exp(scores - top)
    mass = np.add.reduce(weight, axis=-1, keepdims=True)
    out = np.matmul(weight, widen(v)) / mass
    return narrow(out, q.dtype), (np.log(mass) + top)[..., 0]


@kernel("lstm")
def lstm(
    x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array
) -> tuple[Array, Array, Array]:
    """(y[T, N, H], h_T, c_T); gates i, f, g, o: c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c')."""
    dtype, hidden = x.dtype, h0.shape[1]
    x, h, c, w_ih, w_hh = (widen(part) for part in (x, h0, c0, w_ih, w_hh))
    fed = np.matmul(x, w_ih.T) + (widen(b_ih) + widen(b_hh))
    y = np.empty((len(x), *h0.shape), x.dtype)
    for step in range(len(x)):
        gates = fed[step] + np.matmul(h, w_hh.T)
        i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = y[step] = sigmoid(o) * np.tanh(c)
    return narrow(y, dtype), narrow(h, dtype), narrow(c, dtype)
