"""Pooling without allocation: maxima and sums over windows, and the gradient of the maximum.

    WindowMax(x.shape, x.dtype, window=..., strides=..., padding=..., dilation=...)(x, out)
    SelectScatter(... the same ...)(ct, x, out)
    WindowSum(x.shape, x.dtype, window=..., strides=..., padding=...)(x, out)

One strided slice a tap; 2x2 pooling of even images has its own path, which runs along flat memory,
in blocks that stay in the cache, shared over threads. Plans own their buffers: one call at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.columns import Ints, tap_slices
from tracegrad.backends.numpy.fast.work import Array, run_shares, share_count, split
from tracegrad.backends.numpy.kernels.contract import Pairs
from tracegrad.backends.numpy.kernels.reduce import lowest
from tracegrad.backends.numpy.kernels.registry import is_half
from tracegrad.backends.numpy.kernels.window import select_scatter, window_sum

BITS = {4: np.int32, 8: np.int64}
# Elements of the images in one step of the path for 2x2: with fewer, threads wait for Python's lock
# (64 x 32 x 28 x 28, two threads: 3.2 ms with 1 << 15, 1.7 so; one thread 2.6).
BLOCK = 1 << 18
STEP_FLOPS = 8  # an operation on one element takes as long as so many of a product


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


class _Blocks:
    """Images of even sizes as rows of 2x2 windows, [rows, 2, columns, 2], in blocks of rows.

    `operations` on each element; `run` calls block(share, first, last), every share on its thread.
    """

    def __init__(self, x_shape: Ints, threads: int | None, operations: int):
        self.columns = x_shape[-1] // 2
        self.rows = prod(x_shape) // (4 * self.columns)
        self.depth = max(1, min(self.rows, BLOCK // (4 * self.columns)))
        flops = float(prod(x_shape) * operations * STEP_FLOPS)
        self.shares = share_count(threads, self.rows // self.depth, flops)
        self.ranges = split(self.rows, self.shares, self.depth)

    def buffer(self, *shape: int, dtype: Any) -> Array:
        """For every share, one for a block of rows of this shape."""
        return np.empty((self.shares, self.depth, *shape), dtype)

    def run(self, block: Callable[[int, int, int], None]) -> None:
        def share(k: int) -> None:
            for first, last in self.ranges[k]:
                block(k, first, last)

        run_shares(share, self.shares)


class WindowMax:
    """out = maximum over each window; padding counts as the lowest value."""

    def __init__(
        self, x_shape: Ints, dtype: np.dtype[Any], *, window: Ints, strides: Ints, padding: Pairs,
        dilation: Ints, threads: int | None = 1,
    ):  # fmt: skip
        self.lowest = lowest(np.dtype(dtype))
        self.plan = _Taps(x_shape, window, strides, padding, dilation)
        self.blocks: _Blocks | None = None
        if _is_2x2(x_shape, window, strides, padding, dilation):
            self.blocks = _Blocks(x_shape, threads, 2)
            self.higher = self.blocks.buffer(2, self.blocks.columns, dtype=dtype)

    @property
    def nbytes(self) -> int:
        return 0 if self.blocks is None else self.higher.nbytes

    def __call__(self, x: Array, out: Array) -> None:
        if self.blocks is not None and x.flags.c_contiguous and out.flags.c_contiguous:
            windows = x.reshape(self.blocks.rows, 2, self.blocks.columns, 2)
            flat = out.reshape(self.blocks.rows, -1)

            def block(share: int, first: int, last: int) -> None:
                here, higher = windows[first:last], self.higher[share, : last - first]
                np.maximum(here[..., 0], here[..., 1], out=higher)
                np.maximum(higher[:, 0], higher[:, 1], out=flat[first:last])

            self.blocks.run(block)
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
        dilation: Ints, threads: int | None = 1,
    ):  # fmt: skip
        self.attrs: dict[str, Any] = dict(
            window=window, strides=strides, padding=padding, dilation=dilation
        )
        self.dtype = np.dtype(dtype)
        self.plan = _Taps(x_shape, window, strides, padding, dilation)
        self.blocks: _Blocks | None = None
        self.plain = self.dtype.kind != "f" or self.dtype.itemsize not in BITS
        if self.plain:
            return
        self.bits = BITS[self.dtype.itemsize]
        if _is_2x2(x_shape, window, strides, padding, dilation):
            blocks = self.blocks = _Blocks(x_shape, threads, 9)
            self.higher = blocks.buffer(2, blocks.columns, dtype=dtype)
            self.routed = blocks.buffer(2, blocks.columns, dtype=self.bits)
            self.top = blocks.buffer(blocks.columns, dtype=np.bool_)
            self.left = blocks.buffer(2, blocks.columns, dtype=np.bool_)
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
            self.blocks is not None
            and x.flags.c_contiguous
            and ct.flags.c_contiguous
            and out.flags.c_contiguous
            and not np.isnan(np.max(x))  # the comparisons below take no nan
        ):
            self._pairs(self.blocks, ct, x, out)
        else:
            self._taps(ct, x, out)

    def _pairs(self, blocks: _Blocks, ct: Array, x: Array, out: Array) -> None:
        # ct's bits times 0 or 1 is an exact select, where a float product would make nan of inf
        windows = x.reshape(blocks.rows, 2, blocks.columns, 2)
        targets = out.view(self.bits).reshape(windows.shape)
        cotangents = ct.view(self.bits).reshape(blocks.rows, blocks.columns)

        def block(share: int, first: int, last: int) -> None:
            count = last - first
            here, target, incoming = (a[first:last] for a in (windows, targets, cotangents))
            left, top = self.left[share, :count], self.top[share, :count]
            higher, routed = self.higher[share, :count], self.routed[share, :count]
            np.greater_equal(here[..., 0], here[..., 1], out=left)
            np.maximum(here[..., 0], here[..., 1], out=higher)
            np.greater_equal(higher[:, 0], higher[:, 1], out=top)
            np.multiply(incoming, top, out=routed[:, 0])
            np.subtract(incoming, routed[:, 0], out=routed[:, 1])  # ct - ct or ct - 0
            np.multiply(routed, left, out=target[..., 0])
            np.subtract(routed, target[..., 0], out=target[..., 1])

        blocks.run(block)

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
