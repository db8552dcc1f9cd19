"""A call overwrites state that its gradient reads, and keeps forward values for that gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tracegrad as tg


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_overwritten_buffer_wants_no_gradient(backend):
    """The backward of a call is the one that its kept values were chosen for."""
    if backend == "jax":
        pytest.importorskip("jax")

    def gradients(compiled: bool) -> list[np.ndarray]:
        buffer = tg.zeros(3)
        w = tg.tensor([0.5, -0.3, 0.8], requires_grad=True)

        def f(x):
            x = x + buffer
            buffer.add_(w.detach() * 0.1)
            return x * ((w.relu() * w).tanh() * -0.7) + x

        call = tg.compile(f, backend=backend) if compiled else f
        found = []
        for k in range(3):
            w.grad = None
            call(tg.tensor([1.0, 2.0, -3.0]) * (k + 1)).sum().backward()
            found.append(w.grad.numpy().copy())
        return found

    np.testing.assert_allclose(gradients(True), gradients(False), rtol=1e-5)


def test_a_view_of_a_tensor_with_history_outside_is_written(backend: str) -> None:
    """It is no view of a leaf: the write is allowed, and its gradient reaches the history."""

    def run(lib, wrapped):
        x = lib.tensor([1.0, 1.0, 1.0], requires_grad=True)
        y = x * 2

        def step(factor):
            y[1:].mul_(factor)
            return (y * y).sum()

        loss = wrapped(step)(lib.tensor(3.0))
        loss.backward()
        return loss.item(), y.tolist(), x.grad.tolist()

    ours = run(tg, lambda step: tg.compile(step, backend=backend))
    assert ours == run(torch, lambda step: step)


def own(p):
    return None


def viewed(p):
    with tg.no_grad():
        return p.view(3)


def detached(p):
    return p.detach()


def exported(p):
    return p.detach().numpy()


@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize("held", [own, viewed, detached, exported])
def test_a_tape_outside_keeps_the_value_that_a_call_replaces(held, captured, backend):
    p = tg.ones(3, requires_grad=True)
    alias = held(p)

    def update(x):
        with tg.no_grad():
            (p if captured else x).add_(1.0)
        return x * 1

    step = tg.compile(update, backend=backend)
    given = tg.zeros(3) if captured else p
    for before in (1.0, 2.0, 3.0):
        first = (p * p * p).sum()
        step(given)
        second = (p * p).sum()
        for loss, wanted in ((first, 3 * before**2), (second, 2 * (before + 1))):
            p.grad = None
            loss.backward()
            assert p.grad.tolist() == [wanted] * 3
    assert p.tolist() == [4.0] * 3
    del alias


@pytest.mark.parametrize("loop", [False, True])
def test_what_only_a_gradient_of_the_gradient_reads_is_kept(backend: str, loop: bool) -> None:
    """It computes again what the gradient has kept, from values that the call has overwritten."""

    def gradients(compiled: bool) -> list[np.ndarray]:
        weight, shift = tg.tensor([[0.5, 0.25], [0.1, 0.2]]), tg.tensor([0.1, 0.2])

        def f(x):
            while loop and (x * x).sum() > 1:
                x = x * 0.5
            y = (x @ weight + shift).sin()
            with tg.no_grad():
                shift.add_(1)
            return y

        call = tg.compile(f, backend=backend) if compiled else f
        found = []
        for k in range(3):
            x = tg.tensor([[3.0, 2.0]], requires_grad=True) * (k + 1)
            (first,) = tg.autograd.grad(call(x).sum(), x, create_graph=True)
            (second,) = tg.autograd.grad(first.sum(), x)
            found += [first.detach().numpy(), second.numpy()]
        return found

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
