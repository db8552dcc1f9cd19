"""The NumPy kernels against PyTorch, JAX and the standard library, over dtypes and edge values."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tracegrad.backends import base
from tracegrad.backends.numpy import KERNELS
from tracegrad.ir import types

torch = pytest.importorskip("torch")

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
INTS = (np.uint8, np.int8, np.int16, np.int32, np.int64)
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.25,
    -7.75,
    100.0,
    1e-3,
    np.inf,
    -np.inf,
    np.nan,
]


@pytest.fixture(autouse=True)
def silent():
    with np.errstate(all="ignore"):
        yield


def to_torch(x: np.ndarray) -> Any:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(x))


def from_torch(t: Any) -> np.ndarray:
    if t.dtype == torch.bfloat16:
        return t.float().numpy().astype(ml_dtypes.bfloat16)
    return t.numpy()


def tolerance(dtype: Any) -> float:
    return {2: 1e-2 if dtype == ml_dtypes.bfloat16 else 2e-3, 4: 2e-6, 8: 1e-12}[
        np.dtype(dtype).itemsize
    ]


def assert_same(actual: Any, expected: np.ndarray, tolerance: float = 0.0) -> None:
    assert type(actual) is np.ndarray
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(actual, expected)
    else:
        wide = np.complex128 if expected.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(
            actual.astype(wide), expected.astype(wide), rtol=tolerance, atol=tolerance
        )


UNARY = """
    neg abs floor ceil trunc round exp expm1 log log1p sqrt rsqrt sin cos tan asin acos
    atan sinh cosh tanh asinh acosh atanh erf erfc erfinv lgamma digamma isfinite isnan
""".split()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_unary_float(name: str, dtype: Any) -> None:
    x = np.concatenate([EDGES, np.linspace(-3, 3, 61)]).astype(dtype)
    expected = from_torch(getattr(torch, name)(to_torch(x)))
    # one rounding step of a 16-bit result that lands on a tie is not an error
    assert_same(KERNELS[name](x), expected, 4 * tolerance(dtype))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "floor_div", "rem", "maximum",
                                  "minimum", "pow", "atan2", "eq", "lt", "le"])  # fmt: skip
@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_float(name: str, dtype: Any) -> None:
    x, y = (grid.ravel().astype(dtype) for grid in np.meshgrid(EDGES, EDGES))
    spelled = {"rem": "remainder", "floor_div": "floor_divide"}.get(name, name)
    expected = from_torch(getattr(torch, spelled)(to_torch(x), to_torch(y)))
    actual = KERNELS[name](x, y)
    if name in ("rem", "floor_div") and np.dtype(dtype).itemsize == 2:
        # PyTorch rounds the quotient to 16 bits before it takes the floor; ours is exact
        wide = {"rem": np.remainder, "floor_div": np.floor_divide}[name]
        expected = wide(x.astype(np.float32), y.astype(np.float32)).astype(dtype)
    assert_same(actual, expected, tolerance(dtype))


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "floor_div", "rem", "maximum", "minimum",
                                  "and", "or", "xor", "eq", "lt", "le"])  # fmt: skip
def test_binary_int_wraps_around(name: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    # the quotient of the most negative integer by -1 does not exist: PyTorch stops the process
    low = info.min + (1 if name in ("floor_div", "rem") and info.min else 0)
    values = [low, info.max, 0, 1, 3, 7, 100] + ([-1, -3, -8] if info.min else [2, 9, 13])
    x, y = (grid.ravel().astype(dtype) for grid in np.meshgrid(values, values))
    if name in ("floor_div", "rem"):
        x, y = x[y != 0], y[y != 0]
    spelled = {"rem": "remainder", "floor_div": "floor_divide", "and": "bitwise_and",
               "or": "bitwise_or", "xor": "bitwise_xor"}.get(name, name)  # fmt: skip
    assert_same(KERNELS[name](x, y), from_torch(getattr(torch, spelled)(to_torch(x), to_torch(y))))


@pytest.mark.parametrize("name", ["floor_div", "rem"])
def test_integer_division_by_zero_is_typed(name: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        KERNELS[name](np.array([1, 2]), np.array([1, 0]))
    assert isinstance(caught.value, base.DivisionByZero)


def test_integer_power() -> None:
    x = np.array([2, 1, -1, -1, 5, 0, 3], np.int32)
    y = np.array([-1, -3, -3, -2, 0, 0, 5], np.int32)
    assert_same(KERNELS["pow"](x, y), from_torch(torch.pow(to_torch(x), to_torch(y))))


def test_bool_arithmetic() -> None:
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    for name, expected in {"add": x | y, "mul": x & y, "maximum": x | y, "minimum": x & y,
                           "lt": ~x & y, "le": ~x | y, "bitwise_not": ~x}.items():  # fmt: skip
        operands = (x,) if name == "bitwise_not" else (x, y)
        assert_same(KERNELS[name](*operands), expected)


def test_erf_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-6.5, 6.5, 4001), [1e-300, np.inf, -np.inf]])
    expected = np.array([math.erf(value) for value in x])
    assert np.abs(KERNELS["erf"](x) - expected).max() < 1e-15
    assert np.abs(KERNELS["erf"](x.astype(np.float32)) - expected).max() < 4e-7
    assert math.copysign(1, KERNELS["erf"](np.array([-0.0]))[0]) == -1


def test_erfc_keeps_its_digits_in_the_tail() -> None:
    x = np.concatenate([np.linspace(-6.5, 26, 4001), [1e-300, 40.0, np.inf, -np.inf]])
    for dtype, rtol in ((np.float64, 1e-14), (np.float32, 2e-7)):
        given = x.astype(dtype)
        expected = np.array([math.erfc(value) for value in given]).astype(dtype)
        np.testing.assert_allclose(KERNELS["erfc"](given), expected, rtol=rtol, atol=1e-45)
    assert np.isnan(KERNELS["erfc"](np.array([np.nan]))[0])


def test_erfinv_near_one_and_outside() -> None:
    x = np.concatenate([1 - 10.0 ** -np.arange(1, 16), [1.0, -1.0, 1.5, np.nan]])
    expected = from_torch(torch.erfinv(torch.from_numpy(x)))
    np.testing.assert_allclose(KERNELS["erfinv"](x), expected, rtol=1e-14)


def test_complex() -> None:
    z = np.array([1 + 2j, -0.5j, 3, -2 - 1e-3j], np.complex64)
    for name in ("exp", "log", "sqrt", "sin", "tanh", "abs", "conj", "real", "imag"):
        expected = getattr(torch, name)(to_torch(z)).resolve_conj().numpy()
        assert_same(np.array(KERNELS[name](z)), np.array(expected), 1e-6)
    assert_same(KERNELS["complex"](z.real.copy(), z.imag.copy()), z)


@pytest.mark.parametrize("name", ["neg", "exp", "sqrt", "erf", "lgamma", "sin", "isnan", "floor"])
def test_zero_dimensional_results_are_arrays(name: str) -> None:
    assert_same(KERNELS[name](np.array(0.5)), np.asarray(KERNELS[name](np.array([0.5]))[0]), 0)


@pytest.mark.parametrize("source", types.DTYPES, ids=str)
@pytest.mark.parametrize("target", types.DTYPES, ids=str)
def test_cast(source: types.DType, target: types.DType) -> None:
    values = [0, 1, 2, 3, 100] if not source.is_bool else [False, True]
    x = np.array(values, np.complex64).real.astype(np.float64).astype(source.np)
    if source.is_float:
        x = np.concatenate([x, np.array([0.5, 2.75], source.np)])
    if source.is_complex:
        x = x + np.array(1j, source.np)
    actual = KERNELS["cast"](x, dtype=target)
    assert actual.dtype == target.np
    real = x.real if source.is_complex else x
    wide = real.astype(np.float64)
    if target.is_bool:
        expected = x != 0
    elif target.is_int:
        expected = np.trunc(wide).astype(target.np)
    elif target.is_complex:
        expected = x.astype(np.complex128) if source.is_complex else wide.astype(target.np)
    else:
        expected = wide.astype(target.np)
    np.testing.assert_array_equal(actual.astype(np.complex128), expected.astype(np.complex128))


def test_nan_casts_to_true_and_negative_floats_truncate() -> None:
    nan = np.array([np.nan, 0.0, -0.0])
    np.testing.assert_array_equal(KERNELS["cast"](nan, dtype=types.bool_), [True, False, False])
    x = np.array([-1.9, 1.9])
    np.testing.assert_array_equal(KERNELS["cast"](x, dtype=types.i32), [-1, 1])


def test_bitcast_of_a_view() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(
        KERNELS["bitcast"](x, dtype=types.i32), np.ascontiguousarray(x).view(np.int32)
    )
    assert KERNELS["bitcast"](np.array(1.0, np.float32), dtype=types.u32).shape == ()


def test_iota_and_where() -> None:
    expected = np.broadcast_to(np.arange(3, dtype=np.float32)[:, None], (3, 2))
    assert_same(np.array(KERNELS["iota"](shape=(3, 2), axis=0, dtype=types.f32)), expected)
    x, y = np.array([np.nan, 1.0]), np.array([2.0, np.inf])
    assert_same(KERNELS["where"](np.array([False, True]), x, y), np.array([2.0, 1.0]))


def test_shape_ops() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    whole = dict(start=(1, 2, 3), stop=(-1, -1, 0), step=(-1, -1, -2))
    assert_same(KERNELS["slice"](x, **whole), x[::-1, ::-1, 3:0:-2])
    part = dict(start=(0, 1, 0), stop=(2, 3, 4), step=(1, 2, 3))
    u = -np.ones((2, 1, 2), np.int64)
    expected = x.copy()
    expected[0:2, 1:3:2, 0:4:3] = -1
    assert_same(KERNELS["update_slice"](x, u, **part), expected)
    b = KERNELS["broadcast_to"](np.array([[1, 2, 3]]), shape=(2, 3, 4), dims=(0, 1))
    assert_same(np.array(b), np.broadcast_to(np.array([1, 2, 3])[None, :, None], (2, 3, 4)).copy())
    p = KERNELS["pad"](np.array([1, 2, 3]), np.array(9), low=(1,), high=(2,), interior=(1,))
    assert_same(p, np.array([9, 1, 9, 2, 9, 3, 9, 9]))
    assert_same(KERNELS["slice"](np.array(3.0), start=(), stop=(), step=()), np.array(3.0))
    starts = (np.array(1), np.array(99), np.array(-5))
    assert_same(KERNELS["dynamic_slice"](x, *starts, sizes=(1, 2, 2)), x[1:, 1:, :2])
    v = np.zeros((1, 2, 2), np.int64)
    expected = x.copy()
    expected[1:, 1:, :2] = 0
    assert_same(KERNELS["dynamic_update_slice"](x, v, *starts), expected)


def test_pad_of_an_empty_axis_has_no_interior() -> None:
    p = KERNELS["pad"](np.zeros((0,)), np.array(1.0), low=(1,), high=(1,), interior=(3,))
    assert_same(p, np.ones(2))


def test_gather_and_scatter_on_two_axes() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    i, j = np.array([[0, 1], [1, 1]]), np.array([[3, 0], [2, 2]])
    assert_same(KERNELS["gather"](x, i, j, axes=(0, 2)), x.transpose(0, 2, 1)[i, j])
    u = np.ones((2, 2, 3))
    out = KERNELS["scatter"](x, i, j, u, axes=(0, 2), mode="add")
    expected = x.copy()
    for row, column in zip(i.ravel(), j.ravel()):
        expected[row, :, column] += 1
    assert_same(out, expected)


@pytest.mark.parametrize("mode", ["add", "mul", "max", "min", "set"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_scatter_modes(mode: str, dtype: Any) -> None:
    base_, u = np.array([1, 0, 3, 1]).astype(dtype), np.array([1, 0, 1]).astype(dtype)
    out = KERNELS["scatter"](base_, np.array([1, 1, 2]), u, axes=(0,), mode=mode)
    work = base_.astype(np.float64)
    for position, value in zip([1, 1, 2], u.astype(np.float64)):
        old = work[position]
        work[position] = {"add": old + value, "mul": old * value, "max": max(old, value),
                          "min": min(old, value), "set": value}[mode]  # fmt: skip
    np.testing.assert_array_equal(out.astype(np.float64), work.astype(dtype).astype(np.float64))
    assert out.dtype == base_.dtype


@pytest.mark.parametrize("axis", [0, 1])
def test_take_along_and_scatter_along(axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    index = np.random.default_rng(1).integers(0, 4, (4, 3) if axis == 1 else (2, 5))
    u = np.ones(index.shape)
    expected = from_torch(torch.gather(to_torch(x), axis, to_torch(index)))
    assert_same(KERNELS["take_along"](x, index, axis=axis), expected)
    added = from_torch(to_torch(x).scatter_add(axis, to_torch(index), to_torch(u)))
    assert_same(KERNELS["scatter_along"](x, index, u, axis=axis, mode="add"), added, 1e-15)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_indices_out_of_range(wrong: int) -> None:
    x, index, u = np.zeros((4, 2)), np.array([0, wrong]), np.zeros((2, 2))
    with pytest.raises(
        IndexError, match=f"index {wrong} is out of range for dimension 0 of size 4"
    ):
        KERNELS["gather"](x, index, axes=(0,))
    with pytest.raises(base.IndexOutOfRange):
        KERNELS["scatter"](x, index, u, axes=(0,), mode="add")
    along = np.full((1, 2), wrong)
    with pytest.raises(base.IndexOutOfRange):
        KERNELS["take_along"](x, along, axis=0)
    with pytest.raises(base.IndexOutOfRange):
        KERNELS["scatter_along"](x, along, np.zeros((1, 2)), axis=0, mode="set")


def test_gather_nothing_from_an_empty_axis() -> None:
    out = KERNELS["gather"](np.zeros((0, 3)), np.zeros((2, 0), np.int64), axes=(0,))
    assert_same(out, np.zeros((2, 0, 3)))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32, np.bool_])
@pytest.mark.parametrize("descending", [False, True])
def test_argsort_is_stable(dtype: Any, descending: bool) -> None:
    values = [2, 1, 2, 0, 1, 2]
    x = np.array(values).astype(dtype)
    if x.dtype.kind not in "iub":
        x[3] = np.nan
    expected = torch.sort(to_torch(x), stable=True, descending=descending).indices.numpy()
    assert_same(KERNELS["argsort"](x, axis=0, descending=descending), expected)


def test_argmax_first_occurrence_and_nan() -> None:
    x = np.array([[1, 3, 3], [np.nan, 9, np.nan], [2, 2, 2]])
    assert_same(KERNELS["argmax"](x, axis=1), np.array([1, 0, 0]))
    assert_same(KERNELS["argmin"](x, axis=1), np.array([0, 0, 0]))
    assert_same(KERNELS["argmax"](x.astype(ml_dtypes.bfloat16)[0], axis=0), np.array(1))


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.bool_])
def test_reductions(name: str, axes: tuple[int, ...], dtype: Any) -> None:
    x = (np.random.default_rng(0).standard_normal((2, 3, 4)) * 2).astype(dtype)
    wide = x.astype(np.float64) if x.dtype.kind not in "ib" else x
    function = getattr(np, {"max": "amax", "min": "amin"}.get(name, name))
    expected = np.asarray(function(wide, axis=axes)).astype(dtype)
    assert_same(KERNELS[name](x, axes=axes), expected, tolerance(dtype) if wide is not x else 0)


def test_halves_accumulate_in_float32() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16):
        ones = np.full(3000, 0.5, dtype)
        assert KERNELS["sum"](ones, axes=(0,)) == np.array(1500).astype(dtype)
        assert KERNELS["cumsum"](ones, axis=0)[-1] == np.array(1500).astype(dtype)


def test_max_propagates_nan_and_has_an_identity() -> None:
    x = np.array([1.0, np.nan, 3.0])
    assert np.isnan(KERNELS["max"](x, axes=(0,)))
    assert np.isnan(KERNELS["min"](x, axes=(0,)))
    assert_same(KERNELS["max"](np.zeros((0, 2)), axes=(0,)), np.full(2, -np.inf))
    assert_same(KERNELS["min"](np.zeros((0,), bool), axes=(0,)), np.array(True))
    assert_same(KERNELS["max"](np.zeros((0,), np.int8), axes=(0,)), np.array(-128, np.int8))


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_scans(name: str, axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5))
    x[1, 2] = np.nan if name in ("cummax", "cummin") else -np.inf if "log" in name else 0
    expected = getattr(torch, "logcumsumexp" if "log" in name else name)(to_torch(x), axis)
    expected = expected if isinstance(expected, torch.Tensor) else expected.values
    assert_same(KERNELS[name](x, axis=axis), from_torch(expected), 1e-12)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.bool_, np.complex64])
def test_matmul(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 3, shape).astype(dtype) for shape in ((2, 3, 4), (2, 4, 5)))
    exact = np.matmul(x.astype(np.complex128), y.astype(np.complex128))
    exact = exact != 0 if dtype is np.bool_ else exact.real
    assert_same(KERNELS["matmul"](x, y), exact.astype(dtype))
    assert_same(KERNELS["matmul"](x[:, :, :0], y[:, :0]), np.zeros((2, 3, 5), dtype))
