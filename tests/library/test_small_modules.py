"""`special`, `testing`, `utils.checkpoint`, `func.hessian` and `random.fork_rng`, as in PyTorch."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

import tracegrad as tg
from tracegrad.testing import assert_close
from tracegrad.utils.checkpoint import checkpoint, checkpoint_sequential

X = np.linspace(0.05, 0.95, 7).astype(np.float32)
NAMES = """
digamma entr erf erfc erfinv exp2 expit expm1 gammaln log1p logit ndtr ndtri psi round sinc
""".split()


@pytest.mark.parametrize("name", NAMES)
def test_special_functions(name):
    mine, theirs = tg.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    a, b = getattr(tg.special, name)(mine), getattr(torch.special, name)(theirs)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)
    if name != "round":
        a.sum().backward()
        b.sum().backward()
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_special_functions_of_two():
    a, b = tg.special.xlog1py(tg.tensor(X), tg.tensor(X)), torch.tensor(X)
    np.testing.assert_allclose(a.numpy(), torch.special.xlog1py(b, b).numpy(), rtol=1e-5)
    edges = np.array([-1, 0, 1], np.float32)
    np.testing.assert_array_equal(
        tg.special.entr(tg.tensor(edges)).numpy(), torch.special.entr(torch.tensor(edges)).numpy()
    )


def test_assert_close():
    assert_close(tg.ones(2), tg.ones(2) + 1e-6)
    assert_close([tg.ones(2), {"a": 1.0}], [tg.ones(2), {"a": 1.0}])
    assert_close(tg.tensor([np.nan]), tg.tensor([np.nan]), equal_nan=True)
    assert_close(tg.ones(2), tg.ones(2).double(), check_dtype=False)
    for a, b in (
        (tg.ones(2), tg.ones(2) + 1e-3),
        (tg.ones(2), tg.ones(3)),
        (tg.ones(2), tg.ones(2).double()),
        (tg.tensor([1]), tg.tensor([2])),
        ([tg.ones(1)], [tg.ones(1), tg.ones(1)]),
        ({"a": 1}, {"b": 1}),
        (tg.tensor([np.nan]), tg.tensor([np.nan])),
    ):
        with pytest.raises(AssertionError):
            assert_close(a, b)


def test_checkpoint_gives_the_same_gradients():
    def both(t, wrap):
        x = t.tensor(X, requires_grad=True)
        wrap(lambda a, b: (a * b).tanh(), x, x, use_reentrant=False).sum().backward()
        return x.grad.numpy()

    np.testing.assert_allclose(both(tg, checkpoint), both(torch, torch_checkpoint), rtol=1e-5)
    layers = [tg.nn.Linear(7, 7), tg.nn.Tanh()]
    expected = layers[1](layers[0](tg.tensor(X)))
    np.testing.assert_array_equal(
        checkpoint_sequential(layers, 2, tg.tensor(X)).detach().numpy(), expected.detach().numpy()
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_second_derivatives():
    def f(x):
        return (x**3).sum() * x[0]

    for name in ("hessian", "jacfwd"):
        mine = getattr(tg.func, name)(f)(tg.tensor(X)).numpy()
        theirs = getattr(torch.func, name)(f)(torch.tensor(X)).numpy()
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


def test_a_fork_of_the_stream():
    tg.manual_seed(1)
    with tg.random.fork_rng():
        tg.rand(3)
    first = tg.rand(3)
    tg.manual_seed(1)
    np.testing.assert_array_equal(first.numpy(), tg.rand(3).numpy())


def test_an_axis_that_vmap_cannot_have():
    with pytest.raises(IndexError, match=r"(?s)in_dims 3.*test_small_modules.py"):
        tg.vmap(lambda x: x, in_dims=3)(tg.ones(2))


def test_dictionaries_of_members_lose_them_as_in_pytorch():
    def keys(lib):
        modules = lib.nn.ModuleDict({"a": lib.nn.Identity(), "b": lib.nn.Identity()})
        parameters = lib.nn.ParameterDict({"a": lib.ones(1), "b": lib.zeros(1)})
        found = [modules.pop("a") is not None, parameters.pop("b").tolist()]
        found += [list(modules), "a" in modules, list(parameters), "a" in parameters]
        modules.clear(), parameters.clear()
        return [*found, len(modules), len(parameters), list(parameters.keys())]

    assert keys(tg) == keys(torch)


def test_a_padding_row_outside_the_table_is_refused():
    for layer in (tg.nn.Embedding, tg.nn.EmbeddingBag):
        with pytest.raises(tg.errors.InvalidValueError, match="within num_embeddings"):
            layer(3, 2, padding_idx=3)
        with pytest.raises(tg.errors.UnsupportedError, match=r"max_norm=1\.0"):
            layer(3, 2, max_norm=1.0)
