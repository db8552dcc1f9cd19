"""Random bits from keys: Threefry-2x32 (Salmon et al. 2011, 20 rounds), counter-based.

A key is u32[2]. Element i of `random_bits` depends on the key and i alone, so that tiling, sharding
and recomputation change nothing. Bit-equal to jax.random.bits and jax.random.fold_in.
"""

from __future__ import annotations

from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Op
from tracegrad.ir.ops.base import checked_ints, register, tensor, traits
from tracegrad.ir.ops.traits import RANDOM
from tracegrad.ir.types import TensorType, u32

THREEFRY_FLOPS = 110.0  # integer operations per pair of words


def key_type(key: TensorType) -> TensorType:
    if tensor(key) != TensorType((2,), u32):
        raise IRTypeError(f"a key is u32[2], not {key}")
    return key


def _fold_in_type(key: TensorType, data: TensorType) -> TensorType:
    if tensor(data) != TensorType((), u32):
        raise IRTypeError(f"the number to fold in is u32[], not {data}")
    return key_type(key)


# The key of child number `data`: the two words of the block (0, data).
fold_in = register(
    Op(
        "fold_in",
        infer=_fold_in_type,
        not_differentiable="a key is made of integers",
        traits=traits(RANDOM),
        flops=lambda node: THREEFRY_FLOPS,
    )
)


def _random_bits_type(key: TensorType, shape: tuple[int, ...]) -> TensorType:
    key_type(key)
    return TensorType(checked_ints(shape, None, "shape"), u32)


# Element i (row-major) is the xor of the two words of the block (i >> 32, i & 0xffffffff).
random_bits = register(
    Op(
        "random_bits",
        attrs=("shape",),
        infer=_random_bits_type,
        not_differentiable="random bits are integers",
        traits=traits(RANDOM),
        flops=lambda node: THREEFRY_FLOPS * node.type.size,
    )
)
