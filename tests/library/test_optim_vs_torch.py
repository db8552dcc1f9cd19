"""Optimisers against torch.optim: 30 steps with their options, state dicts, groups, clipping."""

import copy

import numpy as np
import pytest
import torch

import tracegrad as tg
from tracegrad import nn, optim

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "amsgrad": True}),
    ("Adam", {"lr": 0.02, "maximize": True}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {"lr": 0.02}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.9, "centered": True, "weight_decay": 0.05}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-2, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.2},
    ),
]
RNG = np.random.default_rng(0)
START = [RNG.standard_normal((3, 4)), RNG.standard_normal(4)]
DATA = RNG.standard_normal((5, 3))
WANTED = RNG.standard_normal((5, 4))


class Problem:
    """A two-parameter least-squares fit in either library."""

    def __init__(self, library, dtype):
        self.lib = library
        parameter = nn.Parameter if library is tg else torch.nn.Parameter
        self.params = [parameter(library.tensor(v.astype(dtype))) for v in START]
        self.x, self.y = (library.tensor(v.astype(dtype)) for v in (DATA, WANTED))

    def loss(self):
        return ((self.x @ self.params[0] + self.params[1] - self.y) ** 2).mean()

    def step(self, opt):
        opt.zero_grad()
        loss = self.loss()
        loss.backward()
        opt.step()
        return loss.item()

    def values(self):
        return [p.detach().numpy() for p in self.params]


def run(name, options, dtype, steps=30):
    ours, theirs = Problem(tg, dtype), Problem(torch, dtype)
    a = getattr(optim, name)(ours.params, **options)
    b = getattr(torch.optim, name)(theirs.params, foreach=False, **options)
    for _ in range(steps):
        ours.step(a)
        theirs.step(b)
    return ours, theirs, a, b


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_thirty_steps(name, options, dtype):
    ours, theirs, a, b = run(name, options, dtype)
    tolerance = dict(rtol=1e-10) if dtype == "float64" else dict(rtol=3e-5, atol=3e-6)
    for mine, other, start in zip(ours.values(), theirs.values(), START):
        assert mine.dtype == other.dtype
        assert np.abs(mine - start).max() > 1e-2
        np.testing.assert_allclose(mine, other, **tolerance)
    mine, other = a.state_dict(), b.state_dict()
    assert mine["param_groups"][0].keys() == other["param_groups"][0].keys()
    ignored = {"foreach"}
    for key, value in other["param_groups"][0].items():
        if key not in ignored:
            assert mine["param_groups"][0][key] == value, key
    filled = {k: {n: s for n, s in v.items() if s is not None} for k, v in other["state"].items()}
    kept = {k: v for k, v in mine["state"].items() if v}
    assert {k: set(v) for k, v in kept.items()} == {k: set(v) for k, v in filled.items() if v}
    for key, slots in kept.items():
        for slot, value in slots.items():
            np.testing.assert_allclose(value.numpy(), filled[key][slot].numpy(), **tolerance)
            assert value.numpy().dtype == filled[key][slot].numpy().dtype


RESUMED = CASES[:4] + CASES[5:8] + CASES[11:13] + CASES[15:]


@pytest.mark.parametrize("name, options", RESUMED, ids=str)
def test_state_dict_resumes_exactly(name, options):
    straight = run(name, options, "float64", 10)[0]
    first, _, opt, _ = run(name, options, "float64", 4)
    saved = copy.deepcopy(opt.state_dict())
    again = Problem(tg, "float64")
    with tg.no_grad():
        for p, v in zip(again.params, first.values()):
            p.copy_(tg.tensor(v.copy()))
    resumed = getattr(optim, name)(again.params, **{**options, "lr": 9.0})
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == options["lr"]
    for _ in range(6):
        again.step(resumed)
    for mine, other in zip(again.values(), straight.values()):
        np.testing.assert_array_equal(mine, other)


def test_loading_writes_existing_slots_in_place():
    problem = Problem(tg, "float64")
    opt = optim.Adam(problem.params)
    problem.step(opt)
    slot = opt.state[problem.params[0]]["exp_avg"]
    saved = copy.deepcopy(opt.state_dict())
    problem.step(opt)
    group = opt.param_groups[0]
    opt.load_state_dict(saved)
    assert opt.state[problem.params[0]]["exp_avg"] is slot and opt.param_groups[0] is group
    np.testing.assert_array_equal(slot.numpy(), saved["state"][0]["exp_avg"].numpy())


def test_groups_with_their_own_options():
    def fit(library, optimisers):
        problem = Problem(library, "float64")
        opt = optimisers.SGD(
            [{"params": problem.params[0], "lr": 0.2}, {"params": [problem.params[1]]}],
            lr=0.01,
            momentum=0.5,
        )
        for _ in range(3):
            problem.step(opt)
        return problem.values(), opt

    (ours, opt), (theirs, _) = fit(tg, optim), fit(torch, torch.optim)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    opt.add_param_group({"params": [nn.Parameter(tg.ones(1))]})
    assert [g["lr"] for g in opt.param_groups] == [0.2, 0.01, 0.01]


def test_named_parameters_are_accepted():
    model = nn.Linear(2, 1)
    opt = optim.SGD(model.named_parameters(), lr=0.1)
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]


def test_parameters_without_gradient_are_left_alone():
    used, unused = nn.Parameter(tg.ones(2)), nn.Parameter(tg.ones(2))
    opt = optim.Adam([used, unused], weight_decay=0.1)
    used.sum().backward()
    opt.step()
    assert (unused.detach().numpy() == 1).all() and (used.detach().numpy() != 1).all()
    assert list(opt.state_dict()["state"]) == [0]


def test_closure():
    problem = Problem(tg, "float64")
    opt = optim.SGD(problem.params, lr=0.1)

    def closure():
        opt.zero_grad()
        loss = problem.loss()
        loss.backward()
        return loss

    before = problem.loss().item()
    assert opt.step(closure).item() == before
    assert problem.loss().item() < before


def test_zero_grad():
    p = nn.Parameter(tg.ones(2))
    opt = optim.SGD([p], lr=0.1)
    p.sum().backward()
    opt.zero_grad(set_to_none=False)
    assert (p.grad.numpy() == 0).all()
    opt.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda p: optim.SGD(p, lr=0.1), TypeError, "iterable of Tensors"),
        (lambda p: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda p: optim.SGD([p, p], lr=0.1), ValueError, "duplicate"),
        (lambda p: optim.SGD([p * 2], lr=0.1), ValueError, "non-leaf"),
        (lambda p: optim.SGD([3.0], lr=0.1), TypeError, "can only optimize Tensors"),
        (lambda p: optim.SGD([{"params": {p}}], lr=0.1), TypeError, "ordered collections"),
        (lambda p: optim.SGD([p], lr=-1.0), ValueError, "Invalid learning rate"),
        (lambda p: optim.SGD([p], lr=0.1, nesterov=True), ValueError, "Nesterov"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), ValueError, "beta parameter at index 0"),
        (
            lambda p: optim.SGD([{"params": p}, {"params": p}], lr=0.1),
            ValueError,
            "more than one parameter group",
        ),
    ],
)
def test_errors(make, error, match):
    with pytest.raises(error, match=match):
        make(nn.Parameter(tg.ones(1)))


def test_load_state_dict_errors():
    opt = optim.SGD([nn.Parameter(tg.ones(1))], lr=0.1)
    other = optim.SGD([nn.Parameter(tg.ones(1)), nn.Parameter(tg.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(other.state_dict())
    state = opt.state_dict()
    state["param_groups"] *= 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict(state)


def test_repr_lists_options():
    text = repr(optim.SGD([nn.Parameter(tg.ones(1))], lr=0.1))
    assert text.startswith("SGD (\nParameter Group 0\n") and "    lr: 0.1\n" in text


@pytest.mark.parametrize("kind", [1.0, 2.0, 3.0, float("inf")])
def test_clip_grad_norm(kind):
    ours, theirs = Problem(tg, "float64"), Problem(torch, "float64")
    ours.loss().backward()
    theirs.loss().backward()
    for limit in (0.5, 1e6):
        a = nn.utils.clip_grad_norm_(ours.params, limit, kind)
        b = torch.nn.utils.clip_grad_norm_(theirs.params, limit, kind)
        np.testing.assert_allclose(a.item(), b.item(), rtol=1e-12)
        for p, q in zip(ours.params, theirs.params):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_clip_grad_value_and_vectors():
    ours, theirs = Problem(tg, "float64"), Problem(torch, "float64")
    ours.loss().backward()
    theirs.loss().backward()
    nn.utils.clip_grad_value_(ours.params, 0.1)
    torch.nn.utils.clip_grad_value_(theirs.params, 0.1)
    for p, q in zip(ours.params, theirs.params):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())
    vector = nn.utils.parameters_to_vector(ours.params)
    assert vector.shape == (16,)
    nn.utils.vector_to_parameters(vector.detach() * 0 + 2, ours.params)
    assert all((v == 2).all() for v in ours.values())
    with pytest.raises(ValueError, match="3 elements"):
        nn.utils.vector_to_parameters(tg.ones(3), ours.params)
    ours.params[0].grad.fill_(float("inf"))
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(ours.params, 1.0, error_if_nonfinite=True)


def test_fuse_conv_bn():
    conv, bn = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3).double()
    x = tg.tensor(RNG.standard_normal((2, 2, 5, 5)))
    bn(conv(x))
    conv.eval()
    bn.eval()
    fused = nn.utils.fuse_conv_bn_eval(conv, bn)
    expected = bn(conv(x)).detach().numpy()
    np.testing.assert_allclose(fused(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("when", [0, 2])
def test_dampening_after_a_state_is_loaded(when):
    """A state without momentum begins anew: its first step is not damped."""
    found = []
    for lib in (tg, torch):
        p = lib.nn.Parameter(lib.ones(3))
        opt = lib.optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.5)
        for k in range(6):
            if k == when:
                saved = copy.deepcopy(opt.state_dict())
            if k == 3:
                opt.load_state_dict(saved)
            opt.zero_grad()
            (p * p).sum().backward()
            opt.step()
        found.append(p.detach().numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def averaged_run(lib, compile_):
    """An optimiser written by hand, with a count and a copy of the parameter, reset on its way."""

    class Averaged(lib.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        def step(self):
            with lib.no_grad():
                for p in self.param_groups[0]["params"]:
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"], state["mean"] = 0, p.detach().clone()
                    state["step"] += 1
                    p.add_(p.grad, alpha=-self.param_groups[0]["lr"])
                    state["mean"].mul_(0.5).add_(p, alpha=0.5)
                    p.copy_(state["mean"])

    p = lib.nn.Parameter(lib.ones(3))
    opt = Averaged([p])
    empty = copy.deepcopy(opt.state_dict())

    @compile_
    def step():
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()

    for k in range(6):
        if k == 3:
            opt.load_state_dict(empty)
            assert len(opt.state) == 0
        step()
    return p.detach().numpy(), opt.state[p]["step"]


@pytest.mark.parametrize("backend", ["eager", "numpy", "jax"])
def test_slots_that_are_missing_from_a_loaded_state_are_made_anew(backend):
    found, count = averaged_run(tg, lambda f: tg.compile(f, backend=backend))
    expected, expected_count = averaged_run(torch, lambda f: f)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert count == expected_count == 3
