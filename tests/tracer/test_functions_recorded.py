"""The same functions recorded and compiled equal eager; known numbers become constants."""

import numpy as np
import pytest
from torch_oracle import tensor

import tracegrad as tg
from tracegrad.tracer import functions as F

RNG = np.random.default_rng(3)
X = RNG.standard_normal((4, 6)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 4, 7, 6)).astype(np.float32)
SEQUENCE = RNG.standard_normal((2, 5, 4)).astype(np.float32)
W = RNG.standard_normal((3, 4, 3, 3)).astype(np.float32)
KEY = np.array([1, 2], np.uint32)

CASES = {
    "arithmetic": (lambda x: (x * 2 + 1) / (x * x + 0.5) - x % 0.7, X),
    "powers": (lambda x: abs(x) ** 0.5 + x**2 + x**3 + (abs(x) + 1) ** -1.5, X),
    "clamp": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1), X),
    "where": (lambda x: F.where(x > 0, x, -2.0), X),
    "reductions": (lambda x: x.sum(0) + x.mean(1).sum() + x.std() + x.amax(0), X),
    "picked": (lambda x: x.max(1).values + x.sort(1)[0][:, 2] + x.median(1)[0] + x.topk(2)[0][:,
    1], X),
    "running": (lambda x: x.cumsum(1) + x.cummax(1)[0] + x.logcumsumexp(0), X),
    "softmax": (lambda x: F.softmax(x, 1) * F.log_softmax(x, 0) + F.logsumexp(x, (0, 1)), X),
    "norms": (lambda x: F.layer_norm(x, (6,)) + F.rms_norm(x, (6,)) + F.normalize(x), X),
    "joined": (lambda x: F.cat([x, x * 2], 1).roll(1, 1).flip(0).repeat(1, 2), X),
    "indexing": (lambda x: x[[0, 2]] + x[:, [1, 1, 3, 0, 2, 2]][1:3] + x.gather(0,
    x.argsort(0))[:2], X),
    "matmul": (lambda x: F.einsum("ij,kj->ik", x, x) + x @ x.T + F.linear(x, x), X),
    "activations": (lambda x: F.gelu(x) + F.silu(x) + F.mish(x) + F.elu(x) + F.hardswish(x), X),
    "dropout": (lambda x: F.dropout(x, tensor(KEY), p=0.4) + F.normal(tensor(KEY), shape=(4, 6)),
    X),
    "conv": (lambda x: F.conv2d(x, tensor(W), padding=1) + F.conv2d(x, tensor(W),
    padding=1).relu(), IMAGE),
    "conv_transpose": (lambda x: F.conv_transpose2d(x, tensor(W.swapaxes(0, 1).copy()), stride=2),
    IMAGE),
    "pools": (lambda x: F.max_pool2d(x, 3, 2) + F.avg_pool2d(x, 3, 2) + F.adaptive_avg_pool2d(x,
    1), IMAGE),
    "group_norm": (lambda x: F.group_norm(x, 2) + F.batch_norm_train(x)[0], IMAGE),
    "resize": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), SEQUENCE),
    "linalg": (lambda x: F.inv(x @ x.T + 3 * tg.eye(4)) + F.det(x @ x.T + tg.eye(4)), X),
}  # fmt: skip


def gradient(function, array):
    """The results and the gradient of their weighted sum, in one function that can be compiled."""

    def step(x):
        y = function(x)
        weight = tg.arange(y.numel(), dtype=tg.float32).reshape(y.shape).cos()
        (g,) = tg.autograd.grad((y * weight).sum(), (x,))
        return y, g

    return step


@pytest.mark.parametrize("name", CASES)
def test_recorded_equals_eager(name):
    function, array = CASES[name]
    step = gradient(function, array)
    compiled = tg.compile(step, backend="numpy", fullgraph=True)
    for _ in range(2):
        y, g = step(tensor(array).requires_grad_(True))
        z, h = compiled(tensor(array).requires_grad_(True))
        np.testing.assert_allclose(z.detach().numpy(), y.detach().numpy(), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(h.numpy(), g.numpy(), rtol=5e-4, atol=5e-5)


def test_known_numbers_are_constants():
    compiled = tg.compile(lambda x: x**2 * 3.0, backend="numpy")
    compiled(tensor(X))
    graph = str(compiled.graph)
    assert "pow" not in graph and "cast" not in graph


def test_data_dependent_shapes_say_why():
    compiled = tg.compile(lambda x: F.nonzero(x), backend="numpy", fullgraph=True)
    with pytest.raises(tg.TracegradError, match="nonzero"):
        compiled(tensor(X))
