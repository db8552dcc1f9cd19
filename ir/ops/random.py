"""Random bits from keys: Threefry-2x32 (Salmon et al. 2011, 20 rounds), counter-based.

A key is u32[2]. Element i of `random_bits` depends on the key and i alone, so that tiling, sharding
and recomputation change nothing. Bit-equal to jax.random.bits and jax.random.fold_in.
"""

from __future__ import annotations

from math import prod

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import register, tensor, traits
from tracegrad.ir.ops.build import cut, full, reshape
from tracegrad.ir.ops.traits import COMPOSITE, RANDOM
from tracegrad.ir.types import TensorType, u32, u64

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
THREEFRY_FLOPS = 110.0  # integer operations per pair of words


def key_type(key: TensorType) -> TensorType:
    if tensor(key) != TensorType((2,), u32):
        raise IRTypeError(f"a key is u32[2], not {key}")
    return key


def threefry(key: Node, high: Node, low: Node) -> tuple[Node, Node]:
    """The two words of the block whose counter is (high, low), elementwise; u32 of one shape."""
    first, second = (reshape(cut(key, 0, i, i + 1), ()) for i in (0, 1))
    third = ops.xor(ops.xor(first, second), full((), u32, _PARITY))
    schedule = [ops.broadcast_to(k, shape=high.shape, dims=()) for k in (first, second, third)]
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            left = ops.shl(y, full(y.shape, u32, rotation))
            right = ops.shr(y, full(y.shape, u32, 32 - rotation))
            y = ops.xor(ops.or_(left, right), x)
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + (group + 1)
    return x, y


# ---- fold_in(key, data: u32[]): the key of the data-th child ----


def _fold_in_type(key: TensorType, data: TensorType) -> TensorType:
    if tensor(data) != TensorType((), u32):
        raise IRTypeError(f"the number to fold in is u32[], not {data}")
    return key_type(key)


def _fold_in(key: Node, data: Node) -> Node:
    words = threefry(key, full((), u32, 0), data)
    return ops.concatenate(*(reshape(word, (1,)) for word in words), axis=0)


fold_in = register(
    Op(
        "fold_in",
        infer=_fold_in_type,
        decompose=_fold_in,
        traits=traits(RANDOM, COMPOSITE),
        flops=lambda node: THREEFRY_FLOPS,
    )
)


# ---- random_bits(key; shape): element i is the xor of the two words of block i ----


def _random_bits_type(key: TensorType, shape: tuple[int, ...]) -> TensorType:
    key_type(key)
    if not isinstance(shape, tuple) or any(size < 0 for size in shape):
        raise IRTypeError(f"shape must be a tuple of ints >= 0, not {shape!r}")
    return TensorType(shape, u32)


def _random_bits(key: Node, shape: tuple[int, ...]) -> Node:
    flat = (prod(shape),)
    if flat[0] < 2**32:
        low = ops.iota(shape=flat, axis=0, dtype=u32)
        high = full(flat, u32, 0)
    else:
        counter = ops.iota(shape=flat, axis=0, dtype=u64)
        low = ops.cast(counter, dtype=u32)  # keeps the low 32 bits
        high = ops.cast(ops.shr(counter, full(flat, u64, 32)), dtype=u32)
    return reshape(ops.xor(*threefry(key, high, low)), shape)


random_bits = register(
    Op(
        "random_bits",
        attrs=("shape",),
        infer=_random_bits_type,
        decompose=_random_bits,
        traits=traits(RANDOM, COMPOSITE),
        flops=lambda node: THREEFRY_FLOPS * node.type.size,
    )
)
