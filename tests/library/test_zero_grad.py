"""Gradients set to zero are zero, whatever they were, and in place: who holds one sees it."""

from __future__ import annotations

import pytest
import torch

import tracegrad as tg

MODES = ["eager", "numpy", "jax"]


def compiled(function, mode):
    return (
        tg.compile(function, backend=mode, keep_grads=True)
        if mode in ("numpy", "jax")
        else function
    )


def skipped_steps(t, mode):
    """Losses scaled by hand, steps skipped where a gradient is not finite: the weights after each."""
    p = t.nn.Parameter(t.ones(3))
    opt = t.optim.SGD([p], lr=0.1)

    def step(x):
        opt.zero_grad(set_to_none=False)
        (p * x).sum().backward()
        if t.isfinite(p.grad).all():
            opt.step()

    run = compiled(step, mode)
    seen = []
    for value in (1.0, float("inf"), 2.0, float("nan"), 3.0):
        run(t.full((3,), value))
        seen.append(p.detach().clone().numpy().tolist())
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_no_nan_stays(mode):
    got = sum(skipped_steps(tg, mode), [])
    assert got == pytest.approx(sum(skipped_steps(torch, "torch"), []), rel=1e-6)


def held_gradients(t, mode):
    """What a held gradient and its view show after each zeroing, eager gradients and with history."""
    p = t.nn.Parameter(t.ones(3))
    opt = t.optim.SGD([p], lr=0.1)
    clear = compiled(lambda: opt.zero_grad(set_to_none=False), mode)
    (p * 2).sum().backward()
    held = p.grad
    view = held.view(3, 1)
    seen = []
    for _ in range(2):
        clear()
        seen += [held is p.grad, held.tolist(), view.tolist()]
        (p * 3).sum().backward()
    p.grad = None
    (p**3).sum().backward(create_graph=True)
    held = p.grad
    clear()
    return seen + [p.grad.requires_grad, held.tolist()]


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("mode", MODES)
def test_in_place(mode):
    assert held_gradients(tg, mode) == held_gradients(torch, "torch")
