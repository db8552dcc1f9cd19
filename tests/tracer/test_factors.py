"""alpha= and value=: numbers that change from call to call, given as numbers, tensors or arrays."""

import numpy as np
import pytest
import torch

import tracegrad as tg
from tests.runtime.programs import BACKENDS
from tracegrad.tracer.eager import run as eager

CALLS = {
    "add": lambda t, x, y, f: t.add(x, y, alpha=f),
    "sub": lambda t, x, y, f: x.sub(y, alpha=f),
    "rsub": lambda t, x, y, f: t.rsub(x, y, alpha=f),
    "add_": lambda t, x, y, f: x.clone().add_(y, alpha=f),
    "sub_": lambda t, x, y, f: x.clone().sub_(y, alpha=f),
    "addcmul": lambda t, x, y, f: t.addcmul(x, y, y, value=f),
    "addcmul_": lambda t, x, y, f: x.clone().addcmul_(y, y, value=f),
    "addcdiv": lambda t, x, y, f: t.addcdiv(x, y, y + 5, value=f),
    "addcdiv_": lambda t, x, y, f: x.clone().addcdiv_(y, y + 5, value=f),
    "addmm": lambda t, x, y, f: t.addmm(x, x, y, alpha=f),
    "addmm_beta": lambda t, x, y, f: t.addmm(x, x, y, beta=f, alpha=f),
    "addmv": lambda t, x, y, f: t.addmv(x[0], x, y[0], alpha=f),
    "addr": lambda t, x, y, f: t.addr(x, x[0], y[0], alpha=f),
    "baddbmm": lambda t, x, y, f: t.baddbmm(x[None], x[None], y[None], alpha=f),
    "addbmm": lambda t, x, y, f: t.addbmm(x, x[None], y[None], alpha=f),
    "index_add": lambda t, x, y, f: t.index_add(x, 0, t.tensor([2, 0, 0]), y, alpha=f),
}
OPTIONS = {
    "leaky_relu": lambda F, x, f: F.leaky_relu(x, f),
    "elu": lambda F, x, f: F.elu(x, alpha=f),
    "softplus": lambda F, x, f: F.softplus(x, beta=f),
    "softshrink": lambda F, x, f: F.softshrink(x, f),
    "layer_norm": lambda F, x, f: F.layer_norm(x, (3,), eps=f),
    "pad": lambda F, x, f: F.pad(x, (0, 1), value=f),
    "threshold": lambda F, x, f: F.threshold(x, f, f),
}


def operands(t):
    values = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
    return [t.tensor(v.tolist(), requires_grad=True) for v in (values, values.T + 0.25)]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("factor", [0.3, -0.7, 2, 1, 1.0, 0.0])
def test_agree_with_torch(name, factor):
    found = []
    for t in (torch, tg):
        x, y = operands(t)
        out = CALLS[name](t, x, y, factor)
        out.square().sum().backward()
        found.append([out.detach().numpy(), x.grad.numpy(), y.grad.numpy()])
    for want, got in zip(*found):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("make", [lambda f: tg.tensor(f), np.float32, np.float64])
def test_a_tensor_or_array_of_one_element_counts_as_its_number(name, make):
    x, y = operands(tg)
    expected = CALLS[name](tg, x, y, 0.5)
    assert CALLS[name](tg, x, y, make(0.5)).tolist() == expected.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CALLS)
def test_compiled_with_a_number_of_a_tensor(name, backend):
    x, y = (t.detach() for t in operands(tg))
    compiled = tg.compile(
        lambda x, y, f: CALLS[name](tg, x, y, f.item()), backend=backend
    )  # fmt: skip
    for factor in (0.3, -1.5):
        expected = CALLS[name](tg, x, y, factor)
        found = compiled(x, y, tg.tensor(factor))
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)
    if name != "addmm_beta":  # a beta of zero ignores its term: which one it is must be known
        assert compiled.stats()["compiles"] == 1


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize("name", OPTIONS)
def test_other_options_given_as_traced_numbers(name, backend):
    def function(x, f):
        return OPTIONS[name](tg.nn.functional, x, f.item())

    compiled = function if backend == "eager" else tg.compile(function, backend=backend)
    x = operands(tg)[0].detach()
    for factor in (0.3, 0.7):
        expected = OPTIONS[name](torch.nn.functional, torch.tensor(x.tolist()), factor)
        found = compiled(x, tg.tensor(factor))
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_step_of_an_optimiser_of_ones_own_compiles_once(backend):
    class Descent(tg.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @tg.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"])

    w = tg.nn.Parameter(tg.ones(3))
    opt = Descent([w], 0.5)

    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()

    compiled = tg.compile(step, backend=backend)
    expected = np.ones(3, np.float32)
    for lr in (0.5, 0.25, 0.125):
        opt.param_groups[0]["lr"] = lr
        compiled(tg.ones(3))
        expected -= lr
        assert w.tolist() == expected.tolist()
    assert compiled.stats()["compiles"] == 1


def test_a_changing_factor_needs_no_new_program():
    x, y = operands(tg)
    tg.addcdiv(x, y, y + 5, value=0.1)
    programs = len(eager._programs)
    for step in range(5):
        tg.addcdiv(x, y, y + 5, value=0.2 + step)
    assert len(eager._programs) == programs


@pytest.mark.parametrize("make", [float, tg.tensor])
def test_integer_tensors_take_no_fraction(make):
    x = tg.tensor([1, 2])
    with pytest.raises(tg.errors.ShapeError, match="alpha must be an integer"):
        x.add(x, alpha=make(0.5))
