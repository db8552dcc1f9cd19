"""Scaled dot-product attention by tiles of queries: the T x S weights never exist beyond one tile.

A tile is some rows of one head, kept as [keys, queries]: NumPy reduces over the first axis, and
broadcasts along the last, two to three times as fast as the other way round. Causal tiles stop at
their last visible key, so about half of the work of long sequences is never done. Heads are shared
over threads. The online part of flash attention (Dao et al. 2022) is not needed: a tile sees whole
rows; backward needs the logsumexp.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast.reduce import ones
from tracegrad.backends.numpy.fast.work import Array, run_shares, share_count, split

TILE_BYTES = 1 << 19  # scores of one tile
MOST_ROWS = 128
Ints = tuple[int, ...]


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
        self.ranges = split(batch * heads, self.shares, max(batch * heads, 1))
        self.scores = [
            [np.empty(self.rows * keys, dtype) for _ in range(buffers)] for _ in range(self.shares)
        ]
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
            own = scores[first:seen]
            np.add(own, self.hidden[: seen - first, : last - first], out=own)


class Attention:
    """(q, k, v) -> out[B,H,T,E], logsumexp[B,H,T], written into outs; float32 or float64.

    Owns its buffers: one call at a time.
    """

    def __init__(
        self, q_shape: Ints, k_shape: Ints, v_shape: Ints, *, causal: bool, scale: float,
        dtype: np.dtype[Any], threads: int | None = None,
    ):  # fmt: skip
        b, h, t, d = q_shape
        s, e = v_shape[2:]
        flops = 2.0 * b * h * t * s * (d + e) / (2 if causal else 1)
        self.tiles = _Tiles(q_shape, s, causal, flops, np.dtype(dtype), 1, threads)
        rows = self.tiles.rows
        self.scaled = [np.empty((rows, d), dtype) for _ in range(self.tiles.shares)]
        self.rows = [np.empty((2, rows), dtype) for _ in range(self.tiles.shares)]
        self.scale = np.array(scale, dtype)

    @property
    def nbytes(self) -> int:
        return self.tiles.nbytes + sum(scaled.nbytes for scaled in self.scaled)

    def __call__(self, q: Array, k: Array, v: Array, out: Array, lse: Array) -> None:
        tiles = self.tiles.tiles()

        def share(index: int) -> None:
            for first_head, last_head in self.tiles.ranges[index]:
                for number in range(first_head, last_head):
                    head = divmod(number, q.shape[1])
                    for first, last, seen in tiles:
                        rows, keys = (*head, slice(first, last)), (*head, slice(0, seen))
                        self._tile(
                            index, first, last, seen, q[rows], k[keys], v[keys], out[rows],
                            lse[rows],
                        )  # fmt: skip

        run_shares(share, self.tiles.shares)

    def _tile(
        self, index: int, first: int, last: int, seen: int, q: Array, k: Array, v: Array,
        out: Array, lse: Array,
    ) -> None:  # fmt: skip
        n = last - first
        scores = self.tiles.scores[index][0][: n * seen].reshape(seen, n)
        scaled = self.scaled[index][:n]
        top, mass = self.rows[index][:, :n]
        np.multiply(q, self.scale, out=scaled)
        np.matmul(k, scaled.T, out=scores)
        self.tiles.hide(scores, first, last, seen)
        np.maximum.reduce(scores, 0, None, top)
        np.subtract(scores, top, out=scores)
        np.exp(scores, out=scores)
        np.matmul(ones(seen, scores.dtype), scores, out=mass)
        np.matmul(scores.T, v, out=out)
        np.divide(out, mass[:, None], out=out)
        np.log(mass, out=lse)
        np.add(lse, top, out=lse)


class AttentionBackward:
    """(ct, q, k, v, out, lse) -> dq, dk, dv, written into outs; weights are computed again.

    dv = w^T ct;  ds = w (ct v^T - <ct, out>);  dq = ds k scale;  dk = ds^T q scale
    """

    def __init__(
        self, q_shape: Ints, k_shape: Ints, v_shape: Ints, *, causal: bool, scale: float,
        dtype: np.dtype[Any], threads: int | None = None,
    ):  # fmt: skip
        b, h, t, d = q_shape
        s, e = v_shape[2:]
        flops = 2.0 * b * h * t * s * (3 * d + 2 * e) / (2 if causal else 1)
        self.tiles = _Tiles(q_shape, s, causal, flops, np.dtype(dtype), 2, threads)
        rows, shares = self.tiles.rows, range(self.tiles.shares)
        self.scaled = [np.empty((rows, d), dtype) for _ in shares]
        self.product = [np.empty((rows, e), dtype) for _ in shares]
        self.inner = [np.empty(rows, dtype) for _ in shares]
        self.to_k = [np.empty((s, d), dtype) for _ in shares]
        self.to_v = [np.empty((s, e), dtype) for _ in shares]
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
            for first_head, last_head in self.tiles.ranges[index]:
                for number in range(first_head, last_head):
                    head = divmod(number, q.shape[1])
                    if not tiles or tiles[0][2] < self.tiles.keys:  # keys that no query sees
                        dk[head] = 0
                        dv[head] = 0
                    for first, last, seen in tiles:
                        rows, keys = (*head, slice(first, last)), (*head, slice(0, seen))
                        self._tile(
                            index, first, last, seen, ct[rows], q[rows], k[keys], v[keys],
                            out[rows], lse[rows], dq[rows], dk[keys], dv[keys],
                        )  # fmt: skip

        run_shares(share, self.tiles.shares)

    def _tile(
        self, index: int, first: int, last: int, seen: int, ct: Array, q: Array, k: Array,
        v: Array, out: Array, lse: Array, dq: Array, dk: Array, dv: Array,
    ) -> None:  # fmt: skip
        n = last - first
        weight, slope = (b[: n * seen].reshape(seen, n) for b in self.tiles.scores[index])
        scaled, inner = self.scaled[index][:n], self.inner[index][:n]
        np.multiply(q, self.scale, out=scaled)
        np.matmul(k, scaled.T, out=weight)
        self.tiles.hide(weight, first, last, seen)
        np.subtract(weight, lse, out=weight)
        np.exp(weight, out=weight)
        product = np.multiply(ct, out, out=self.product[index][:n])
        np.matmul(product, ones(product.shape[1], product.dtype), out=inner)
        np.matmul(v, ct.T, out=slope)
        np.subtract(slope, inner, out=slope)
        np.multiply(slope, weight, out=slope)
        if last == self.tiles.queries:
            np.matmul(weight, ct, out=dv)
            np.matmul(slope, scaled, out=dk)
        else:
            np.add(dv, np.matmul(weight, ct, out=self.to_v[index][:seen]), out=dv)
            np.add(dk, np.matmul(slope, scaled, out=self.to_k[index][:seen]), out=dk)
        np.matmul(slope.T, k, out=dq)
        np.multiply(dq, self.scale, out=dq)
