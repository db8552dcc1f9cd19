"""A walk backwards frees what it has passed, not what is behind its targets; as in PyTorch."""

import pytest
import torch
from everywhere import MODES

import tracegrad as tg


def importance(t, w, x):
    """Gradients of features weigh the features themselves (Grad-CAM)."""
    features = x @ w
    (weights,) = t.autograd.grad(features.sigmoid().sum(), features)
    (features * weights).sum().backward()
    return w.grad


def inputs_alone(t, w, x):
    features = x @ w
    loss = (features**2).sum()
    (first,) = t.autograd.grad(loss, [features])
    (second,) = t.autograd.grad(features.sum(), [w])
    return first + second.sum()


def step_by_step(t, w, x):
    a = x @ w
    b = a.exp()
    (of_b,) = t.autograd.grad((b * b).sum(), b)
    (of_a,) = t.autograd.grad(b, a, of_b)
    (of_w,) = t.autograd.grad(a, w, of_a)
    return of_w


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", [importance, inputs_alone, step_by_step])
def test_behind_the_targets_all_is_left(program, mode):
    def run(t, compile):
        w = t.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        return compile(lambda x: program(t, w, x))(t.tensor([[1.0, 0.5]])).tolist()

    found = run(tg, (lambda f: f) if mode == "eager" else lambda f: tg.compile(f, backend=mode))
    for row, expected in zip(found, run(torch, lambda f: f)):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_passed_is_freed(mode):
    def twice(x):
        b = x.exp()
        c = b.sigmoid()
        tg.autograd.grad(c.sum(), b)
        (c * 2).sum().backward()
        return b

    x = tg.ones(2, requires_grad=True)
    run = twice if mode == "eager" else tg.compile(twice, backend=mode)
    with pytest.raises(tg.errors.GradientError, match="second time"):
        run(x)
