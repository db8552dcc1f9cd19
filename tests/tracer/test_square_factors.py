"""Factors completed to square matrices, and the older `svd`, against PyTorch."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

SHAPES = [(3, 3), (5, 3), (3, 5), (2, 4, 3), (2, 3, 4), (0, 2), (3, 0), (0, 3, 2)]


def unit(t, u):
    """What tells whether columns are orthonormal, and there are enough of them."""
    return [u.mT @ u, t.ones_like(u)]


def svd(t, F, x):
    u, s, vh = t.linalg.svd(x)
    k = s.shape[-1]
    return [*unit(t, u), *unit(t, vh), s, (u[..., :k] * s[..., None, :]) @ vh[..., :k, :]]


def older_svd(t, F, x):
    found = []
    for some in (True, False):
        u, s, v = t.svd(x, some=some)
        k = s.shape[-1]
        found += [*unit(t, u), *unit(t, v), s, (u[..., :k] * s[..., None, :]) @ v[..., :k].mT]
    u, s, v = x.svd(compute_uv=False)
    return [*found, u, s, v]


def qr(t, F, x):
    found = []
    for mode in ("reduced", "complete"):
        q, r = t.linalg.qr(x, mode=mode)
        found += [*unit(t, q), t.ones_like(r), r.tril(-1), q @ r]
    q, r = t.linalg.qr(x, mode="r")
    return [*found, q, r.abs()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", [svd, older_svd, qr])
def test_factors(call, shape, mode):
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    agree_everywhere(mode, call, x, grad=False, legal=True, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode):
    x = np.random.default_rng(4).standard_normal((4, 3)).astype(np.float32)

    def call(t, F, x):
        u, s, v = t.svd(x)
        return [(u * s) @ v.mT, s, t.linalg.qr(x, mode="reduced")[1].abs()]

    agree_everywhere(mode, call, x, legal=True, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_mode_is_refused(mode):
    x = np.ones((2, 2), np.float32)
    agree_everywhere(mode, lambda t, F, x: t.linalg.qr(x, mode="economic"), x)
