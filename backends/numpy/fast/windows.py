"""Pooling without allocation: maxima and sums over windows, and the gradient of the maximum.

    WindowMax(x.shape, x.dtype, window=..., strides=..., padding=..., dilation=...)(x, out)
    SelectScatter(... the same ...)(ct, x, out)
    WindowSum(x.shape, x.dtype, window=..., strides=..., padding=...)(x, out)

One strided slice a tap; 2x2 pooling of even images has its own path, which runs along flat memory.
Plans own their buffers: one call at a time.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.columns import Ints, tap_slices
from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels.contract import Pairs
from tracegrad.backends.numpy.kernels.reduce import lowest
from tracegrad.backends.numpy.kernels.registry import is_half
from tracegrad.backends.numpy.kernels.window import select_scatter, window_sum

BITS = {4: np.int32, 8: np.int64}


class _Taps:
    """The slices of every tap over the last axes."""

    def __init__(self, x_shape: Ints, window: Ints, strides: Ints, padding: Pairs, dilation: Ints):
        split = len(x_shape) - len(window)
        size = x_shape[split:]
        self.out = tuple(
            (n + low + high - (k - 1) * d - 1) // s + 1
            for n, k, s, (low, high), d in zip(size, window, strides, padding, dilation)
        )
        self.lead, self.shape = x_shape[:split], (*x_shape[:split], *self.out)
        self.taps: list[tuple[Any, Any]] = [
            ((..., *target), (..., *read))
            for _, target, read in tap_slices(size, self.out, window, strides, padding, dilation)
        ]


def _is_2x2(x_shape: Ints, window: Ints, strides: Ints, padding: Pairs, dilation: Ints) -> bool:
    """Whether pairs of neighbours tile the last two axes exactly."""
    return (
        window == strides == (2, 2)
        and dilation == (1, 1)
        and all(pair == (0, 0) for pair in padding)
        and x_shape[-1] % 2 == x_shape[-2] % 2 == 0
        and prod(x_shape) > 0
    )


class WindowMax:
    """out = maximum over each window; padding counts as the lowest value."""

    def __init__(
        self, x_shape: Ints, dtype: np.dtype[Any], *, window: Ints, strides: Ints, padding: Pairs,
        dilation: Ints,
    ):  # fmt: skip
        self.lowest = lowest(np.dtype(dtype))
        self.plan = _Taps(x_shape, window, strides, padding, dilation)
        self.pairs: Array | None = None
        if _is_2x2(x_shape, window, strides, padding, dilation):
            rows = prod(x_shape) // (2 * x_shape[-1])
            self.pairs = np.empty((rows, 2, x_shape[-1] // 2), dtype)

    @property
    def nbytes(self) -> int:
        return 0 if self.pairs is None else self.pairs.nbytes

    def __call__(self, x: Array, out: Array) -> None:
        if self.pairs is not None and x.flags.c_contiguous and out.flags.c_contiguous:
            halves = x.reshape(-1, 2)
            np.maximum(halves[:, 0], halves[:, 1], out=self.pairs.reshape(-1))
            flat = out.reshape(len(self.pairs), -1)
            np.maximum(self.pairs[:, 0], self.pairs[:, 1], out=flat)
            return
        out.fill(self.lowest)
        for target, read in self.plan.taps:
            np.maximum(out[target], x[read], out=out[target])


class WindowSum:
    """out = sum over each window; padding counts as 0."""

    def __init__(
        self, x_shape: Ints, dtype: np.dtype[Any], *, window: Ints, strides: Ints, padding: Pairs
    ):
        self.attrs: dict[str, Any] = dict(window=window, strides=strides, padding=padding)
        self.plain = is_half(np.dtype(dtype))  # must accumulate in float32
        self.plan = _Taps(x_shape, window, strides, padding, (1,) * len(window))

    nbytes = 0

    def __call__(self, x: Array, out: Array) -> None:
        if self.plain:
            np.copyto(out, window_sum(x, **self.attrs))
            return
        out.fill(0)
        for target, read in self.plan.taps:
            np.add(out[target], x[read], out=out[target])


class SelectScatter:
    """out = each window's ct at the position of the window's first maximum in x, zero elsewhere."""

    def __init__(
        self, x_shape: Ints, dtype: np.dtype[Any], *, window: Ints, strides: Ints, padding: Pairs,
        dilation: Ints,
    ):  # fmt: skip
        self.attrs: dict[str, Any] = dict(
            window=window, strides=strides, padding=padding, dilation=dilation
        )
        self.dtype = np.dtype(dtype)
        self.plan = _Taps(x_shape, window, strides, padding, dilation)
        self.pairs: Any = None
        self.plain = self.dtype.kind != "f" or self.dtype.itemsize not in BITS
        if self.plain:
            return
        self.bits = BITS[self.dtype.itemsize]
        if _is_2x2(x_shape, window, strides, padding, dilation):
            rows = prod(x_shape) // (2 * x_shape[-1])
            self.pairs = np.empty((rows, 2, x_shape[-1] // 2), dtype)
            self.routed = np.empty((rows, 2, x_shape[-1] // 2), self.bits)
            self.top = np.empty((rows, x_shape[-1] // 2), np.bool_)
            self.left = np.empty(self.pairs.size, np.bool_)
        self.maximum = WindowMax(x_shape, dtype, **self.attrs)
        self.largest = np.empty(self.plan.shape, dtype)
        self.hit = np.empty(self.plan.shape, np.bool_)
        self.free = np.empty(self.plan.shape, np.bool_)
        self.sent = np.empty(self.plan.shape, self.bits)

    @property
    def nbytes(self) -> int:
        own = sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))
        return own + (0 if self.plain else self.maximum.nbytes)

    def __call__(self, ct: Array, x: Array, out: Array) -> None:
        if self.plain:
            np.copyto(out, select_scatter(ct, x, **self.attrs))
        elif (
            self.pairs is not None
            and x.flags.c_contiguous
            and ct.flags.c_contiguous
            and out.flags.c_contiguous
            and not np.isnan(np.max(x))  # the comparisons below take no nan
        ):
            self._pairs(ct, x, out)
        else:
            self._taps(ct, x, out)

    def _pairs(self, ct: Array, x: Array, out: Array) -> None:
        # ct's bits times 0 or 1 is an exact select, where a float product would make nan of inf
        halves, pairs, routed = x.reshape(-1, 2), self.pairs, self.routed
        np.greater_equal(halves[:, 0], halves[:, 1], out=self.left)
        np.maximum(halves[:, 0], halves[:, 1], out=pairs.reshape(-1))
        np.greater_equal(pairs[:, 0], pairs[:, 1], out=self.top)
        incoming = ct.view(self.bits).reshape(len(routed), -1)
        np.multiply(incoming, self.top, out=routed[:, 0])
        np.subtract(incoming, routed[:, 0], out=routed[:, 1])  # ct - ct or ct - 0
        flat, target = routed.reshape(-1), out.view(self.bits).reshape(-1, 2)
        np.multiply(flat, self.left, out=target[:, 0])
        np.subtract(flat, target[:, 0], out=target[:, 1])

    def _taps(self, ct: Array, x: Array, out: Array) -> None:
        self.maximum(x, self.largest)
        out.fill(0)
        self.free.fill(True)
        incoming = np.ascontiguousarray(ct).view(self.bits)
        has_nan = bool(np.isnan(np.max(self.largest, initial=-np.inf)))
        for target, read in self.plan.taps:
            hit, free, sent = self.hit[target], self.free[target], self.sent[target]
            np.equal(x[read], self.largest[target], out=hit)
            if has_nan:
                np.logical_or(hit, np.isnan(x[read]), out=hit)
            np.logical_and(hit, free, out=hit)
            np.logical_xor(free, hit, out=free)  # a window gives its ct once
            np.multiply(incoming[target], hit, out=sent)
            np.add(out[read], sent.view(self.dtype), out=out[read])
