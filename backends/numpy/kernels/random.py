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
    """Encrypt the counters (high, low) in place, 20 rounds; `spare` is scratch of their shape."""
    k0, k1 = int(key[0]), int(key[1])
    keys = [np.uint32(k) for k in (k0, k1, k0 ^ k1 ^ PARITY)]
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


def few_bits(key: Array, size: int, first: int) -> Array:
    """The bits of elements first, first + 1, ...: `threefry` on one Python int, an element a lane.

    A hundred array operations on a few elements cost more than the same on one long int. A lane
    holds 32 bits; sums and left shifts stay inside its 64.
    """
    one, counters = lanes(size)
    mask = one * 0xFFFFFFFF
    if first + size <= 2**32:
        high, low = 0, counters + one * first
    else:
        places = np.arange(size, dtype="<u8") + np.uint64(first)
        high = int.from_bytes((places >> np.uint64(32)).tobytes(), "little")
        low = int.from_bytes(places.tobytes(), "little") & mask
    k0, k1 = int(key[0]), int(key[1])
    keys = (k0 * one, k1 * one, (k0 ^ k1 ^ PARITY) * one)
    high, low = (high + keys[0]) & mask, (low + keys[1]) & mask
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            high = (high + low) & mask
            low <<= rotation
            low = ((low | low >> 32) & mask) ^ high
        high = (high + keys[(group + 1) % 3]) & mask
        low = (low + keys[(group + 2) % 3] + one * (group + 1)) & mask
    return np.frombuffer((high ^ low).to_bytes(8 * size, "little"), "<u8").astype(np.uint32)


def fill_bits(key: Array, out: Array, first: int = 0) -> None:
    """Write the bits of elements first, first + 1, ... into the contiguous 1-d u32 `out`."""
    if out.size <= FEW:
        out[:] = few_bits(key, out.size, first)
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
    out = np.empty(prod(shape), np.uint32)
    fill_bits(key, out)
    return out.reshape(shape)


@kernel("fold_in")
def fold_in(key: Array, data: Array) -> Array:
    """A new key from a key and a number: the block (0, data) encrypted."""
    high = np.zeros(1, np.uint32)
    low = data.astype(np.uint32).reshape(1)  # a fresh array: threefry writes into it
    threefry(key, high, low, np.empty(1, np.uint32))
    return np.concatenate((high, low))
