"""What Python is told while recording comes from the plain kernels; compiled code rounds otherwise."""

import math

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS

NUMBERS = {
    "quotient": lambda s: float(s.item() / 10),
    "tanh": lambda s: float(s.tanh()),
    "exp": lambda s: float(s.exp()),
    "text": lambda s: float(f"{s.sigmoid().item()}"),
    "sum": lambda s: float((s * tg.arange(1.0, 1000.0).log()).sum()),
    "root": lambda s: math.sqrt((s * tg.arange(1.0, 90.0).exp().log()).mean().item()),
    "rounded": lambda s: round((s * tg.arange(1.0, 1000.0).sigmoid()).mean().item(), 4),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_float_that_python_asks_for(name, backend):
    def function(x, s):
        return x * NUMBERS[name](s)

    compiled = tg.compile(function, backend=backend)
    x, s = tg.ones(2), tg.tensor(1.5)
    for _ in range(3):
        np.testing.assert_allclose(compiled(x, s).numpy(), function(x, s).numpy(), rtol=1e-5)
    assert compiled.stats()["recordings"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_condition_on_the_edge_of_rounding(backend):
    for value in np.linspace(0.3, 0.9, 13, dtype=np.float32):
        edge = float(tg.tensor(value).tanh())

        def function(s, edge=edge):
            if s.tanh() >= edge:
                return s * 2
            return s * 3

        compiled = tg.compile(function, backend=backend)
        for s in (value, value, value + np.float32(0.1), value - np.float32(0.1), value):
            found = compiled(tg.tensor(s)).item() / s
            assert round(found) == (2 if s > value else 3 if s < value else round(found))
            assert round(found) in (2, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_logs_its_loss_as_text(backend):
    tg.manual_seed(0)
    net = tg.nn.Sequential(
        tg.nn.Linear(8, 40), tg.nn.Tanh(), tg.nn.LayerNorm(40), tg.nn.Linear(40, 3)
    )
    opt = tg.optim.SGD(net.parameters(), lr=0.1)

    def step(x, y):
        opt.zero_grad()
        loss = tg.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss * 1.0, f"{loss.item():.9f}"

    compiled = tg.compile(step, backend=backend)
    for _ in range(2):
        loss, text = compiled(tg.randn(16, 8), tg.randint(0, 3, (16,)))
        assert abs(loss.item() - float(text)) < 1e-5


def branch_on_topk(x):
    values, indices = x.topk(1)
    if indices.item() == 0:
        return x.sum()
    return (values * x).sum()


def branch_on_qr(x):
    q, r = tg.linalg.qr(x.reshape(2, 1) * tg.eye(2))
    return r.sum() if q[0, 0] > 0 else (r * x).sum()


def branch_on_both_parts(x):
    values, indices = x.sort()
    total = indices.sum()
    if values[0] > 0:
        return indices * 3
    if total.item() == 1:
        return values * 2
    return values - indices


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", [branch_on_topk, branch_on_qr, branch_on_both_parts])
def test_several_results_on_both_sides_of_a_guard(function, backend):
    compiled = tg.compile(function, backend=backend)
    for values in ([1.0, 2.0], [2.0, 1.0], [-1.0, -2.0], [-2.0, 2.0], [1.0, 2.0]):
        x = tg.tensor(values)
        np.testing.assert_allclose(compiled(x).numpy(), function(x).numpy(), rtol=1e-6)
