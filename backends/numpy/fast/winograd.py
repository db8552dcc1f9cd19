"""3x3 convolution of stride 1 by Winograd's F(2x2, 3x3): 16 multiplications for 36.

A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks" (2015). Each image is dealt
out to four planes by the parity of row and column. Flattened with one pitch, every shift of the
transforms is a contiguous slice; the price is one column of unused results a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.work import Array, run_shares, share_count, split
from tracegrad.backends.numpy.kernels.contract import Pairs

Ints = tuple[int, ...]
BAND_BYTES = 3 << 19  # both sides of the GEMMs of one band of tile rows
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


class _Buffers:
    """One image's planes, and the transforms of as many of its tile rows as the cache holds."""

    def __init__(self, channels: int, filters: int, tiles: Ints, dtype: np.dtype[Any]):
        rows, columns = tiles
        pitch = columns + 1
        row_bytes = 16 * (channels + filters) * pitch * dtype.itemsize
        self.rows = max(1, min(rows, BAND_BYTES // row_bytes))
        self.length = self.rows * pitch
        # the last band is read one tile row and one tile beyond its length
        self.planes = np.zeros((2, 2, channels, (rows + 1) * pitch + 1), dtype)
        self.half = np.empty((4, 2, channels, self.length + 1), dtype)
        self.transformed = np.empty((4, 4, channels, self.length), dtype)
        self.products = np.empty((16, filters, self.length), dtype)
        self.done = np.empty((2, 4, filters, self.length), dtype)
        self.flat = np.empty((filters, self.length), dtype)

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


class WinogradConv:
    """x [N,C,H,W] * w [O,C,3,3], stride 1, no dilation, one group; images shared over threads."""

    def __init__(
        self, x_shape: Ints, w_shape: Ints, out: Ints, padding: Pairs,
        dtype: np.dtype[Any], threads: int | None,
    ):  # fmt: skip
        n, c, self.height, self.width = x_shape
        o = w_shape[0]
        self.out, self.padding, self.tiles = out, padding, ((out[0] + 1) // 2, (out[1] + 1) // 2)
        self.transform = G.astype(dtype)
        flops = 2.0 * 16 * n * c * o * self.tiles[0] * self.tiles[1]
        self.shares = share_count(threads, n, flops)
        self.ranges = split(n, self.shares, max(n, 1))
        self.buffers = [_Buffers(c, o, self.tiles, dtype) for _ in range(self.shares)]

    @property
    def nbytes(self) -> int:
        return sum(buffers.nbytes for buffers in self.buffers)

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        # U = G w G^T: [16, O, C]
        o, c = w.shape[:2]
        u = np.matmul(np.matmul(self.transform, w), self.transform.T)
        filters = np.ascontiguousarray(u.transpose(2, 3, 0, 1)).reshape(16, o, c)

        def share(index: int) -> None:
            for first, last in self.ranges[index]:
                for image in range(first, last):
                    self._image(self.buffers[index], x[image], filters, out[image])

        run_shares(share, self.shares)

    def _deal(self, planes: Array, x: Array) -> None:
        """Write x into the parity planes; their zeros are the padding."""
        (top, _), (left, _) = self.padding
        rows, pitch = self.tiles[0] + 1, self.tiles[1] + 1
        grid = planes[..., : rows * pitch].reshape(2, 2, -1, rows, pitch)
        for i in (0, 1):
            for j in (0, 1):
                from_row, row = self._first(i, top)
                from_column, column = self._first(j, left)
                part = x[:, from_row::2, from_column::2]
                height, width = min(part.shape[1], rows - row), min(part.shape[2], pitch - column)
                target = grid[i, j, :, row : row + height, column : column + width]
                np.copyto(target, part[:, :height, :width])

    @staticmethod
    def _first(parity: int, low: int) -> tuple[int, int]:
        """(index in x, place in the plane) of the first row that a plane of this parity holds."""
        index = (parity - low) % 2
        if index + low < 0:  # negative padding crops
            index = parity - low
        return index, (index + low) // 2

    def _image(self, b: _Buffers, x: Array, filters: Array, out: Array) -> None:
        self._deal(b.planes, x)
        for row in range(0, self.tiles[0], b.rows):
            self._band(b, row, min(b.rows, self.tiles[0] - row), filters, out)

    def _band(self, b: _Buffers, row: int, rows: int, filters: Array, out: Array) -> None:
        """Tile rows row .. row + rows of the image in the planes."""
        pitch = self.tiles[1] + 1
        length, begin = rows * pitch, row * pitch
        half, transformed = b.half[..., : length + 1], b.transformed[..., :length]
        products, done, flat = b.products[..., :length], b.done[..., :length], b.flat[:, :length]
        # B^T d B with B^T rows (d0 - d2, d1 + d2, d2 - d1, d1 - d3); first down the rows ...
        d0, d1 = b.planes[..., begin : begin + length + 1]
        d2, d3 = b.planes[..., begin + pitch : begin + pitch + length + 1]
        np.subtract(d0, d2, out=half[0])
        np.add(d1, d2, out=half[1])
        np.subtract(d2, d1, out=half[2])
        np.subtract(d1, d3, out=half[3])
        # ... then along the columns, where a shift of one tile is a shift of one element
        e0, e1 = half[:, 0, :, :length], half[:, 1, :, :length]
        e2, e3 = half[:, 0, :, 1:], half[:, 1, :, 1:]
        np.subtract(e0, e2, out=transformed[:, 0])
        np.add(e1, e2, out=transformed[:, 1])
        np.subtract(e2, e1, out=transformed[:, 2])
        np.subtract(e1, e3, out=transformed[:, 3])
        for k in range(16):
            np.matmul(filters[k], transformed[k // 4, k % 4], out=products[k])
        # A^T m A with A^T rows (m0 + m1 + m2, m1 - m2 - m3)
        m = b.products.reshape(4, 4, -1, b.length)[..., :length]
        top, bottom = done
        np.add(m[0], m[1], out=top)
        np.add(top, m[2], out=top)
        np.subtract(m[1], m[2], out=bottom)
        np.subtract(bottom, m[3], out=bottom)
        for side, q in ((0, top), (1, bottom)):
            target = out[:, 2 * row + side : 2 * (row + rows) : 2]
            np.add(q[0], q[1], out=flat)
            np.add(flat, q[2], out=flat)
            self._collect(flat, rows, target[:, :, 0::2])
            np.subtract(q[1], q[2], out=flat)
            np.subtract(flat, q[3], out=flat)
            self._collect(flat, rows, target[:, :, 1::2])

    def _collect(self, flat: Array, rows: int, target: Array) -> None:
        """Drop the unused column of every row, and what a last odd row or column has too much."""
        tiles = flat.reshape(len(flat), rows, self.tiles[1] + 1)
        np.copyto(target, tiles[:, : target.shape[1], : target.shape[2]])
