"""Scaled dot-product attention by tiles of queries: the T x S weights never exist beyond one tile.

A tile is some rows of a head, kept as [keys, queries]: NumPy reduces over the first axis, and
broadcasts along the last, two to three times as fast as the other way round. Causal tiles stop at
their last visible key, so about half of the work of long sequences is never done. Heads of short
sequences go through together, those of several images too, as many as fill a tile; groups of heads
are shared over threads. The online part of flash attention (Dao et al. 2022) is not needed: a tile
sees whole rows; backward needs the logsumexp.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.reduce import ones
from tracegrad.backends.numpy.fast.work import Array, run_shares, share_count

TILE_BYTES = 1 << 19  # scores of one tile, all heads of a group together
MOST_ROWS = 128
Ints = tuple[int, ...]


def attention_flops(q_shape: Ints, v_shape: Ints, causal: bool, backward: bool) -> float:
    """Of the matrix products of `sdpa`, or of `sdpa_backward`."""
    b, h, t, d = q_shape
    s, e = v_shape[2:]
    return 2.0 * b * h * t * s * (3 * d + 2 * e if backward else d + e) / (2 if causal else 1)


def part(buffer: Array, shape: Ints) -> Array:
    """The beginning of a flat buffer."""
    return buffer[: math.prod(shape)].reshape(shape)


class _Tiles:
    """Tile sizes, causal masks and score buffers of q[B,H,T,D], k[B,H,S,D]."""

    def __init__(
        self, q_shape: Ints, keys: int, causal: bool, flops: float, dtype: np.dtype[Any],
        buffers: int, threads: int | None,
    ):  # fmt: skip
        batch, heads, self.queries, _ = q_shape
        self.keys, self.causal = keys, causal
        fitting = TILE_BYTES // (max(keys, 1) * dtype.itemsize)
        self.rows = max(1, min(self.queries, MOST_ROWS, fitting))
        self.shares = share_count(threads, batch * heads, flops)
        even = batch * heads // (1 if self.shares == 1 else 4 * self.shares)
        together = max(1, min(fitting // self.rows, even))
        images, across = min(batch, max(1, together // max(heads, 1))), min(heads, together)
        self.heads = images * across
        groups = [
            (slice(b, min(b + images, batch)), slice(h, min(h + across, heads)))
            for b in range(0, batch, images) for h in range(0, heads, across or 1)
        ]  # fmt: skip
        bounds = [len(groups) * k // self.shares for k in range(self.shares + 1)]
        self.groups = [groups[start:stop] for start, stop in zip(bounds, bounds[1:])]
        size = self.heads * self.rows * keys
        self.scores = [[np.empty(size, dtype) for _ in range(buffers)] for _ in range(self.shares)]
        # query c of a tile may see key r of the tile's own keys when r <= c
        self.hidden = np.tril(np.full((self.rows, self.rows), -np.inf, dtype), -1)

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for share in self.scores for buffer in share) + self.hidden.nbytes

    def tiles(self) -> list[tuple[int, int, int]]:
        """(first row, last row, keys that any of them sees)."""
        bounds = [(r, min(r + self.rows, self.queries)) for r in range(0, self.queries, self.rows)]
        if not self.causal:
            return [(first, last, self.keys) for first, last in bounds]
        return [(first, last, min(last, self.keys)) for first, last in bounds]

    def hide(self, scores: Array, first: int, last: int, seen: int) -> None:
        """-inf where a query would look ahead; only to the tile's own keys can it."""
        if self.causal and seen > first:
            own = scores[..., first:seen, :]
            np.add(own, self.hidden[: seen - first, : last - first], out=own)


class Attention:
    """(q, k, v) -> out[B,H,T,E], logsumexp[B,H,T], written into outs; float32 or float64.

    Owns its buffers: one call at a time.
    """

    def __init__(
        self, q_shape: Ints, v_shape: Ints, *, causal: bool, scale: float,
        dtype: np.dtype[Any], threads: int | None = None,
    ):  # fmt: skip
        b, h, t, d = q_shape
        s, e = v_shape[2:]
        flops = attention_flops(q_shape, v_shape, causal, backward=False)
        self.tiles = _Tiles(q_shape, s, causal, flops, np.dtype(dtype), 1, threads)
        size, shares = self.tiles.heads * self.tiles.rows, range(self.tiles.shares)
        self.scaled = [np.empty(size * d, dtype) for _ in shares]
        self.rows = [np.empty((2, size), dtype) for _ in shares]
        self.scale = np.array(scale, dtype)

    @property
    def nbytes(self) -> int:
        return self.tiles.nbytes + sum(scaled.nbytes for scaled in self.scaled)

    def __call__(self, q: Array, k: Array, v: Array, out: Array, lse: Array) -> None:
        tiles = self.tiles.tiles()

        def share(index: int) -> None:
            for group in self.tiles.groups[index]:
                for first, last, seen in tiles:
                    rows, keys = (*group, slice(first, last)), (*group, slice(0, seen))
                    self._tile(
                        index, first, last, seen, q[rows], k[keys], v[keys], out[rows], lse[rows]
                    )

        run_shares(share, self.tiles.shares)

    def _tile(
        self, index: int, first: int, last: int, seen: int, q: Array, k: Array, v: Array,
        out: Array, lse: Array,
    ) -> None:  # fmt: skip
        *heads, n, _ = q.shape
        scores = part(self.tiles.scores[index][0], (*heads, seen, n))
        scaled = part(self.scaled[index], q.shape)
        top, mass = (part(row, (*heads, n)) for row in self.rows[index])
        np.multiply(q, self.scale, out=scaled)
        np.matmul(k, scaled.swapaxes(-1, -2), out=scores)
        self.tiles.hide(scores, first, last, seen)
        np.maximum.reduce(scores, axis=-2, out=top)
        np.subtract(scores, top[..., None, :], out=scores)
        np.exp(scores, out=scores)
        np.matmul(ones(seen, scores.dtype), scores, out=mass)
        np.matmul(scores.swapaxes(-1, -2), v, out=out)
        np.divide(out, mass[..., None], out=out)
        np.log(mass, out=lse)
        np.add(lse, top, out=lse)


class AttentionBackward:
    """(ct, q, k, v, out, lse) -> dq, dk, dv, written into outs; weights are computed again.

    dv = w^T ct;  ds = w (ct v^T - <ct, out>);  dq = ds k scale;  dk = ds^T q scale
    """

    def __init__(
        self, q_shape: Ints, v_shape: Ints, *, causal: bool, scale: float,
        dtype: np.dtype[Any], threads: int | None = None,
    ):  # fmt: skip
        b, h, t, d = q_shape
        s, e = v_shape[2:]
        flops = attention_flops(q_shape, v_shape, causal, backward=True)
        self.tiles = _Tiles(q_shape, s, causal, flops, np.dtype(dtype), 2, threads)
        heads, shares = self.tiles.heads, range(self.tiles.shares)
        size = heads * self.tiles.rows
        self.scaled = [np.empty(size * d, dtype) for _ in shares]
        self.product = [np.empty(size * e, dtype) for _ in shares]
        self.inner = [np.empty(size, dtype) for _ in shares]
        self.to_k = [np.empty(heads * s * d, dtype) for _ in shares]
        self.to_v = [np.empty(heads * s * e, dtype) for _ in shares]
        self.scale = np.array(scale, dtype)

    @property
    def nbytes(self) -> int:
        kept = (*self.scaled, *self.product, *self.inner, *self.to_k, *self.to_v)
        return self.tiles.nbytes + sum(buffer.nbytes for buffer in kept)

    def __call__(
        self, ct: Array, q: Array, k: Array, v: Array, out: Array, lse: Array,
        dq: Array, dk: Array, dv: Array,
    ) -> None:  # fmt: skip
        # The last tile first: it sees the most keys, and so may set dk and dv where others add.
        tiles = self.tiles.tiles()[::-1]

        def share(index: int) -> None:
            for group in self.tiles.groups[index]:
                if not tiles or tiles[0][2] < self.tiles.keys:  # keys that no query sees
                    dk[group] = 0
                    dv[group] = 0
                for first, last, seen in tiles:
                    rows, keys = (*group, slice(first, last)), (*group, slice(0, seen))
                    self._tile(
                        index, first, last, seen, ct[rows], q[rows], k[keys], v[keys],
                        out[rows], lse[rows], dq[rows], dk[keys], dv[keys],
                    )  # fmt: skip

        run_shares(share, self.tiles.shares)

    def _tile(
        self, index: int, first: int, last: int, seen: int, ct: Array, q: Array, k: Array,
        v: Array, out: Array, lse: Array, dq: Array, dk: Array, dv: Array,
    ) -> None:  # fmt: skip
        *heads, n, _ = q.shape
        weight, slope = (part(b, (*heads, seen, n)) for b in self.tiles.scores[index])
        scaled, inner = part(self.scaled[index], q.shape), part(self.inner[index], (*heads, n))
        np.multiply(q, self.scale, out=scaled)
        np.matmul(k, scaled.swapaxes(-1, -2), out=weight)
        self.tiles.hide(weight, first, last, seen)
        np.subtract(weight, lse[..., None, :], out=weight)
        np.exp(weight, out=weight)
        product = np.multiply(ct, out, out=part(self.product[index], ct.shape))
        np.matmul(product, ones(product.shape[-1], product.dtype), out=inner)
        np.matmul(v, ct.swapaxes(-1, -2), out=slope)
        np.subtract(slope, inner[..., None, :], out=slope)
        np.multiply(slope, weight, out=slope)
        if last == self.tiles.queries:
            np.matmul(weight, ct, out=dv)
            np.matmul(slope, scaled, out=dk)
        else:
            np.add(dv, np.matmul(weight, ct, out=part(self.to_v[index], dv.shape)), out=dv)
            np.add(dk, np.matmul(slope, scaled, out=part(self.to_k[index], dk.shape)), out=dk)
        np.matmul(slope.swapaxes(-1, -2), k, out=dq)
        np.multiply(dq, self.scale, out=dq)
