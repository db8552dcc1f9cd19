"""Constants: equal by value, immutable, small where all elements are one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tracegrad.ir import Const, IRTypeError, TensorType, bf16, bool_, c64, f16, f32, f64, i64, u8
from tracegrad.ir.types import DType


def test_equality_is_by_dtype_shape_and_bytes() -> None:
    a = Const(np.array([1.0, 2.0]))
    assert a == Const(np.array([1.0, 2.0])) and hash(a) == hash(Const(np.array([1.0, 2.0])))
    assert a != Const(np.array([1.0, 2.0], np.float32))
    assert a != Const(np.array([[1.0, 2.0]]))
    assert Const(np.array(0.0)) != Const(np.array(-0.0))
    assert Const.full((), f64, 0.0) != Const.full((), f64, -0.0)
    assert Const(np.array([np.nan, 1.0])) == Const(np.array([np.nan, 1.0]))
    assert Const.full((2,), f64, float("nan")) == Const.full((2,), f64, float("nan"))


def test_a_dense_array_of_one_value_is_the_splat() -> None:
    dense, splat = Const(np.full((100, 100), 1.5, np.float32)), Const.full((100, 100), f32, 1.5)
    assert dense == splat and hash(dense) == hash(splat) and dense.digest == splat.digest
    assert dense.splat == 1.5 and dense.array.strides == (0, 0)
    mixed = Const(np.array([0.0, -0.0]))
    assert mixed.splat is None and not mixed.is_splat


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (f32, 1, 1.0), (i64, True, 1), (bool_, 1, True), (c64, 2, 2 + 0j), (bf16, 1.5, 1.5),
        (f16, 1e9, float("inf")), (u8, 255, 255),
    ],
)  # fmt: skip
def test_splats_are_python_scalars(dtype: DType, value: Any, expected: Any) -> None:
    const = Const.full((2, 3), dtype, value)
    assert const.splat == expected and type(const.splat) is type(expected)
    assert const.type == TensorType((2, 3), dtype)
    assert const.array.shape == (2, 3) and const.array.dtype == dtype.np


def test_an_int_and_a_float_of_one_value_do_not_get_mixed_up() -> None:
    assert Const.full((), f32, 1).dtype is f32
    assert Const.full((), f64, 1).dtype is f64
    assert Const.full((), f64, 1) == Const.full((), f64, 1.0) == Const.full((), f64, True)


def test_what_is_no_value_of_the_dtype_is_refused() -> None:
    for dtype, value in ((u8, -1), (u8, 256), (i64, float("nan")), (f32, 1j), (f32, "one")):
        with pytest.raises(IRTypeError):
            Const.full((), dtype, value)
    with pytest.raises(IRTypeError, match="one scalar"):
        Const.full((2,), f32, [1.0, 2.0])
    with pytest.raises(IRTypeError, match="no tensor dtype"):
        Const(np.array(["text"]))


def test_it_cannot_change() -> None:
    given = np.array([1.0, 2.0])
    const = Const(given)
    given[0] = 9.0
    assert const.array.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        const.array[0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        Const.full((2,), f32, 1.0).array[0] = 5.0
    with pytest.raises(AttributeError, match="never changes"):
        const.array = given


def test_nan_keeps_its_bits() -> None:
    bits = np.array([0x7FF8000000000001], np.uint64).view(np.float64)
    const = Const(bits)
    assert const.array.view(np.uint64)[0] == 0x7FF8000000000001
    assert const != Const.full((1,), f64, float("nan"))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.full((3,), 7),
        np.zeros((0, 2), np.float32),
        np.array(True),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.arange(6.0).reshape(2, 3).T,
        np.array([np.nan, np.nan]),
    ],
)
def test_round_trips(array: Any) -> None:
    const = Const(array)
    again = pickle.loads(pickle.dumps(const))
    assert again == const and again.digest == const.digest
    assert copy.deepcopy(const) is const
    assert const.array.tobytes() == array.tobytes()


def test_an_empty_array_is_a_splat_of_zeros() -> None:
    const = Const(np.ones((0, 3)))
    assert const == Const.full((0, 3), f64, 5.0) and const.splat == 0.0
