"""Where `.grad` is None and where it is zeros: as in PyTorch, eager and compiled."""

import numpy as np
import pytest
import torch
import torch.nn.functional as torch_functional
from everywhere import MODES

import tracegrad as tg
from tracegrad.nn import functional

# Each runs backward for a batch x and two parameters of three elements.
PROGRAMS = {
    "unused": lambda t, F, x, a, b: (a * x).sum().backward(),
    "the branch not taken": lambda t, F, x, a, b: t.where(x < 0, a, b).sum().backward(),
    "times zero": lambda t, F, x, a, b: (a * 0 + b).sum().backward(),
    "detached": lambda t, F, x, a, b: (a.detach() * b).sum().backward(),
    "detached result": lambda t, F, x, a, b: ((a * 2).detach() + b).sum().backward(),
    "one element": lambda t, F, x, a, b: a[0].backward(),
    "no element": lambda t, F, x, a, b: (a[:0].sum() + b.sum()).backward(),
    "ties": lambda t, F, x, a, b: (a * 0 + 1).max().backward(),
    "rounded": lambda t, F, x, a, b: (a.floor() + b.round()).sum().backward(),
    "sign": lambda t, F, x, a, b: (a.sign() * b).sum().backward(),
    "floor of a quotient": lambda t, F, x, a, b: (
        t.div(a, b, rounding_mode="floor").sum().backward()
    ),
    "remainder": lambda t, F, x, a, b: (a % b).sum().backward(),
    "compared": lambda t, F, x, a, b: ((a > 0).float() * b).sum().backward(),
    "position": lambda t, F, x, a, b: (a.argmax() * b).sum().backward(),
    "order": lambda t, F, x, a, b: (a.sort()[1] * b).sum().backward(),
    "as integers": lambda t, F, x, a, b: (a.long().float() + b).sum().backward(),
    "all masked": lambda t, F, x, a, b: (a.masked_fill(x > 0, 0.0) + b).sum().backward(),
    "one of several views": lambda t, F, x, a, b: a.unbind()[1].backward(),
    "clamped": lambda t, F, x, a, b: a.clamp(10, 20).sum().backward(),
    "dead relu": lambda t, F, x, a, b: F.relu(a - 100).sum().backward(),
    "power zero": lambda t, F, x, a, b: (a**0).sum().backward(),
    "joined": lambda t, F, x, a, b: t.cat([a, b])[:3].sum().backward(),
    "dropped": lambda t, F, x, a, b: F.dropout(a, 1.0).sum().backward(),
    "norm of zeros": lambda t, F, x, a, b: (a * 0).norm().backward(),
    "like it": lambda t, F, x, a, b: (t.zeros_like(a) + b).sum().backward(),
    "into some": lambda t, F, x, a, b: (a * b).sum().backward(inputs=[a]),
    "into some unused": lambda t, F, x, a, b: (a * x).sum().backward(inputs=[a, b]),
    "padding": lambda t, F, x, a, b: (
        F.embedding(t.tensor([0, 0]), a[:, None], padding_idx=0).sum().backward()
    ),
}


def zeroed(set_to_none):
    def program(t, F, x, a, b):
        t.optim.SGD([a, b], lr=0.1).zero_grad(set_to_none=set_to_none)
        (a * x).sum().backward()

    return program


PROGRAMS["cleared"] = zeroed(True)
PROGRAMS["zeroed"] = zeroed(False)


def gradients(t, F, program, mode, given):
    """`.grad` of the parameters after each of two calls; `given`: they start with gradients."""
    parameters = [t.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2)]
    if given:
        for p in parameters:
            p.grad = t.ones(3)

    def step(x):
        program(t, F, x, *parameters)
        return x

    run = step if mode in ("torch", "eager") else tg.compile(step, backend=mode, keep_grads=True)
    seen = []
    for k in range(2):
        run(t.tensor([1.0, 2.0, 3.0]) + k)
        seen += [None if p.grad is None else p.grad.tolist() for p in parameters]
    return seen


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_after_backward(name, mode, given):
    mine = gradients(tg, functional, PROGRAMS[name], mode, given)
    theirs = gradients(torch, torch_functional, PROGRAMS[name], "torch", given)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None), (mine, theirs)
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6)


QUESTIONS = {
    "unused": lambda t, a, b: t.autograd.grad((a * a).sum(), [a, b], allow_unused=True),
    "materialised": lambda t, a, b: t.autograd.grad((a * a).sum(), [a, b], materialize_grads=True),
    "flat": lambda t, a, b: t.autograd.grad((a.floor() + b).sum(), [a, b]),
    "twice": lambda t, a, b: t.autograd.grad((a * b).sum(), [a, a]),
    "of itself": lambda t, a, b: t.autograd.grad(*[(a * b).sum()] * 2),
    "linear": lambda t, a, b: [
        t.tensor(1.0) * g.requires_grad
        for g in t.autograd.grad((a * 3).sum(), [a], create_graph=True)
    ],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", QUESTIONS)
def test_autograd_grad(name, mode):
    def answer(t, mode):
        a, b = (t.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2))

        def step(x):
            return tuple(g if g is None else g * x for g in QUESTIONS[name](t, a, b))

        run = step if mode in ("torch", "eager") else tg.compile(step, backend=mode)
        return [None if g is None else g.tolist() for g in run(t.ones(1))]

    assert answer(tg, mode) == answer(torch, "torch")


@pytest.mark.parametrize("mode", MODES)
def test_unused_without_leave(mode):
    a, b = (tg.ones(3, requires_grad=True) for _ in range(2))

    def step(x):
        return tg.autograd.grad((a * x).sum(), [a, b])

    run = step if mode == "eager" else tg.compile(step, backend=mode)
    with pytest.raises(tg.errors.GradientError, match="allow_unused=True"):
        run(tg.ones(3))
