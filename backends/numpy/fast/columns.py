"""Convolution as one GEMM a chunk of images (im2col), and the gradient of its filters.

A chunk's column matrix [C, *taps, images, *out] is made small enough for the second-level cache.
Where a tap falls on padding the matrix holds zeros, written once when the plan is made; the
copies only ever touch the other places.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.work import Array, run_shares, share_count, split
from tracegrad.backends.numpy.kernels.contract import Pairs

CHUNK_BYTES = 1 << 20  # columns of one chunk
SHORT_ROW = 24  # a copy in runs shorter than this many elements is slow ...
LONG_RUN = 16  # ... and one over at least this many images is not
Ints = tuple[int, ...]
Slices = tuple[slice, ...]


def tap_slices(
    size: Ints, out: Ints, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> list[tuple[Ints, Slices, Slices]]:
    """For every tap of the window: (tap, where it lands in the output, what it reads of the input).

    Only places whose input is not padding; a tap that reads nothing but padding is left out.
    """
    axes = []
    for n, o, k, s, (low, _), d in zip(size, out, window, strides, padding, dilation):
        taps = []
        for tap in range(k):
            shift = tap * d - low  # output p reads input p * s + shift
            first = max(0, -(shift // s))
            last = min(o, (n - 1 - shift) // s + 1)
            if first < last:
                read = slice(first * s + shift, (last - 1) * s + shift + 1, s)
                taps.append((tap, slice(first, last), read))
        axes.append(taps)
    return [
        (tuple(a[0] for a in taps), tuple(a[1] for a in taps), tuple(a[2] for a in taps))
        for taps in product(*axes)
    ]


class ColumnBuffers:
    """Column matrices of chunks of images, one set of buffers a thread.

    Two orders: [C, *taps, images, *out], or with the images last, [C, *taps, *out, images]. Copying
    a tap is many times faster in long runs, so small images go last; that costs a transposed copy
    of the output and of the input (`turned`).
    """

    def __init__(
        self, channels: int, filters: int, size: Ints, window: Ints, out: Ints,
        taps: list[tuple[Ints, Slices, Slices]], images: int, flops: float,
        dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        self.rows, self.taps = channels * prod(window), taps
        one = self.rows * prod(out) * dtype.itemsize
        self.shares = share_count(threads, images, flops)
        share = -(-images // self.shares)
        self.images_last = (
            out[-1] < SHORT_ROW and share >= LONG_RUN and filters <= 4 * channels and len(taps) > 1
        )
        least = LONG_RUN if self.images_last else 1
        chunk = max(least, min(images, CHUNK_BYTES // max(one, 1)))
        self.ranges = split(images, self.shares, chunk)
        self.buffers: list[dict[int, Array]] = []
        self.turned: list[dict[int, Array]] = []
        for ranges in self.ranges:
            counts = {last - first for first, last in ranges}
            if self.images_last:
                shapes = {n: (channels, *window, *out, n) for n in counts}
                self.turned.append({n: np.empty((channels, *size, n), dtype) for n in counts})
            else:
                shapes = {n: (channels, *window, n, *out) for n in counts}
                self.turned.append({})
            self.buffers.append({n: np.zeros(shape, dtype) for n, shape in shapes.items()})

    @property
    def nbytes(self) -> int:
        sets = (*self.buffers, *self.turned)
        return sum(buffer.nbytes for sizes in sets for buffer in sizes.values())

    def order(self, x: Array) -> Array:
        """x [channels, images, ...] as a view in the columns' order of images."""
        return np.moveaxis(x, 1, -1) if self.images_last else x

    def fill(self, share: int, x: Array) -> Array:
        """The columns of x [channels, images, *spatial], as a matrix with channels * taps rows."""
        columns, everything = self.buffers[share][x.shape[1]], slice(None)
        if self.images_last:
            turned = self.turned[share][x.shape[1]]
            np.copyto(turned, self.order(x))
            for tap, target, read in self.taps:
                columns[(everything, *tap, *target)] = turned[(everything, *read)]
        else:
            for tap, target, read in self.taps:
                columns[(everything, *tap, everything, *target)] = x[
                    (everything, everything, *read)
                ]
        return columns.reshape(self.rows, -1)


class ColumnConv:
    """out[n] = w @ columns(x[n]), group by group."""

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out: Ints, strides: Ints, padding: Pairs,
        dilation: Ints, groups: int, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        self.groups, self.channels, self.filters = groups, w_shape[1], w_shape[0] // groups
        window = w_shape[2:]
        taps = tap_slices(x_shape[2:], out, window, strides, padding, dilation)
        flops = 2.0 * x_shape[0] * w_shape[0] * self.channels * prod(window) * prod(out)
        self.columns = ColumnBuffers(
            self.channels, self.filters, x_shape[2:], window, out, taps, x_shape[0], flops, dtype,
            threads,
        )  # fmt: skip
        self.results = [
            {n: np.empty((self.filters, n * prod(out)), dtype) for n in sizes if n > 1}
            for sizes in self.columns.buffers
        ]

    @property
    def nbytes(self) -> int:
        results = sum(result.nbytes for sizes in self.results for result in sizes.values())
        return self.columns.nbytes + results

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        filters = w.reshape(self.groups, self.filters, self.columns.rows)
        flat = out.reshape(out.shape[0], self.groups, self.filters, -1)

        def share(index: int) -> None:
            for first, last in self.columns.ranges[index]:
                for group in range(self.groups):
                    part = x[first:last, group * self.channels : (group + 1) * self.channels]
                    columns = self.columns.fill(index, part.swapaxes(0, 1))
                    if last - first == 1:
                        np.matmul(filters[group], columns, out=flat[first, group])
                        continue
                    result = self.results[index][last - first]
                    np.matmul(filters[group], columns, out=result)
                    target = self.columns.order(flat[first:last, group].swapaxes(0, 1))
                    np.copyto(target, result.reshape(target.shape))

        run_shares(share, self.columns.shares)


class GradientConv:
    """A convolution whose window is large and whose output is small: the gradient of a filter.

    x [C, N, *S] and w [O, N, *K] contract over the images N and all of the window; every output
    position is one row of the column matrix: out [C, O, *out] = sum over chunks of columns @ w^T.
    """

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out: Ints, strides: Ints, padding: Pairs,
        dilation: Ints, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        self.window, self.out = w_shape[2:], out
        # the roles of output and window change places, and with them strides and dilation
        taps = tap_slices(x_shape[2:], self.window, out, dilation, padding, strides)
        c, n, o = x_shape[0], x_shape[1], w_shape[0]
        flops = 2.0 * c * n * o * prod(self.window) * prod(out)
        self.columns = ColumnBuffers(
            c, o, x_shape[2:], out, self.window, taps, n, flops, dtype, threads
        )
        shares = range(self.columns.shares)
        ordered = self.columns.order
        self.weights = [
            {
                n: np.empty(ordered(np.broadcast_to(0, (o, n, *self.window))).shape, dtype)
                for n in self.columns.buffers[k]
            }
            for k in shares
        ]
        self.totals = [np.empty((self.columns.rows, o), dtype) for _ in shares]
        self.products = [np.empty((self.columns.rows, o), dtype) for _ in shares]

    @property
    def nbytes(self) -> int:
        weights = sum(weight.nbytes for sizes in self.weights for weight in sizes.values())
        return self.columns.nbytes + weights + 2 * sum(total.nbytes for total in self.totals)

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        def share(index: int) -> None:
            total, product_ = self.totals[index], self.products[index]
            for step, (first, last) in enumerate(self.columns.ranges[index]):
                columns = self.columns.fill(index, x[:, first:last])
                weight = self.weights[index][last - first]
                np.copyto(weight, self.columns.order(w[:, first:last]))
                rows = weight.reshape(len(weight), -1).T
                np.matmul(columns, rows, out=product_ if step else total)
                if step:
                    np.add(total, product_, out=total)

        run_shares(share, self.columns.shares)
        for other in self.totals[1:]:
            np.add(self.totals[0], other, out=self.totals[0])
        result = self.totals[0].reshape(len(x), *self.out, -1)
        np.copyto(out, np.moveaxis(result, -1, 1))
