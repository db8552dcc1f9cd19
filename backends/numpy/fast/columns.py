"""Convolution as one GEMM a chunk of images (im2col), and the gradient of its filters.

A chunk is some images, or where one image is too large a band of its output rows, so that its
column matrix [C, *taps, images, *out] fits the second-level cache. Where a tap falls on padding the
matrix holds zeros; those beside the image are written once, when the plan is made.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Band:
    """Rows first .. last of the output: what each tap copies, and where it leaves zeros."""

    first: int
    last: int
    taps: list[tuple[Ints, Slices, Slices]]
    empty: list[tuple[Ints, slice]]  # (tap, rows of the band that read padding)


def _bands(
    height: int, size: Ints, out: Ints, window: Ints, strides: Ints, padding: Pairs, dilation: Ints
) -> list[Band]:
    bands = []
    for first in range(0, out[0], height):
        last = min(first + height, out[0])
        moved = ((padding[0][0] - first * strides[0], padding[0][1]), *padding[1:])
        rows = (last - first, *out[1:])
        taps = tap_slices(size, rows, window, strides, moved, dilation)
        covered = {tap[0]: target[0] for tap, target, _ in taps}
        empty: list[tuple[Ints, slice]] = []
        if height < out[0]:  # the buffer serves several bands, whose zeros differ
            for tap in np.ndindex(*window):
                rows_read = covered.get(tap[0], slice(0, 0))
                empty += [(tap, slice(0, rows_read.start)), (tap, slice(rows_read.stop, None))]
        empty = [(tap, part) for tap, part in empty if len(range(last - first)[part])]
        bands.append(Band(first, last, taps, empty))
    return bands


class ColumnBuffers:
    """Column matrices of chunks of images, one set of buffers a thread.

    Two orders: [C, *taps, images, *out], or with the images last, [C, *taps, *out, images]. Copying
    a tap is many times faster in long runs, so small images go last; that costs a transposed copy
    of the output and of the input (`turned`).
    """

    def __init__(
        self, channels: int, filters: int, size: Ints, window: Ints, out: Ints, strides: Ints,
        padding: Pairs, dilation: Ints, images: int, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        self.rows = channels * prod(window)
        one = max(1, self.rows * prod(out) * dtype.itemsize)
        flops = 2.0 * images * filters * self.rows * prod(out)
        self.shares = share_count(threads, images, flops)
        share = -(-images // self.shares)
        self.images_last = (
            out[-1] < SHORT_ROW
            and share >= LONG_RUN
            and filters <= 4 * channels
            and prod(window) > 1
        )
        least = LONG_RUN if self.images_last else 1
        self.ranges = split(images, self.shares, max(least, min(images, CHUNK_BYTES // one)))
        height = out[0]
        if not self.images_last and one > CHUNK_BYTES:
            height = max(1, height * CHUNK_BYTES // one)
        self.bands = _bands(height, size, out, window, strides, padding, dilation)
        heights = {band.last - band.first for band in self.bands}
        self.buffers: list[dict[Ints, Array]] = []
        self.turned: list[dict[int, Array]] = []
        for ranges in self.ranges:
            counts = {last - first for first, last in ranges}
            sizes = [(n, h) for n in counts for h in heights]
            if self.images_last:
                shapes = {(n, h): (channels, *window, h, *out[1:], n) for n, h in sizes}
                self.turned.append({n: np.empty((channels, *size, n), dtype) for n in counts})
            else:
                shapes = {(n, h): (channels, *window, n, h, *out[1:]) for n, h in sizes}
                self.turned.append({})
            self.buffers.append({key: np.zeros(shape, dtype) for key, shape in shapes.items()})

    @property
    def nbytes(self) -> int:
        columns = sum(buffer.nbytes for sizes in self.buffers for buffer in sizes.values())
        return columns + sum(buffer.nbytes for sizes in self.turned for buffer in sizes.values())

    def order(self, x: Array) -> Array:
        """x [channels, images, ...] as a view in the columns' order of images."""
        return np.moveaxis(x, 1, -1) if self.images_last else x

    def fill(self, share: int, x: Array, band: Band) -> Array:
        """The columns of a band of x [channels, images, *spatial]; channels * taps rows."""
        images = x.shape[1]
        everything: Any = slice(None)
        columns = self.buffers[share][images, band.last - band.first]
        if self.images_last:
            turned = self.turned[share][images]
            np.copyto(turned, self.order(x))
            for tap, target, read in band.taps:
                columns[(everything, *tap, *target)] = turned[(everything, *read)]
            return columns.reshape(self.rows, -1)
        for tap, rows in band.empty:
            columns[(everything, *tap, everything, rows)] = 0
        for tap, target, read in band.taps:
            columns[(everything, *tap, everything, *target)] = x[(everything, everything, *read)]
        return columns.reshape(self.rows, -1)


class ColumnConv:
    """out[n] = w @ columns(x[n]), group by group."""

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out: Ints, strides: Ints, padding: Pairs,
        dilation: Ints, groups: int, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        self.groups, self.channels, self.filters = groups, w_shape[1], w_shape[0] // groups
        self.columns = ColumnBuffers(
            self.channels, self.filters, x_shape[2:], w_shape[2:], out, strides, padding, dilation,
            x_shape[0], dtype, threads,
        )  # fmt: skip
        self.results = [
            {n: np.empty((self.filters, n * prod(out)), dtype) for n, _ in sizes if n > 1}
            for sizes in self.columns.buffers
        ]

    @property
    def nbytes(self) -> int:
        results = sum(result.nbytes for sizes in self.results for result in sizes.values())
        return self.columns.nbytes + results

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        filters = w.reshape(self.groups, self.filters, self.columns.rows)
        grouped = out.reshape(out.shape[0], self.groups, self.filters, *out.shape[2:])

        def share(index: int) -> None:
            for first, last in self.columns.ranges[index]:
                for group in range(self.groups):
                    part = x[first:last, group * self.channels : (group + 1) * self.channels]
                    target = grouped[first:last, group].swapaxes(0, 1)
                    self._chunk(index, part.swapaxes(0, 1), filters[group], target)

        run_shares(share, self.columns.shares)

    def _chunk(self, index: int, x: Array, filters: Array, out: Array) -> None:
        """out [filters, images, *out] of x [channels, images, *spatial]."""
        images = x.shape[1]
        for band in self.columns.bands:
            columns = self.columns.fill(index, x, band)
            if images == 1:
                rows = out[:, 0, band.first : band.last]
                np.matmul(filters, columns, out=rows.reshape(len(rows), -1, copy=False))
            else:  # then the band is the whole image
                result = self.results[index][images]
                np.matmul(filters, columns, out=result)
                target = self.columns.order(out)
                np.copyto(target, result.reshape(target.shape))


class GradientConv:
    """A convolution whose window is large and whose output is small: the gradient of a filter.

    In each group, x [C, N, *S] and w [O, N, *K] contract over the images N and all of the window; every output
    position is one row of the column matrix: out [C, O, *out] = sum over chunks of columns @ w^T.
    """

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out: Ints, strides: Ints, padding: Pairs,
        dilation: Ints, groups: int, dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        c, n, o, window = x_shape[0], w_shape[1], w_shape[0] // groups, w_shape[2:]
        self.groups, self.images, self.filters, self.out = groups, n, o, out
        # the roles of output and window change places, and with them strides and dilation
        self.columns = ColumnBuffers(
            c, o, x_shape[2:], out, window, dilation, padding, strides, n, dtype, threads
        )
        shares, ordered = range(self.columns.shares), self.columns.order
        self.weights = [
            {
                (n, h): np.empty(ordered(np.broadcast_to(0, (o, n, h, *window[1:]))).shape, dtype)
                for n, h in self.columns.buffers[k]
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
        for group in range(self.groups):
            images = slice(group * self.images, (group + 1) * self.images)
            filters = slice(group * self.filters, (group + 1) * self.filters)
            self._group(x[:, images], w[filters], out[:, filters])

    def _group(self, x: Array, w: Array, out: Array) -> None:
        def share(index: int) -> None:
            total, product_ = self.totals[index], self.products[index]
            total.fill(0)
            for first, last in self.columns.ranges[index]:
                for band in self.columns.bands:
                    columns = self.columns.fill(index, x[:, first:last], band)
                    weight = self.weights[index][last - first, band.last - band.first]
                    rows = w[:, first:last, band.first : band.last]
                    np.copyto(weight, self.columns.order(rows))
                    np.matmul(columns, weight.reshape(len(weight), -1).T, out=product_)
                    np.add(total, product_, out=total)

        run_shares(share, self.columns.shares)
        for other in self.totals[1:]:
            np.add(self.totals[0], other, out=self.totals[0])
        result = self.totals[0].reshape(len(x), *self.out, -1)
        np.copyto(out, np.moveaxis(result, -1, 1))
