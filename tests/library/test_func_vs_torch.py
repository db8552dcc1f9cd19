"""Function transforms side by side with `torch.func`: trees, unused inputs, auxiliary results, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg

torch = pytest.importorskip("torch")
# PyTorch warns of itself: its forward mode is written in what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

X = [0.3, -1.2, 2.0]
T = [1.0, 0.5, -2.0]


def values(tree):
    """Tensors of either library as arrays, in the same structure."""
    if isinstance(tree, (tuple, list)):
        return [values(item) for item in tree]
    if isinstance(tree, dict):
        return {key: values(item) for key, item in tree.items()}
    return tree.detach().numpy()


def histories(tree):
    """Whether tensors carry gradients, in the same structure."""
    if isinstance(tree, (tuple, list)):
        return [histories(item) for item in tree]
    if isinstance(tree, dict):
        return {key: histories(item) for key, item in tree.items()}
    return tree.requires_grad


def same(ours, theirs):
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            same(a, b)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            same(ours[key], theirs[key])
    else:
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def double(lib, numbers=X):
    return lib.tensor(numbers, dtype=lib.float64)


def under_no_grad(lib, x):
    with lib.no_grad():
        gradient = lib.func.grad(lambda x: (x**3).sum())(x.requires_grad_())
    assert not gradient.requires_grad
    return gradient


PROGRAMS = {
    "grad-constant": lambda L, x, t: L.func.grad(lambda x: double(L).sum())(x),
    "grad-detached": lambda L, x, t: L.func.grad(lambda x: x.detach().sum())(x),
    "grad-of-grad-linear": lambda L, x, t: L.func.grad(L.func.grad(lambda x: x * 2))(x[0]),
    "grad-under-no-grad": lambda L, x, t: under_no_grad(L, x),
    "hessian-linear": lambda L, x, t: L.func.hessian(lambda x: (x * t).sum())(x),
    "jacrev-unused": lambda L, x, t: L.func.jacrev(lambda x, y: x * 2, argnums=1)(x, t),
    "jacrev-constant": lambda L, x, t: L.func.jacrev(lambda x: double(L))(x),
    "jacrev-number": lambda L, x, t: L.func.jacrev(lambda x, k: x**k)(x, 2),
    "jvp": lambda L, x, t: L.func.jvp(lambda x: x.sin(), (x,), (t,)),
    "jvp-two": lambda L, x, t: L.func.jvp(lambda x, y: x * y.exp(), (x, x * 2), (t, t * t)),
    "jvp-unused": lambda L, x, t: L.func.jvp(lambda x, y: x * 2, (x, x), (t, t)),
    "jvp-constant": lambda L, x, t: L.func.jvp(lambda x: double(L), (x,), (t,)),
    "jvp-flat": lambda L, x, t: L.func.jvp(lambda x: x.sign(), (x,), (t,)),
    "jvp-trees": lambda L, x, t: L.func.jvp(
        lambda d: {"a": d["u"].sin() * d["v"], "b": (d["v"].sum(), d["u"])},
        ({"u": x, "v": x + 1},),
        ({"u": t, "v": t * 3},),
    ),
    "jvp-aux": lambda L, x, t: L.func.jvp(lambda x: (x**3, x + 1), (x,), (t,), has_aux=True),
    "jvp-branch": lambda L, x, t: L.func.jvp(lambda x: x**2 if x.sum() > 0 else x, (x,), (t,)),
    "jvp-of-jvp": lambda L, x, t: L.func.jvp(
        lambda y: L.func.jvp(lambda z: z**3, (y,), (t,))[1], (x,), (t,)
    ),
    "grad-of-jvp-value": lambda L, x, t: L.func.grad(
        lambda y: L.func.jvp(lambda z: z**3, (y,), (t,))[0].sum()
    )(x),
    "grad-of-jvp-tangent": lambda L, x, t: L.func.grad(
        lambda y: L.func.jvp(lambda z: z**3, (y,), (t,))[1].sum()
    )(x),
    "vjp": lambda L, x, t: L.func.vjp(lambda x: x.sin(), x)[1](t),
    "vjp-value": lambda L, x, t: L.func.vjp(lambda x: x.sin(), x)[0],
    "vjp-unused": lambda L, x, t: L.func.vjp(lambda x, y: x * 2, x, x)[1](t),
    "vjp-constant": lambda L, x, t: L.func.vjp(lambda x: double(L), x)[1](t),
    "vjp-tuple": lambda L, x, t: L.func.vjp(lambda x: (x.sin(), x * 2), x)[1]((t, t * t)),
    "vjp-trees": lambda L, x, t: L.func.vjp(
        lambda d: {"a": d["u"] * d["v"], "b": d["u"].sum()}, {"u": x, "v": x + 1}
    )[1]({"a": t, "b": t.sum()}),
    "vjp-aux": lambda L, x, t: L.func.vjp(lambda x: (x * 2, x + 1), x, has_aux=True)[2],
    "vjp-twice": lambda L, x, t: [pull(t) for pull in [L.func.vjp(lambda x: x**3, x)[1]] * 2],
    "grad-of-vjp-value": lambda L, x, t: L.func.grad(
        lambda y: L.func.vjp(lambda z: z**3, y)[0].sum()
    )(x),
    "grad-of-vjp-pull": lambda L, x, t: L.func.grad(
        lambda y: L.func.vjp(lambda z: z**3, y)[1](t)[0].sum()
    )(x),
    "jacrev": lambda L, x, t: L.func.jacrev(lambda x: x.sin() * x.sum())(x),
    "jacrev-argnums": lambda L, x, t: L.func.jacrev(lambda x, y: x * y, argnums=(0, 1))(x, t),
    "jacfwd": lambda L, x, t: L.func.jacfwd(lambda x, y: x * y, argnums=1)(x, t),
    "hessian": lambda L, x, t: L.func.hessian(lambda x: (x**3).sum())(x),
    "vmap-keywords": lambda L, x, t: L.func.vmap(lambda x, scale: x * scale)(x, scale=3),
    "vmap-keyword-tensor": lambda L, x, t: L.func.vmap(lambda x, by=None: (x * by).sum())(x, by=t),
    "vmap-out-dims": lambda L, x, t: L.func.vmap(
        lambda x: (x * t, x + t), out_dims=(1, 0)
    )(L.stack([x, t])),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", ["eager", "numpy", "jax"])
def test_transform(name, mode):
    program = PROGRAMS[name]
    theirs = program(torch, double(torch), double(torch, T))

    def ours(x, t):
        return program(tg, x, t)

    run = ours if mode == "eager" else tg.compile(ours, backend=mode)
    x, t = double(tg), double(tg, T)
    for _ in range(2):
        found = run(x, t)
        same(values(found), values(theirs))
        assert histories(found) == histories(theirs)


def test_results_have_no_history_unless_something_outside_wants_it():
    x, t = double(tg), double(tg, T)
    value, tangent = tg.func.jvp(lambda x: x.sin(), (x,), (t,))
    assert not value.requires_grad and not tangent.requires_grad
    value, pull = tg.func.vjp(lambda x: x.sin(), x)
    assert not value.requires_grad and not pull(t)[0].requires_grad
    weight = double(tg).requires_grad_()
    value, tangent = tg.func.jvp(lambda x: x * weight, (x,), (t,))
    (value.sum() + 2 * tangent.sum()).backward()
    np.testing.assert_allclose(weight.grad.numpy(), (x + 2 * t).numpy())
    weight.grad = None
    value, pull = tg.func.vjp(lambda x: x * weight, x)
    (value.sum() + 2 * pull(t)[0].sum()).backward()
    np.testing.assert_allclose(weight.grad.numpy(), (x + 2 * t).numpy())


REFUSED = {
    "jvp-count": (lambda x: tg.func.jvp(lambda a, b: a * b, (x, x), (x,)), "structure"),
    "jvp-not-tuples": (lambda x: tg.func.jvp(lambda a: a, x, x), "tuples"),
    "jvp-shape": (lambda x: tg.func.jvp(lambda a: a, (x,), (x[:2],)), r"\[2\].*\[3\]"),
    "jvp-number": (lambda x: tg.func.jvp(lambda a: 3.0, (x,), (x,)), "returned float"),
    "vjp-cotangent": (lambda x: tg.func.vjp(lambda a: (a, a), x)[1](x), "structure"),
    "vjp-integer": (lambda x: tg.func.vjp(lambda a: a, 3), "int"),
    "grad-argnums": (lambda x: tg.func.grad(lambda a: a.sum(), argnums=2)(x), "argnums=2"),
    "grad-vector": (lambda x: tg.func.grad(lambda a: a)(x), "one element"),
    "jacrev-argnums": (lambda x: tg.func.jacrev(lambda a: a, argnums=1)(x), "argnums=1"),
    "jacrev-tuple": (lambda x: tg.func.jacrev(lambda a: (a, a))(x), "one tensor"),
    "jacrev-dict": (lambda x: tg.func.jacrev(lambda d: d["a"])({"a": x}), "jacrev.* dict"),
    "vmap-out-dims": (lambda x: tg.func.vmap(lambda a: (a, a), out_dims=(0, 0, 0))(x), "out_dims"),
    "vmap-out-none": (lambda x: tg.func.vmap(lambda a: a, out_dims=None)(x), "out_dims"),
    "vmap-nothing": (lambda x: tg.func.vmap(lambda a: a, in_dims=None)(x), "no argument"),
    "vmap-sizes": (lambda x: tg.func.vmap(lambda a, b: a * b)(x, x[:2]), "batch size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_and_where(name):
    program, words = REFUSED[name]
    with pytest.raises(tg.TracegradError, match=words) as caught:
        program(double(tg))
    assert "test_func_vs_torch.py" in str(caught.value) and "fix:" in str(caught.value)


def functional(lib, call):
    model = lib.nn.Sequential(lib.nn.Linear(2, 2), lib.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    state = {"0.weight": lib.ones(2, 2), "0.bias": lib.zeros(2), "1.bias": lib.ones(2)}
    return model, call(model, state, lib.ones(1, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda L: lambda m, s, x: L.func.functional_call(m, s, x),
        lambda L: lambda m, s, x: L.func.functional_call(m, s, (x,)),
        lambda L: lambda m, s, x: L.func.functional_call(m, s, kwargs={"input": x}),
        lambda L: lambda m, s, x: L.func.functional_call(m, (s, {"unknown": x}), x),
        lambda L: lambda m, s, x: L.func.functional_call(m, s, x, tie_weights=True),
    ],
)
def test_functional_call(call):
    _, theirs = functional(torch, call(torch))
    model, ours = functional(tg, call(tg))
    same(values(ours), values(theirs))
    assert isinstance(model[0].weight, tg.nn.Parameter) and model[1].weight is model[0].weight


def test_functional_call_strict():
    linear = tg.nn.Linear(2, 2)
    with pytest.raises(tg.errors.InvalidValueError, match="unknown"):
        tg.func.functional_call(linear, {"unknown": tg.ones(2)}, tg.ones(2), strict=True)
