"""Powers by a number: the same roundings and special values eager, compiled and in PyTorch."""

import numpy as np
import pytest
import torch

import tracegrad as tg

VALUES = [
    -np.inf,
    -3.7,
    -1.0,
    -0.3,
    -0.0,
    0.0,
    1e-3,
    0.7,
    1.0,
    1.1,
    2.9,
    7.3,
    150.0,
    np.inf,
    np.nan,
]
VALUES += np.random.RandomState(0).uniform(-4, 4, 500).tolist()


def powers(T, dtype, exponent, compiled=False):
    x = T.tensor(VALUES, dtype=getattr(T, dtype))

    def power(x):
        return x**exponent

    found = (tg.compile(power) if compiled else power)(x)
    return found.double().numpy().astype(float), str(found.dtype).rpartition(".")[2]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0.5, 1, 2, 3, 3.0])
def test_known_powers_to_the_bit(dtype, exponent):
    for compiled in (False, True):
        expected, of_dtype = powers(torch, dtype, exponent)
        found, dtype_found = powers(tg, dtype, exponent, compiled)
        assert dtype_found == of_dtype
        if (
            dtype == "float16" and exponent == 0.5
        ):  # NumPy's power is its root here, PyTorch's is not
            usual = ~np.isin(VALUES, (-np.inf, 0.0))
            found, expected = found[usual], expected[usual]
        if abs(exponent) == 0.5:  # PyTorch's root is not always the nearest number
            np.testing.assert_allclose(found, expected, rtol={"bfloat16": 8e-3}.get(dtype, 1e-6))
        else:
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            np.signbit(found)[~np.isnan(found)], np.signbit(expected)[~np.isnan(expected)]
        )


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("exponent", [-2, -1.5, -1, -0.5, 0.5, 1, 2, 3, 4, 2.5])
def test_gradients_of_powers_eager_and_compiled(dtype, exponent):
    x = tg.tensor(VALUES[6:8] + VALUES[9:12], dtype=getattr(tg, dtype), requires_grad=True)

    def both(x):
        (first,) = tg.autograd.grad((x**exponent).sum(), x, create_graph=True)
        (second,) = tg.autograd.grad(first.sum(), x, allow_unused=True)
        return [first] if second is None else [first, second]

    for a, b in zip(both(x), tg.compile(both)(x), strict=True):
        assert a.dtype == b.dtype == x.dtype
        np.testing.assert_allclose(
            a.detach().double().numpy(), b.detach().double().numpy(),
            rtol={"bfloat16": 3e-2, "float16": 4e-3}.get(dtype, 1e-5),
        )  # fmt: skip


@pytest.mark.parametrize("T", [torch, tg])
def test_powers_of_other_kinds_of_tensors(T):
    whole = T.tensor([-2, 0, 3])
    assert (whole**3).tolist() == [-8, 0, 27] and (whole**3).dtype == T.int64
    assert (whole**2.0).tolist() == [4.0, 0.0, 9.0] and (whole**2.0).dtype == T.float32
    assert (T.tensor([True, False]) ** 2).dtype == T.int64
    assert (T.tensor([1j]) ** 2).tolist() == [-1 + 0j]
    x = T.tensor([2.0, 3.0])
    x **= 3
    x.pow_(-1)
    assert x.tolist() == T.tensor([1 / 8, 1 / 27]).tolist()
