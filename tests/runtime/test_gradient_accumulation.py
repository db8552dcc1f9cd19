"""Compiled micro batches that add to `.grad`: by identity at first, by name once gradients change."""

import numpy as np
import pytest

import tracegrad as tg


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_gradients_accumulated_over_micro_batches_are_recorded_a_few_times(backend):
    if backend == "jax":
        pytest.importorskip("jax")

    def train(compile):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.Tanh(), tg.nn.Linear(4, 1))
        optimizer = tg.optim.Adam(model.parameters(), lr=0.1)

        def micro(x, update):
            loss = (model(x) ** 2).mean()
            loss.backward()
            if update:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        micro = compile(micro)
        log = []
        for k in range(18):
            log.append(micro(tg.ones(2, 3) * (k % 5), k % 3 == 2).item())
            grad = model[0].weight.grad
            log.append(None if grad is None else grad.sum().item())
        return micro, log, [p.tolist() for p in model.parameters()]

    _, log, weights = train(lambda f: f)
    micro, found, ours = train(lambda f: tg.compile(f, backend=backend, fullgraph=True))
    assert [x is None for x in found] == [x is None for x in log]
    np.testing.assert_allclose(
        [x or 0.0 for x in found], [x or 0.0 for x in log], rtol=1e-4, atol=1e-6
    )
    for a, b in zip(ours, weights):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert micro.stats()["recordings"] <= 5, micro.why()


def test_a_gradient_that_is_also_held_elsewhere_is_still_told_apart():
    w = tg.ones(2, requires_grad=True)
    held = {"grad": None}

    def micro(x):
        (w * x).sum().backward()
        return held["grad"] * 1

    compiled = tg.compile(micro)
    for _ in range(4):
        w.grad = held["grad"] = tg.zeros(2)
        for k in (1.0, 2.0):
            assert compiled(tg.full((2,), k)).tolist() == held["grad"].tolist() == w.grad.tolist()
    other = tg.zeros(2)
    held["grad"] = other
    assert compiled(tg.ones(2)).tolist() == [0.0, 0.0]


def test_two_parameters_that_come_to_share_a_gradient():
    a, b = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)

    def micro(x):
        (a * x + 2 * b * x).sum().backward()

    compiled = tg.compile(micro)
    for _ in range(4):
        a.grad, b.grad = tg.zeros(2), tg.zeros(2)
        compiled(tg.ones(2))
        assert a.grad.tolist() == [1.0, 1.0] and b.grad.tolist() == [2.0, 2.0]
    a.grad = b.grad = tg.zeros(2)
    compiled(tg.ones(2))
    assert a.grad.tolist() == b.grad.tolist() == [3.0, 3.0]
