"""Convolution without allocation: the strategy is chosen by shape once, when the plan is made.

    plan = ConvPlan(x.shape, w.shape, dtype=x.dtype, strides=..., padding=..., lhs_dilation=...,
                    rhs_dilation=..., groups=...)
    plan(x, w, out)

`x`, `w` and `out` may be strided views. A plan owns its workspace: one call of it runs at a time.
`kind` says what was chosen, `nbytes` the size of the workspace:

pointwise  1x1, stride 1: a batched GEMM
gradient   large window, small output (the gradient of a filter): columns^T
phases     input dilation (the gradient of a strided convolution): one small convolution for every
           phase of the output, none of which multiplies by an inserted zero
depthwise  one channel a group: shifted multiply-adds of flat padded images
columns    everything else: im2col + GEMM
plain      dtypes without a BLAS

Winograd's F(2x2,3x3) was tried and lost to columns at every size (its transforms are memory-bound).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.blas import single_threaded_blas
from tracegrad.backends.numpy.fast.columns import (
    ColumnConv,
    GradientConv,
    Ints,
)
from tracegrad.backends.numpy.fast.matmul import cut_of, share_matmul
from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels.contract import Pairs
from tracegrad.backends.numpy.kernels.contract import conv as plain_conv

Index = tuple[Any, ...]  # slices, after an ellipsis
DEPTHWISE_BYTES = 1 << 17  # of a block of padded images
BLAS_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def output_shape(
    size: Ints, window: Ints, strides: Ints, padding: Pairs, lhs: Ints, rhs: Ints
) -> Ints:
    """Spatial shape of the result."""
    return tuple(
        max(0, (max((n - 1) * a + 1, 0) + low + high - ((k - 1) * b + 1)) // s + 1)
        for n, k, s, (low, high), a, b in zip(size, window, strides, padding, lhs, rhs)
    )


class ConvPlan:
    """See the module. `out_shape` is the shape that `out` must have."""

    def __init__(
        self, x_shape: Ints, w_shape: Ints, *, dtype: np.dtype[Any], strides: Ints, padding: Pairs,
        lhs_dilation: Ints, rhs_dilation: Ints, groups: int, threads: int | None = None,
    ):  # fmt: skip
        self.dtype = np.dtype(dtype)
        window, size = w_shape[2:], x_shape[2:]
        ones = (1,) * len(window)
        out = output_shape(size, window, strides, padding, lhs_dilation, rhs_dilation)
        self.out_shape = (x_shape[0], w_shape[0], *out)
        self.attrs = dict(strides=strides, padding=padding, lhs_dilation=lhs_dilation,
                          rhs_dilation=rhs_dilation, groups=groups)  # fmt: skip
        self._spare: Array | None = None
        no_padding = all(pair == (0, 0) for pair in padding)
        self._run: Any
        if self.dtype not in BLAS_DTYPES or 0 in (*self.out_shape, *x_shape, *w_shape):
            self.kind, self._run = "plain", self._plain
        elif lhs_dilation != ones:
            if strides == ones and rhs_dilation == ones:
                self.kind = "phases"
                self._run = _Phases(x_shape, w_shape, self.out_shape, padding, lhs_dilation,
                                    groups, self.dtype, threads)  # fmt: skip
            else:
                self.kind, self._run = "plain", self._plain
        elif prod(window) == 1 and strides == ones and no_padding and groups == 1:
            self.kind, self._run = "pointwise", _Pointwise(self.out_shape, x_shape[1], threads)
        elif prod(window) > prod(out):
            self.kind = "gradient"
            self._run = GradientConv(x_shape, w_shape, out, strides, padding, rhs_dilation,
                                     groups, self.dtype, threads)  # fmt: skip
        elif groups > 1 and w_shape[1] == 1 and w_shape[0] == groups:
            self.kind = "depthwise"
            self._run = _Depthwise(x_shape, window, out, strides, padding, rhs_dilation, self.dtype)
        else:
            self.kind = "columns"
            self._run = ColumnConv(x_shape, w_shape, out, strides, padding, rhs_dilation, groups,
                                   self.dtype, threads)  # fmt: skip

    @property
    def nbytes(self) -> int:
        own = 0 if self._spare is None else self._spare.nbytes
        return own + int(getattr(self._run, "nbytes", 0))

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        if self.kind in ("plain", "phases", "gradient") or out.flags.c_contiguous:
            self._run(x, w, out)
            return
        if self._spare is None:  # the GEMMs write rows of the flattened image
            self._spare = np.empty(self.out_shape, self.dtype)
        self._run(x, w, self._spare)
        np.copyto(out, self._spare)

    def _plain(self, x: Array, w: Array, out: Array) -> None:
        np.copyto(out, plain_conv(x, w, **self.attrs))  # type: ignore[arg-type]


class _Pointwise:
    """out = w @ x for every image."""

    def __init__(self, out_shape: Ints, channels: int, threads: int | None):
        images, filters, *size = out_shape
        self.cut = cut_of((images, filters, prod(size)), channels, threads)

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        images, filters = out.shape[:2]
        columns, rows = x.reshape(images, x.shape[1], -1), w.reshape(filters, -1)
        out = out.reshape(images, filters, -1)
        if self.cut is None:
            np.matmul(rows, columns, out=out)
        else:
            with single_threaded_blas():
                share_matmul(rows, columns, out, *self.cut)


class _Depthwise:
    """out = sum over taps of x shifted by the tap, times the tap's weight of each channel.

    The padded image lies flat, so a tap shifts all of it by one offset, in long runs. What is computed
    between the rows, and between the steps of a stride, is left out at the end.
    """

    def __init__(
        self, x_shape: Ints, window: Ints, out: Ints, strides: Ints, padding: Pairs, dilation: Ints,
        dtype: np.dtype[Any],
    ):  # fmt: skip
        images, channels, *size = x_shape
        padded = [low + n + high for n, (low, high) in zip(size, padding)]
        # A negative padding cuts off what lies outside.
        begin = [max(low, 0) for low, _ in padding]
        end = [min(low + n, p) for n, p, (low, _) in zip(size, padded, padding)]
        self.inside: Index = (..., *map(slice, begin, end))
        self.read: Index = (
            ...,
            *(slice(b - p[0], e - p[0]) for b, e, p in zip(begin, end, padding)),
        )
        self.kept: Index = (..., *(slice(0, (o - 1) * s + 1, s) for o, s in zip(out, strides)))
        steps = [prod(padded[axis + 1 :]) for axis in range(len(padded))]
        self.taps = [
            (tap, sum(t * d * step for t, d, step in zip(tap, dilation, steps)))
            for tap in np.ndindex(*window)
        ]
        self.length = prod(padded) - self.taps[-1][1]
        fitting = max(1, DEPTHWISE_BYTES // (prod(padded) * dtype.itemsize))
        self.channels = min(channels, fitting)
        self.images = min(images, max(1, fitting // channels))
        self.image, self.total, self.product = (
            np.zeros((self.images, self.channels, *padded), dtype) for _ in range(3)
        )

    @property
    def nbytes(self) -> int:
        return 3 * self.product.nbytes

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        for first in range(0, len(x), self.images):
            images = slice(first, first + self.images)
            for channel in range(0, len(w), self.channels):
                channels = slice(channel, channel + self.channels)
                self._block(x[images, channels], w[channels, 0], out[images, channels])

    def _block(self, x: Array, w: Array, out: Array) -> None:
        images, channels = x.shape[:2]
        image, total, product = (
            buffer[:images, :channels] for buffer in (self.image, self.total, self.product)
        )
        image[self.inside] = x[self.read]
        flat, summed, summand = (
            buffer.reshape(images, channels, -1, copy=False) for buffer in (image, total, product)
        )
        summed, summand = summed[..., : self.length], summand[..., : self.length]
        for number, (tap, offset) in enumerate(self.taps):
            weight = w[(slice(None), *tap, None)]
            target = summand if number else summed
            np.multiply(flat[..., offset : offset + self.length], weight, out=target)
            if number:
                np.add(summed, summand, out=summed)
        np.copyto(out, total[self.kept])


class _Phases:
    """Convolution of a dilated input, stride 1.

    With d the dilation, output p + d t reads taps k = k0 + d m with k0 = (low - p) mod d, at the
    inputs t + m + (p + k0 - low) / d: for each phase p an ordinary convolution with every d-th tap.
    """

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out_shape: Ints, padding: Pairs, dilation: Ints,
        groups: int, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        ones = (1,) * len(dilation)
        self.phases: list[tuple[Any, Any, ConvPlan | None, Array | None]] = []
        for index in np.ndindex(*dilation):
            taps, target, pads = [], [], []
            counts = []
            for axis, (p, d) in enumerate(zip(index, dilation)):
                low = padding[axis][0]
                n, k, o = x_shape[2 + axis], w_shape[2 + axis], out_shape[2 + axis]
                k0 = (low - p) % d
                count, window = -(-(o - p) // d), -(-(k - k0) // d)
                shift = (low - p - k0) // d
                pads.append((shift, count + window - 1 - n - shift))
                taps.append(slice(k0, None, d))
                target.append(slice(p, None, d))
                counts.append((count, window))
            if min(count for count, _ in counts) <= 0:
                continue
            where = (slice(None), slice(None), *target)
            if min(window for _, window in counts) <= 0:  # the phase meets inserted zeros only
                self.phases.append((None, where, None, None))
                continue
            windows = tuple(window for _, window in counts)
            plan = ConvPlan(x_shape, (*w_shape[:2], *windows), dtype=dtype, strides=ones,
                            padding=tuple(pads), lhs_dilation=ones, rhs_dilation=ones,
                            groups=groups, threads=threads)  # fmt: skip
            buffer = np.empty(plan.out_shape, dtype)
            self.phases.append(((slice(None), slice(None), *taps), where, plan, buffer))

    @property
    def nbytes(self) -> int:
        return sum(
            plan.nbytes + buffer.nbytes
            for _, _, plan, buffer in self.phases
            if plan is not None and buffer is not None
        )

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        for taps, where, plan, buffer in self.phases:
            if plan is None or buffer is None:
                out[where] = 0
            else:
                plan(x, w[taps], buffer)
                np.copyto(out[where], buffer)
