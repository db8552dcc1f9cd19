"""Keyed random functions: reproducible, in range, right moments; dropout's mask and scale."""

import numpy as np
import pytest
from torch_oracle import tensor

from tracegrad.ir.types import bf16, f16, f32, f64, i32
from tracegrad.tracer import functions as F


def key(n=1):
    return tensor(np.array([7, n], np.uint32))


@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64])
def test_uniform(dtype):
    a = F.uniform(key(), shape=(20_000,), dtype=dtype)
    x = a.numpy().astype(np.float64)
    assert a.dtype is dtype and x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 0.02 and abs(x.var() - 1 / 12) < 0.01
    assert np.array_equal(
        x, F.uniform(key(), shape=(20_000,), dtype=dtype).numpy().astype(np.float64)
    )
    assert not np.array_equal(
        x, F.uniform(key(2), shape=(20_000,), dtype=dtype).numpy().astype(np.float64)
    )


def test_uniform_is_the_top_bits():
    import jax

    bits = np.asarray(jax.random.bits(np.array([7, 1], np.uint32), (100,)))
    assert np.array_equal(F.uniform(key(), shape=(100,)).numpy(), (bits >> 8) * np.float32(2**-24))
    low = F.uniform(key(), shape=(100,), low=-2.0, high=3.0).numpy()
    assert low.min() >= -2 and low.max() < 3 and low.min() < -1.5


@pytest.mark.parametrize("dtype", [f32, f64, bf16])
def test_normal(dtype):
    x = F.normal(key(), shape=(40_000,), dtype=dtype).numpy().astype(np.float64)
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02
    assert abs((x**3).mean()) < 0.06 and abs((x**4).mean() - 3) < 0.2
    y = F.normal(key(), shape=(40_000,), dtype=dtype, mean=5.0, std=0.5).numpy().astype(np.float64)
    assert abs(y.mean() - 5) < 0.02 and abs(y.std() - 0.5) < 0.01


def test_normal_is_erfinv_of_uniform():
    from scipy.special import erfinv

    u = F.uniform(key(), shape=(5000,)).numpy().astype(np.float64)
    expected = np.sqrt(2) * erfinv(2 * u - 1 + 2.0**-24)
    np.testing.assert_allclose(
        F.normal(key(), shape=(5000,)).numpy(), expected, rtol=2e-6, atol=1e-7
    )


def test_randint_and_randperm():
    x = F.randint(key(), low=-3, high=4, shape=(7000,)).numpy()
    assert x.dtype == np.int64 and set(x.tolist()) == set(range(-3, 4))
    assert np.bincount(x + 3).min() > 800
    assert F.randint(key(), low=0, high=9, shape=(3,), dtype=i32).dtype is i32
    wide = F.randint(key(), low=0, high=2**40, shape=(1000,)).numpy()
    assert 2**39 < wide.max() < 2**40 and wide.min() >= 0
    assert sorted(F.randperm(key(), n=500).tolist()) == list(range(500))
    assert F.randperm(key(), n=500).tolist() != list(range(500))
    with pytest.raises(RuntimeError, match="low < high"):
        F.randint(key(), low=3, high=3, shape=(1,))


def test_bernoulli_and_exponential():
    p = tensor(np.full(20_000, 0.3, np.float32))
    x = F.bernoulli(p, key()).numpy()
    assert set(x.tolist()) == {0.0, 1.0} and abs(x.mean() - 0.3) < 0.02
    assert abs(F.bernoulli_p(key(), p=0.7, shape=(20_000,)).numpy().mean() - 0.7) < 0.02
    e = F.exponential(key(), shape=(20_000,), lambd=2.0).numpy()
    assert e.min() >= 0 and abs(e.mean() - 0.5) < 0.02


def test_multinomial():
    weights = tensor(np.array([[1.0, 0.0, 3.0], [0.0, 5.0, 5.0]], np.float32))
    drawn = F.multinomial(weights, key(), 5000, True).numpy()
    share = np.stack([np.bincount(row, minlength=3) / 5000 for row in drawn])
    np.testing.assert_allclose(share, [[0.25, 0, 0.75], [0, 0.5, 0.5]], atol=0.03)
    without = F.multinomial(weights, key(), 2).numpy()
    assert [sorted(row) for row in without.tolist()] == [[0, 2], [1, 2]]
    with pytest.raises(RuntimeError, match="without replacement"):
        F.multinomial(weights, key(), 4)


def test_dropout():
    x = tensor(np.ones((100, 100), np.float32)).requires_grad_(True)
    y = F.dropout(x, key(), p=0.25)
    values = y.detach().numpy()
    assert set(np.unique(values).tolist()) == {0.0, np.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.02
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), values)
    assert np.array_equal(F.dropout(x, key(), p=1.0).detach().numpy(), np.zeros((100, 100)))
    assert np.array_equal(F.dropout(x, key(), p=0.0).detach().numpy(), np.ones((100, 100)))


def test_feature_dropout():
    x = tensor(np.ones((50, 20, 3, 3), np.float32))
    y = F.feature_dropout(x, key(), p=0.5).numpy()
    assert (y.reshape(1000, 9).std(1) == 0).all() and abs((y == 0).mean() - 0.5) < 0.06
    z = F.alpha_dropout(
        tensor(np.random.default_rng(0).standard_normal((200, 200))), key(), p=0.3
    ).numpy()
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03


def test_attention_dropout():
    q = tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 4)))
    op = F.FUNCTIONS["attention"]
    kept = op(q, q, q, None, key(), dropout_p=0.5, is_causal=True, scale=None, enable_gqa=False)
    again = op(q, q, q, None, key(), dropout_p=0.5, is_causal=True, scale=None, enable_gqa=False)
    plain = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert np.array_equal(kept.numpy(), again.numpy()) and not np.allclose(
        kept.numpy(), plain.numpy()
    )


def test_gumbel_softmax():
    x = tensor(np.zeros((1000, 4), np.float64)).requires_grad_(True)
    soft = F.gumbel_softmax(x, key(), tau=0.5)
    np.testing.assert_allclose(soft.detach().numpy().sum(1), 1)
    hard = F.gumbel_softmax(x, key(), tau=0.5, hard=True)
    assert np.array_equal(hard.detach().numpy().argmax(1), soft.detach().numpy().argmax(1))
    assert set(np.unique(hard.detach().numpy()).tolist()) == {0.0, 1.0}
    hard[:, 0].sum().backward()
    first = x.grad.numpy().copy()
    x.grad = None
    F.gumbel_softmax(x, key(), tau=0.5)[:, 0].sum().backward()
    np.testing.assert_allclose(first, x.grad.numpy())


@pytest.mark.parametrize("dtype", [f32, f64, bf16])
def test_numpy_and_jax_draw_the_same(dtype):
    import tracegrad as tg

    def draw(k):
        return (
            F.uniform(k, shape=(999,), dtype=dtype),
            F.normal(k, shape=(999,), dtype=dtype),
            F.randint(k, low=-5, high=50, shape=(999,)),
            F.randperm(k, n=99),
        )

    mine = draw(key())
    for backend in ("numpy", "jax"):
        others = tg.compile(draw, backend=backend)(key())
        for k, (a, b) in enumerate(zip(mine, others)):
            if k == 1:  # own polynomials: within a few ulp
                ulps = {f32: 2e-6, f64: 1e-13, bf16: 1e-2}[dtype]
                a, b = (t.numpy().astype(np.float64) for t in (a, b))
                np.testing.assert_allclose(a, b, rtol=ulps, atol=ulps)
            else:
                assert np.array_equal(a.numpy(), b.numpy())
