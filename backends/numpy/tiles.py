"""How a loop is cut: tiles of the domain, and tiles shared over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tracegrad.backends.numpy.fast.pool import run_parallel, thread_count
from tracegrad.backends.numpy.fast.work import run_shares
from tracegrad.passes.memory.storage import Shape

SHARED_WORK = 1 << 20  # elements times operations from which a second thread pays (200 us)
SHARED_TILE = 1 << 15  # elements a thread should have at least: below, threads wait for each other


def loop_shares(size: int, operations: int, threads: int | None) -> int:
    """Threads to share a loop of `size` elements over."""
    if size * operations < SHARED_WORK:
        return 1
    return max(1, min(threads or thread_count(), size // SHARED_TILE))


class Tiling:
    """The domain with merged axes `sizes`, tiled along `axis` in pieces of `tile`."""

    def __init__(self, sizes: Shape, keep_last: bool, elements: int, shares: int):
        self.sizes = sizes
        last = len(sizes) - 1 - keep_last
        self.axis = 0
        while self.axis < last and prod(sizes[self.axis + 1 :]) > elements:
            self.axis += 1
        if last < 0:  # one row
            self.axis, self.tile, self.looped = -1, 1, False
            return
        length, inner = sizes[self.axis], prod(sizes[self.axis + 1 :])
        self.tile = min(length, max(1, elements // max(inner, 1)))
        if length <= self.tile * 3 // 2 and self.axis == 0:
            self.tile = length
        # equal pieces, if some number of them is near: the last tile then needs no code of its own
        fewest = -(-length // (self.tile * 5 // 4)) if self.tile > 1 else length
        counts = range(fewest, length // max(self.tile * 2 // 3, 1) + 1)
        even = [count for count in counts if length % count == 0]
        even = [count for count in even if count % shares == 0] or even
        if even and self.tile < length:
            self.tile = length // even[0]
        self.looped = self.axis > 0 or self.tile < length

    @property
    def outermost(self) -> int:
        """Trips of the outermost loop."""
        return -(-self.sizes[0] // self.tile) if self.axis == 0 else self.sizes[0]

    @property
    def even(self) -> bool:
        return self.axis < 0 or self.sizes[self.axis] % self.tile == 0

    @property
    def shape(self) -> Shape:
        if self.axis < 0:
            return self.sizes
        return (self.tile, *self.sizes[self.axis + 1 :])

    def subscript(self, shape: Shape) -> str:
        """Of an array of canonical `shape` (1 where it is broadcast); "" where it is used whole."""
        if not self.looped:
            return ""
        parts = [f"i{axis}" if shape[axis] != 1 else "0" for axis in range(self.axis)]
        if shape[self.axis] != 1 or self.sizes[self.axis] == 1:
            parts.append("a:b")
        return ", ".join(parts)


def fork_plain(body: Callable[..., None], shares: Sequence[tuple[Any, ...]]) -> None:
    """body(*share) for every share, each on its own thread."""
    run_parallel(lambda k: body(*shares[k]), len(shares))


def fork_blas(body: Callable[..., None], shares: Sequence[tuple[Any, ...]]) -> None:
    """The same with BLAS at one thread a call."""
    run_shares(lambda k: body(*shares[k]), len(shares))
