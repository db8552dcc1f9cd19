"""Gradients through compiled functions: of any order, with several calls alive, and around writes."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tests.tracer.leaves import equal, leaf, plain
from tracegrad.tracer.errors import GradientError

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "jax"])


def f(lib, x):
    return lib.sin(x) * x * x + lib.exp(x * 0.5) / (1.0 + x * x)


@BACKENDS
def test_gradients_of_gradients_through_a_compiled_function(backend):
    def answers(lib, function):
        x, w = leaf(lib, [0.3, 0.7]), leaf(lib, [1.1, -0.4])
        (g,) = lib.autograd.grad(function(x * 2.0, w).sum(), [x], create_graph=True)
        (h,) = lib.autograd.grad((g * g).sum(), [x], create_graph=True)
        (h * w).sum().backward()
        return plain([g, h, x.grad, w.grad])

    run = tg.compile(lambda x, w: f(tg, x) * w, backend=backend)
    theirs = answers(torch, lambda x, w: f(torch, x) * w)
    for _ in range(2):
        equal(answers(tg, run), theirs)


@BACKENDS
def test_several_calls_alive_at_once(backend):
    w = leaf(tg, [1.0, 2.0])
    run = tg.compile(lambda x: (tg.sin(x * w), x * x), backend=backend)
    xs = [leaf(tg, [0.1 * k, 1.0]) for k in range(4)]
    results = [run(x) for x in xs]
    for a, b in reversed(results):
        (a * b).sum().backward()
    v = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    ys = [leaf(torch, [0.1 * k, 1.0]) for k in range(4)]
    for y in ys:
        (torch.sin(y * v) * y * y).sum().backward()
    equal(plain([w.grad, *(x.grad for x in xs)]), plain([v.grad, *(y.grad for y in ys)]))


@BACKENDS
def test_a_compiled_result_keeps_the_gradient_of_its_time(backend):
    """A parameter written after the call: the gradient is that of the values the call used."""
    w = leaf(tg, [1.0, 2.0])
    run = tg.compile(lambda x: w * w * x, backend=backend)
    for _ in range(3):
        w.grad = None
        used = plain(w)
        result = run(leaf(tg, [3.0, 4.0], False))
        with tg.no_grad():
            w.mul_(5.0)
        result.sum().backward()
        np.testing.assert_allclose(plain(w.grad), 2 * used * np.array([3.0, 4.0]))


class Net(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = tg.nn.Linear(4, 6)
        self.norm = tg.nn.BatchNorm1d(6)
        self.drop = tg.nn.Dropout(0.5)
        self.last = tg.nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.drop(tg.relu(self.norm(self.first(x)))))


@BACKENDS
def test_a_compiled_model_with_the_backward_outside(backend):
    x = tg.tensor(np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32))

    def history(compile):
        tg.manual_seed(3)
        model = Net()
        call = tg.compile(model, backend=backend) if compile else model
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        found = []
        for k in range(6):
            model.train(k not in (2, 5))
            optimizer.zero_grad()
            loss = (call(x) ** 2).mean()
            loss.backward()
            found += [loss, *(p.grad for p in model.parameters())]
            found = plain(found)
            optimizer.step()
        return found + plain([model.norm.running_mean, model.norm.running_var, *model.parameters()])

    for mine, eager in zip(history(True), history(False), strict=True):
        np.testing.assert_allclose(mine, eager, rtol=2e-4, atol=1e-6)


def old_value_read(y, z):
    """The gradient reads what the same call then overwrites."""
    loss = (y * y).sum()
    with tg.no_grad():
        y.mul_(5.0)
    return loss


def leaf_written_first(y, z):
    with tg.no_grad():
        y.mul_(5.0)
    return (y * y).sum()


def argument_written_with_gradients(y, z):
    z.add_(y * 0.5)
    return (z * z).sum() + tg.sin(z).sum()


def argument_read_around_a_write(y, z):
    first = y * z
    z.mul_(3.0)
    return (y * 2.0 * z).sum() + first.sum()


@BACKENDS
@pytest.mark.parametrize("function", [old_value_read, leaf_written_first,
    argument_written_with_gradients, argument_read_around_a_write])  # fmt: skip
def test_a_compiled_call_that_overwrites_what_its_gradient_reads(function, backend):
    def history(call):
        y = leaf(tg, [1.0, 2.0])
        found = []
        for _ in range(3):
            z = leaf(tg, [3.0, 4.0], False)
            y.grad = None
            call(y, z).backward(retain_graph=True)
            found += plain([y, y.grad, z]) + [z.requires_grad]
            if z.requires_grad:  # written state has a history of its own afterwards
                y.grad = None
                z.sum().backward()
                found.append(plain(y.grad))
        return found

    equal(history(tg.compile(function, backend=backend)), history(function))


@BACKENDS
def test_a_gradient_between_two_results_of_a_call_is_refused(backend):
    """It was None, silently, for retain_grad() and hooks."""

    @tg.compile(backend=backend)
    def both(x):
        y = x * 2
        return y, (y * y).sum(), (y.detach() * x).sum()

    def results():
        x = tg.ones(2).requires_grad_()
        return x, *both(x)

    for ask in (
        lambda y, loss: tg.autograd.grad(loss, y, allow_unused=True),
        lambda y, loss: tg.autograd.grad(loss + y.sum(), y),
        lambda y, loss: (y.retain_grad(), loss.backward()),
        lambda y, loss: (y.register_hook(print), loss.backward()),
    ):
        _, y, loss, _ = results()
        with pytest.raises(GradientError, match="from another of its results"):
            ask(y, loss)
    x, y, loss, other = results()
    assert tg.autograd.grad(y.sum() + other, y, retain_graph=True)[0].tolist() == [1.0, 1.0]
    y.retain_grad()
    (y.sum() + other).backward()
    assert y.grad.tolist() == [1.0, 1.0] and x.grad.tolist() == [4.0, 4.0]


def test_a_result_written_under_no_grad_keeps_what_its_gradient_reads():
    """PyTorch refuses the backward; here the old value moves, the tensor's own entry included."""

    def halved(y):
        with tg.no_grad():
            y.mul_(0.5)

    for write in (halved, lambda y: y.detach().zero_()):
        for create_graph in (False, True):
            x = tg.tensor([0.5, -1.0], requires_grad=True)
            y = x.tanh()
            write(y)
            (found,) = tg.autograd.grad((y * 2).sum(), x, create_graph=create_graph)
            np.testing.assert_allclose(
                found.detach().numpy(), 2 - 2 * np.tanh([0.5, -1.0]) ** 2, rtol=1e-6
            )
