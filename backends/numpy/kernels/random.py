"""Threefry-2x32 random bits (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

Bit-equal to `jax.random.fold_in` and, in JAX's partitionable form, to `jax.random.bits`: the bits
of an element depend on the key and its row-major position only.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tracegrad.backends.numpy.kernels.registry import Array, kernel

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
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


def fill_bits(key: Array, out: Array, first: int = 0) -> None:
    """Write the bits of elements first, first + 1, ... into the contiguous 1-d u32 `out`."""
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
