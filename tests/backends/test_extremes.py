"""Maximum and minimum with one number: as NumPy's own in every code, nan and infinities included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracegrad.backends.base import Options
from tracegrad.backends.numpy import KERNELS, compile, interpret
from tracegrad.backends.numpy.fast import extremes
from tracegrad.backends.numpy.straight import straight
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import DType, TensorType, f16, f32, f64, i8, i32, i64, u8

Array = np.ndarray[Any, Any]
SHAPES = [
    (5,),
    (1023,),
    (1024,),
    (32, 33),
    (40000,),
    (3, 32768),
    (333, 1001),
    (1, 70001),
    (70001, 1),
]


def values(shape: tuple[int, ...], dtype: DType) -> Array:
    array = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype.np)
    if dtype.is_float:
        odd = [np.nan, -np.nan, np.inf, -np.inf, -0.0]
        array.flat[: len(odd)] = array.flat[-len(odd) :] = odd
    return array


def same(actual: Array, wanted: Array) -> None:
    assert actual.dtype == wanted.dtype
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [f16, f32, f64, i8, i32, i64, u8], ids=str)
def test_relu(shape: tuple[int, ...], dtype: DType) -> None:
    x = values(shape, dtype)
    wanted = KERNELS["relu"](x)
    same(extremes.relu(x), wanted)
    same(extremes.relu(x.T), wanted.T)
    same(extremes.relu(x[::2]), wanted[::2])
    node = placeholder(TensorType(shape, dtype))
    (eager,) = straight(Graph((node,), (ops.relu(node),)))([x])
    same(eager, wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", [0.0, -0.0, 0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("op", [ops.maximum, ops.minimum], ids=lambda op: op.name)
def test_generated_code(op: Any, number: float, shape: tuple[int, ...]) -> None:
    x, other = placeholder(TensorType(shape, f32)), placeholder(TensorType(shape, f32))
    filled = ops.splat(number, x.type)
    outputs = (
        op(x, filled),  # alone
        op(filled, x),
        ops.add(op(ops.mul(x, other), filled), other),  # inside a loop
        op(ops.transpose(x, perm=tuple(reversed(range(x.ndim)))), ops.splat(number, x.type))
        if len(set(shape)) == 1 else op(other, filled),
    )  # fmt: skip
    graph = Graph((x, other), outputs)
    arrays = [values(shape, f32), values(shape, f32)[::-1].copy()]
    wanted = interpret(graph, arrays)
    for options in (Options(), Options(poison=True), Options(fuse=False), Options(threads=1)):
        for actual, expected in zip(compile(graph, options)(arrays), wanted):
            same(actual, expected)


def test_one_array_for_equal_numbers_and_another_for_the_other_zero() -> None:
    zero, minus = np.array(0.0, "f4"), np.array(-0.0, "f4")
    block = extremes.filled((2048,), zero)
    assert extremes.filled((2048,), np.array(0.0, "f4")) is block and not block.flags.writeable
    assert np.signbit(extremes.filled((2048,), minus)).all() and not np.signbit(block).any()
    assert extremes.filled((2048,), np.array(0.0)).dtype == np.float64
