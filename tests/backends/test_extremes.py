"""Maximum and minimum with one number, and selection by bits: as NumPy's own in every code, nan and
infinities included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracegrad.backends.base import Options
from tracegrad.backends.numpy import KERNELS, compile, interpret
from tracegrad.backends.numpy.fast import extremes
from tracegrad.backends.numpy.fast.select import select
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
@pytest.mark.parametrize("op", [ops.maximum, ops.minimum], ids=lambda op: op.name)
def test_eager_programs(op: Any, shape: tuple[int, ...]) -> None:
    """Numbers given at the call, or constants; on either side; of rows."""
    x, low, row = (placeholder(TensorType(s, f32)) for s in (shape, (), shape[-1:]))
    given = ops.broadcast_to(low, shape=shape, dims=())
    outputs = (
        op(x, given), op(given, x), op(ops.splat(0.5, x.type), x),
        op(x, ops.broadcast_to(row, shape=shape, dims=(x.ndim - 1,))),
    )  # fmt: skip
    graph = Graph((x, low, row), outputs)
    arrays = [values(shape, f32), np.array(-0.25, "f4"), values(shape[-1:], f32)]
    wanted = interpret(graph, arrays)
    as_number = straight(graph, ["array", "number", "array"])([arrays[0], -0.25, arrays[2]])
    for actual, number, expected in zip(straight(graph)(arrays), as_number, wanted):
        same(actual, expected)
        same(number, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [f16, f32, f64, i8, i32, i64], ids=str)
def test_select(shape: tuple[int, ...], dtype: DType) -> None:
    mask = np.random.default_rng(1).random(shape) > 0.5
    x, y, number = values(shape, dtype), values(shape, dtype)[::-1].copy(), np.array(3, dtype.np)
    for first, second in ((x, y), (x, number), (number, y), (number, -number), (x.T.copy().T, y)):
        chosen = select(mask, first, second)
        assert chosen.tobytes() == np.ascontiguousarray(np.where(mask, first, second)).tobytes()
    same(select(mask.T, x.T, y.T), np.where(mask, x, y).T)
    same(select(mask, x, y[:1]), np.where(mask, x, y[:1]))


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
