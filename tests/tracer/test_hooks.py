"""Hooks on tensors: the same gradients as in PyTorch, eager and compiled; none is ever lost."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere

import tracegrad as tg
from tracegrad.tracer.errors import GradientError, ShapeError

X = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)


def intermediate(t, F, x):
    y = x * 2
    y.register_hook(lambda g: g * 10)
    return (y * y).sum(), y


def registered_after_use(t, F, x):
    y = x * 2
    z = (y * y).sum()
    y.register_hook(lambda g: g.clamp(-3, 3))
    return z


def two_in_a_row(t, F, x):
    y = x * 2
    z = y * y + x
    z.register_hook(lambda g: g + 1)
    y.register_hook(lambda g: g * g)
    y.register_hook(lambda g: None)
    return z.sum() + y.sum() * x.sum()


def on_a_view(t, F, x):
    y = x * 2
    part = y[0]
    part.register_hook(lambda g: g * 5)
    return part * 3, y * part


def on_a_clone(t, F, x):
    y = x * 2
    z = y.clone()
    z.register_hook(lambda g: g * 5)
    return z * y


def removed(t, F, x):
    y = x * 2
    handle = y.register_hook(lambda g: g * 10)
    handle.remove()
    return y * y


def before_a_write(t, F, x):
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.mul_(3)
    return y * y


def on_a_leaf_born_inside(t, F, x):
    y = x.detach().clone().requires_grad_()
    y.register_hook(lambda g: g * 10)
    (gradient,) = t.autograd.grad((y * y).sum(), (y,))
    return gradient


def second_order(t, F, x):
    y = x * x
    y.register_hook(lambda g: g * x)
    (gradient,) = t.autograd.grad((y * y).sum(), (x,), create_graph=True)
    return gradient


PROGRAMS = [
    intermediate, registered_after_use, two_in_a_row, on_a_view, on_a_clone, removed,
    before_a_write, on_a_leaf_born_inside, second_order,
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_as_in_pytorch(program, mode):
    agree_everywhere(mode, program, X, legal=True)


def leaf_gradients(t, mode):
    """Gradients of a parameter whose hooks come and go between steps."""
    w = t.tensor(X, requires_grad=True)
    seen = []

    def step(x):
        w.grad = None
        loss = (w * w * x).sum()
        loss.backward()
        return loss

    run = step if mode in ("torch", "eager") else tg.compile(step, backend=mode, keep_grads=True)

    def call():
        run(t.tensor([1.0, 2.0, 3.0]))
        seen.append(w.grad.tolist())

    call()
    handle = w.register_hook(lambda g: g * 10)
    call()
    call()
    kept = w * w
    with t.no_grad():
        w.add_(1)
    call()
    w.requires_grad_(False)
    w.requires_grad_(True)
    second = w.register_hook(lambda g: g + 1)
    call()
    handle.remove()
    call()
    second.remove()
    call()
    del kept
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_hooks_of_a_parameter(mode):
    np.testing.assert_allclose(leaf_gradients(tg, mode), leaf_gradients(torch, "torch"))


def accumulated(t, mode):
    """An optimiser that steps inside backward, as soon as each gradient is there."""
    a, b = (t.tensor(X[k], requires_grad=True) for k in range(2))
    for p in (a, b):
        optimizer = t.optim.SGD([p], lr=0.1, momentum=0.9)

        def update(p, optimizer=optimizer):
            optimizer.step()
            optimizer.zero_grad()

        p.register_post_accumulate_grad_hook(update)

    def step(x):
        loss = ((a * x - b) ** 2).sum()
        loss.backward()
        return loss

    run = step if mode in ("torch", "eager") else tg.compile(step, backend=mode)
    losses = [run(t.tensor([1.0, 2.0, 3.0])).item() for _ in range(4)]
    assert a.grad is None
    return losses, a.tolist(), b.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_hooks_after_accumulation(mode):
    mine, theirs = accumulated(tg, mode), accumulated(torch, "torch")
    for a, b in zip(mine, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def hooked(x, met):
    y = x * 2
    y.register_hook(lambda g: met.append(g.tolist()) or g * 0.5)
    return y.sin().sum(), None


def retaining(x, met):
    y = x * 2
    y.retain_grad()
    return y.sin().sum(), y


def not_on_the_way(x, met):
    y = x * 2
    y.register_hook(lambda g: g * 0.5).remove()
    z = x * 3
    z.register_hook(lambda g: g * 0.5)
    z.retain_grad()
    return (y * z.detach()).sum(), None


def gradients_outside(t, run, met):
    seen = []
    for _ in range(2):
        x = t.tensor(X, requires_grad=True)
        loss, retained = run(x)
        loss.backward()
        seen.append((x.grad.tolist(), [] if retained is None else retained.grad.tolist(), met))
    return seen


@pytest.mark.filterwarnings("ignore:tracegrad.*runs eagerly from now on")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", [hooked, retaining, not_on_the_way], ids=lambda p: p.__name__)
def test_a_backward_outside_the_function_that_asks_for_more(program, mode):
    met, expected = [], []
    run = lambda x: program(x, met)
    call = run if mode == "eager" else tg.compile(run, backend=mode)
    mine = gradients_outside(tg, call, met)
    theirs = gradients_outside(torch, lambda x: program(x, expected), expected)
    for a, b in zip(mine, theirs, strict=True):
        for found, there in zip(a, b, strict=True):
            np.testing.assert_allclose(found, there, rtol=1e-5)
    if mode != "eager" and program is not_on_the_way:
        assert "runs eagerly" not in call.explain()


def test_what_a_hook_may_not_return():
    for wrong, kind in ((lambda g: 3, GradientError), (lambda g: g[:1], ShapeError)):
        x = tg.tensor(X, requires_grad=True)
        x.register_hook(wrong)
        with pytest.raises(kind, match=r"(?s)hook.*test_hooks\.py"):
            (x * 2).sum().backward()
        assert x.grad is None


def test_a_hook_needs_a_gradient():
    with pytest.raises(GradientError, match=r"requires_grad_\(\)"):
        tg.ones(2).register_hook(lambda g: g)
    with pytest.raises(GradientError, match="leaf"):
        (tg.ones(2, requires_grad=True) * 2).register_post_accumulate_grad_hook(lambda p: None)
