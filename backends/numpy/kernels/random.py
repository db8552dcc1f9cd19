"""Threefry-2x32 random bits (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

Bit-equal to `jax.random.fold_in` and, in JAX's partitionable form, to `jax.random.bits`: the bits
of an element depend on the key and its row-major position only.
"""

from __future__ import annotations

from functools import cache
from math import prod

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array, kernel

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
FEW = 128  # elements up to which Python's long ints are faster
BLOCK = 1 << 16  # a block's five arrays stay in the second-level cache


def threefry(key: Array, high: Array, low: Array, spare: Array) -> None:
    """Encrypt the counters (high, low) in place, 20 rounds; `spare` is scratch of their shape.

    key: two words, or two arrays of them that broadcast to the counters.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY))
    high += keys[0]
    low += keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            high += low
            np.left_shift(low, np.uint32(rotation), out=spare)
            low >>= np.uint32(32 - rotation)
            low |= spare
            low ^= high
        high += keys[(group + 1) % 3]
        low += keys[(group + 2) % 3]
        low += np.uint32(group + 1)


@cache
def lanes(size: int) -> tuple[int, int]:
    """Python ints of `size` lanes of 64 bits: 1 in every lane, and 0, 1, 2, ... in them."""
    counted = np.arange(size, dtype="<u8").tobytes()
    return int.from_bytes(np.ones(size, "<u8").tobytes(), "little"), int.from_bytes(
        counted, "little"
    )


def unpacked(words: int, size: int) -> Array:
    return np.frombuffer(words.to_bytes(8 * size, "little"), "<u8").astype(np.uint32)


def threefry_lanes(k0: int, k1: int, high: int, low: int, one: int) -> tuple[int, int]:
    """`threefry` on Python ints, an element a lane: keys and counters packed, `one` 1 in every lane.

    A hundred array operations on a few elements cost more than the same on one long int. A lane
    holds 32 bits; sums and left shifts stay inside its 64.
    """
    mask = one * 0xFFFFFFFF
    keys = (k0, k1, k0 ^ k1 ^ (one * PARITY))
    high, low = (high + k0) & mask, (low + k1) & mask
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            high = (high + low) & mask
            low <<= rotation
            low = ((low | low >> 32) & mask) ^ high
        high = (high + keys[(group + 1) % 3]) & mask
        low = (low + keys[(group + 2) % 3] + one * (group + 1)) & mask
    return high, low


def few_bits(key: Array, size: int, first: int) -> Array:
    """The bits of elements first, first + 1, ..."""
    one, counters = lanes(size)
    if first + size <= 2**32:
        high, low = 0, counters + one * first
    else:
        places = np.arange(size, dtype="<u8") + np.uint64(first)
        high = int.from_bytes((places >> np.uint64(32)).tobytes(), "little")
        low = int.from_bytes(places.tobytes(), "little") & (one * 0xFFFFFFFF)
    high, low = threefry_lanes(int(key[0]) * one, int(key[1]) * one, high, low, one)
    return unpacked(high ^ low, size)


def keys_from(key: Array, first: int, count: int) -> Array:
    """u32[count, 2]: fold_in(key, first), fold_in(key, first + 1), ..."""
    one, counters = lanes(count)
    low = (counters + one * first) & (one * 0xFFFFFFFF)
    high, low = threefry_lanes(int(key[0]) * one, int(key[1]) * one, 0, low, one)
    return np.stack((unpacked(high, count), unpacked(low, count)), axis=1)


class Ahead:
    """Bits of draws to come: a stream announces its next keys, and where small draws of one size
    follow each other they are made for many keys at once. Which bits a key gives is no matter of
    when, and what several threads draw here at once costs time at most.
    """

    SMALL, TOGETHER = 32, 512  # elements of a draw, and of all that are made at once
    IN_A_ROW = 8  # draws of one size after which more are expected

    def __init__(self) -> None:
        self.made: dict[bytes, Array] = {}
        self.size = self.row = 0  # elements of the draw before, and how many it was in a row
        self.announce(np.empty((0, 2), np.uint32))

    def announce(self, keys: Array) -> None:
        """The keys u32[.., 2] that will be used next, in this order."""
        self.batch = keys, {key.tobytes(): k for k, key in enumerate(keys)}
        self.last = -1  # place of the key drawn before

    def bits(self, key: Array, size: int) -> Array:
        """The first `size` bits of this key."""
        name = key.tobytes()
        found = self.made.pop(name, None)
        if found is not None and found.size == size:
            return found
        keys, places = self.batch
        place = places.get(name)
        if place is None:
            return few_bits(key, size, 0)
        self.row = self.row + 1 if size == self.size and place > self.last else 0
        self.size, self.last = size, place
        if self.row < self.IN_A_ROW:
            return few_bits(key, size, 0)
        keys = keys[place : place + self.TOGETHER // size]
        high: Array = np.zeros((len(keys), size), np.uint32)
        spare: Array = np.empty((len(keys), size), np.uint32)
        low: Array = high + np.arange(size, dtype=np.uint32)
        threefry(keys.T[:, :, None], high, low, spare)
        low ^= high
        self.made = {later.tobytes(): row for later, row in zip(keys[1:], low[1:])}
        return low[0]


ahead = Ahead()


def fill_bits(key: Array, out: Array, first: int = 0) -> None:
    """Write the bits of elements first, first + 1, ... into the contiguous 1-d u32 `out`."""
    if out.size <= FEW:
        small = 0 < out.size <= Ahead.SMALL and first == 0
        out[:] = ahead.bits(key, out.size) if small else few_bits(key, out.size, first)
        return
    size = min(out.size, BLOCK)
    high_buffer, spare = np.empty(size, np.uint32), np.empty(size, np.uint32)
    steps = np.arange(size, dtype=np.uint64)
    for begin in range(0, out.size, BLOCK):
        part = out[begin : begin + BLOCK]
        high = high_buffer[: part.size]
        counter = steps[: part.size] + np.uint64(first + begin)
        high[:] = counter >> np.uint64(32)
        part[:] = counter & np.uint64(0xFFFFFFFF)
        threefry(key, high, part, spare[: part.size])
        part ^= high


@kernel("random_bits")
def random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """u32 bits of every element of `shape`, numbered in row-major order."""
    size = prod(shape)
    if 0 < size <= Ahead.SMALL:
        return ahead.bits(key, size).reshape(shape)
    out = np.empty(size, np.uint32)
    fill_bits(key, out)
    return out.reshape(shape)


@kernel("fold_in")
def fold_in(key: Array, data: Array) -> Array:
    """A new key from a key and a number: the block (0, data) encrypted."""
    [[high, low]] = keys_from(key, int(data.astype(np.uint32).reshape(1)[0]), 1)
    return np.array((high, low))
