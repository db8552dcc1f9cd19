"""Gradients through functions whose result size depends on values: right, or refused."""

import numpy as np
import pytest
import torch

import tracegrad as tg


def both(call):
    results = []
    for library in (torch, tg):
        w = library.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        results.append((call(library, w), w))
    return results


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("repeats", [[2, 1], [0, 3], [2], 2])
def test_repeat_interleave(dim, repeats):
    if dim is None and repeats in ([2, 1], [0, 3]):
        repeats = [*repeats, 1, 2]

    def call(library, w):
        times = repeats if isinstance(repeats, int) else library.tensor(repeats)
        y = library.repeat_interleave(w * w, times, dim=dim)
        (y * library.arange(y.numel()).reshape(y.shape)).sum().backward()
        return y

    (theirs, a), (mine, b) = both(call)
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy())
    np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy())


def test_repeat_interleave_of_repeats_alone():
    repeats = [1, 0, 2]
    assert tg.repeat_interleave(tg.tensor(repeats)).tolist() == [0, 2, 2]
    assert torch.repeat_interleave(torch.tensor(repeats)).tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    ("repeats", "options"),
    [
        ([2, 1, 1], {}),
        ([-1, 1], {}),
        ([0.5, 1.0], {}),
        ([[1, 1]], {}),
        ([2, 1], {"output_size": 4}),
    ],
)
def test_repeat_interleave_refuses(repeats, options):
    for library in (torch, tg):
        error = tg.TracegradError if library is tg else RuntimeError
        with pytest.raises(error):
            library.repeat_interleave(library.ones(2), library.tensor(repeats), dim=0, **options)


@pytest.mark.parametrize("name", ["unique", "unique_consecutive"])
def test_no_gradient_is_said(name):
    (theirs, a), (mine, b) = both(lambda library, w: getattr(library, name)(w * 1))
    assert theirs.requires_grad and mine.requires_grad
    with pytest.raises(RuntimeError):
        theirs.sum().backward()
    with pytest.raises(
        tg.errors.MissingVJPError, match=f"{name} at .*test_data_dependent_gradients"
    ):
        ((b * b).sum() + mine.sum()).backward()
    assert tg.unique(b.detach()).tolist() == [1.0, 2.0, 3.0, 4.0]
    with tg.no_grad():
        assert not getattr(tg, name)(b).requires_grad


def test_counts_do_not_require_grad():
    _, inverse, counts = tg.unique(
        tg.ones(3, requires_grad=True), return_inverse=True, return_counts=True
    )
    assert not inverse.requires_grad and not counts.requires_grad
    assert not tg.nonzero(tg.ones(3, requires_grad=True)).requires_grad
