"""Convolution, windows, linear algebra and random bits against PyTorch and JAX."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tracegrad.backends import base
from tracegrad.backends.numpy import KERNELS

torch = pytest.importorskip("torch")
functional = torch.nn.functional


@pytest.mark.parametrize(
    "x_shape, w_shape, stride, padding, dilation, groups",
    [
        ((2, 4, 9, 8), (6, 2, 3, 3), 2, 1, 1, 2),
        ((2, 4, 9, 8), (6, 4, 3, 2), 1, 0, 2, 1),
        ((2, 3, 11), (4, 3, 3), 3, 2, 1, 1),
        ((1, 2, 5, 6, 7), (4, 2, 2, 3, 2), 1, 1, 1, 1),
        ((0, 2, 5, 5), (3, 2, 3, 3), 1, 1, 1, 1),
        ((2, 4, 5, 5), (4, 1, 3, 3), 1, 1, 1, 4),
    ],
)
def test_conv(
    x_shape: Any, w_shape: Any, stride: int, padding: int, dilation: int, groups: int
) -> None:
    rng, n = np.random.default_rng(0), len(x_shape) - 2
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    expected = getattr(functional, f"conv{n}d")(
        torch.from_numpy(x), torch.from_numpy(w),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    attrs = dict(strides=(stride,) * n, padding=((padding, padding),) * n, lhs_dilation=(1,) * n,
                 rhs_dilation=(dilation,) * n, groups=groups)  # fmt: skip
    np.testing.assert_allclose(KERNELS["conv"](x, w, **attrs), expected.numpy(), atol=1e-12)
    half = KERNELS["conv"](x.astype(ml_dtypes.bfloat16), w.astype(ml_dtypes.bfloat16), **attrs)
    assert half.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(half.astype(np.float64), expected.numpy(), atol=0.15, rtol=0.05)


def test_conv_with_input_dilation_is_conv_transpose() -> None:
    x, w = (
        torch.randn(2, 4, 5, 6, dtype=torch.float64),
        torch.randn(4, 3, 3, 3, dtype=torch.float64),
    )
    expected = functional.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1).numpy()
    actual = KERNELS["conv"](
        x.numpy(), w.flip(2, 3).transpose(0, 1).numpy(), strides=(1, 1), padding=((1, 2), (1, 2)),
        lhs_dilation=(2, 2), rhs_dilation=(1, 1), groups=1,
    )  # fmt: skip
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_conv_negative_padding_is_jax() -> None:
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    w = rng.standard_normal((3, 4, 3, 3)).astype(np.float32)
    pads = ((-2, 1), (2, -1))
    expected = jax.lax.conv_general_dilated(x, w, (1, 2), pads, (3, 2), (1, 2))
    actual = KERNELS["conv"](x, w, strides=(1, 2), padding=pads, lhs_dilation=(3, 2),
                             rhs_dilation=(1, 2), groups=1)  # fmt: skip
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("k, s, p, d", [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (2, 3, 0, 1)])
def test_window_max_and_its_selections(k: int, s: int, p: int, d: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 8)
    x[1] = x[1].round()  # ties
    x[0, 1] = -float("inf")  # ties with the padding
    x[0, 0, 0, 0] = float("nan")
    x.requires_grad_()
    y = functional.max_pool2d(x, k, s, p, d)
    ct = torch.randn(y.shape)
    (expected,) = torch.autograd.grad(y, x, ct)
    attrs = dict(window=(k, k), strides=(s, s), padding=((p, p), (p, p)), dilation=(d, d))
    xs = x.detach().numpy()
    np.testing.assert_array_equal(KERNELS["window_max"](xs, **attrs), y.detach().numpy())
    np.testing.assert_allclose(
        KERNELS["select_scatter"](ct.numpy(), xs, **attrs), expected.numpy(), atol=1e-6
    )
    t = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    gathered = KERNELS["select_gather"](t, xs, **attrs)
    # <gather t, ct> = <t, scatter ct>
    np.testing.assert_allclose((gathered * ct.numpy()).sum(), (t * expected.numpy()).sum(), 1e-4)


def test_window_max_of_integers_pads_with_the_lowest() -> None:
    x = np.array([[-5, -7, -6]], np.int8)
    attrs = dict(window=(2,), strides=(2,), padding=((1, 0),), dilation=(1,))
    np.testing.assert_array_equal(KERNELS["window_max"](x, **attrs), [[-5, -6]])


def test_a_window_of_padding_only_selects_nothing() -> None:
    x, ct = np.array([[1.0]]), np.array([[2.0, 3.0]])
    attrs = dict(window=(1,), strides=(1,), padding=((1, 0),), dilation=(1,))
    np.testing.assert_array_equal(KERNELS["select_scatter"](ct, x, **attrs), [[3.0]])
    np.testing.assert_array_equal(KERNELS["select_gather"](x, x, **attrs), [[0.0, 1.0]])


def test_window_sum_is_average_pooling() -> None:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    expected = functional.avg_pool2d(x, (2, 3), (2, 1), (1, 1)).numpy() * 6
    actual = KERNELS["window_sum"](
        x.numpy(), window=(2, 3), strides=(2, 1), padding=((1, 1), (1, 1))
    )
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 5), (2, 3, 4), (3, 4, 3), (0, 2, 2)])
def test_lu(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    packed, permutation = KERNELS["lu"](x)
    k = min(shape[-2:])
    lower = np.tril(packed[..., :k], -1) + np.eye(shape[-2], k)
    upper = np.triu(packed[..., :k, :])
    np.testing.assert_allclose(
        lower @ upper, np.take_along_axis(x, permutation[..., None], -2), atol=1e-12
    )
    assert permutation.dtype == np.int64
    np.testing.assert_allclose(packed, torch.linalg.lu_factor(torch.from_numpy(x))[0], atol=1e-10)


def test_lu_of_a_singular_matrix_has_a_zero_pivot() -> None:
    packed, _ = KERNELS["lu"](np.zeros((2, 2)))
    np.testing.assert_array_equal(packed, np.zeros((2, 2)))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular_solve(lower: bool, transpose: bool, unit: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 4)), rng.standard_normal((2, 4, 3))
    x = KERNELS["triangular_solve"](a, b, lower=lower, transpose=transpose, unit_diagonal=unit)
    triangle = np.tril(a) if lower else np.triu(a)
    if unit:
        triangle[..., range(4), range(4)] = 1
    np.testing.assert_allclose((triangle.swapaxes(-1, -2) if transpose else triangle) @ x, b)


def test_factorisations_rebuild_their_matrix() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    square = x.swapaxes(-1, -2) @ x + np.eye(3, dtype=np.float32)
    low = KERNELS["cholesky"](square)
    np.testing.assert_allclose(low @ low.swapaxes(-1, -2), square, rtol=1e-4)
    q, r = KERNELS["qr"](x)
    np.testing.assert_allclose(q @ r, x, atol=1e-5)
    u, s, vh = KERNELS["svd"](x)
    np.testing.assert_allclose((u * s[..., None, :]) @ vh, x, atol=1e-5)
    w, v = KERNELS["eigh"](square)
    np.testing.assert_allclose((v * w[..., None, :]) @ v.swapaxes(-1, -2), square, atol=1e-4)
    assert {part.dtype for part in (low, q, r, u, s, vh, w, v)} == {np.dtype(np.float32)}
    half = KERNELS["cholesky"](square.astype(np.float16))
    assert half.dtype == np.float16


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (70_001,), (2, 0)])
def test_random_bits_are_those_of_jax(shape: tuple[int, ...]) -> None:
    jax = pytest.importorskip("jax")
    with jax.threefry_partitionable(True):
        key = jax.random.key(1234)
        words = np.asarray(jax.random.key_data(key))
        np.testing.assert_array_equal(
            KERNELS["random_bits"](words, shape=shape), jax.random.bits(key, shape)
        )
        for data in (0, 77, 2**32 - 1):
            expected = jax.random.key_data(jax.random.fold_in(key, data))
            number = np.asarray(data, np.uint32)
            np.testing.assert_array_equal(KERNELS["fold_in"](words, number), expected)


def test_random_bits_known_answer() -> None:
    # Random123's published vector for Threefry-2x32-20, zero key and counter
    bits = KERNELS["random_bits"](np.zeros(2, np.uint32), shape=(1,))
    assert int(bits[0]) == 0x6B200159 ^ 0x99BA4EFE


def test_errors_share_a_base() -> None:
    for error in (base.IndexOutOfRange, base.DivisionByZero, base.LinAlgError):
        assert issubclass(error, base.BackendError)
