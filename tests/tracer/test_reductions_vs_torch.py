"""Reductions, running reductions, norms, sorting and selection against PyTorch."""

import numpy as np
import pytest
import torch
from torch_oracle import agree, bools, convert, floats, integers

from tracegrad.tracer import functions as F

SHAPES = [(3, 4), (2, 3, 4), (1, 5)]
DIMS = [None, 0, -1, (0, 1)]


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "nansum", "nanmean"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions(name, dim, keepdim):
    ours, theirs = getattr(F, name), getattr(torch, name)
    for shape in SHAPES:
        if name in ("amax", "amin") and dim is None:
            agree(ours, theirs, floats(*shape))
        else:
            agree(ours, theirs, floats(*shape), dim, keepdim)
    agree(ours, theirs, floats())


@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
@pytest.mark.parametrize("dim", DIMS)
def test_moments(name, dim):
    ours, theirs = getattr(F, name), getattr(torch, name)
    agree(ours, theirs, floats(3, 4), dim)
    agree(ours, theirs, floats(3, 4), dim, correction=0, keepdim=True)
    agree(ours, theirs, floats(3, 4), dim, unbiased=False)
    agree(ours, theirs, floats(3, 4), dim, correction=2)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
def test_moments_of_one_element():
    agree(F.var, torch.var, floats(1), grad=False)
    agree(F.std, torch.std, torch.full((4,), 2.0, dtype=torch.float64))  # gradient 0, not nan
    agree(F.std, torch.std, floats(5), False)


def test_integer_and_bool_sums():
    for dtype in (torch.int32, torch.uint8, torch.int64):
        x = integers(3, 4, low=1, high=5, dtype=dtype)
        for name in ("sum", "prod"):
            agree(getattr(F, name), getattr(torch, name), x)
            agree(getattr(F, name), getattr(torch, name), x, 1)
        agree(F.cumsum, torch.cumsum, x, 0)
        agree(F.cumprod, torch.cumprod, x, 0)
        agree(F.mean, torch.mean, x, dtype=torch.float32)
    agree(F.sum, torch.sum, bools(3, 4))
    agree(F.sum, torch.sum, integers(3, dtype=torch.int32), dtype=torch.float32)
    (mine, _) = convert((integers(3),), False)
    with pytest.raises((RuntimeError, TypeError), match="mean"):
        F.mean(*mine)


def test_prod():
    x = floats(3, 4)
    agree(F.prod, torch.prod, x)
    agree(F.prod, torch.prod, x, 1)
    agree(F.prod, torch.prod, x, 0, True)
    zero = torch.tensor([[0.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    agree(F.prod, torch.prod, zero)
    agree(F.prod, torch.prod, zero, 1)


@pytest.mark.parametrize("name", ["max", "min", "median", "cummax", "cummin", "nanmedian", "mode"])
def test_values_and_indices(name):
    ours, theirs = getattr(F, name), getattr(torch, name)
    for shape in SHAPES:
        for dim in (0, -1):
            agree(ours, theirs, floats(*shape), dim)
            if name not in ("cummax", "cummin"):
                agree(ours, theirs, floats(*shape), dim, keepdim=True)
    agree(ours, theirs, floats(), 0)
    agree(ours, theirs, integers(5, 6, high=30), 1) if name not in ("median", "mode") else None


@pytest.mark.parametrize("name", ["max", "min", "median", "nanmedian"])
def test_of_all(name):
    agree(getattr(F, name), getattr(torch, name), floats(3, 5))
    agree(getattr(F, name), getattr(torch, name), torch.tensor([1.0, np.nan, 3.0]), grad=False)
    if "max" in name or "min" in name:
        agree(getattr(F, name), getattr(torch, name), torch.tensor([1.0, 3.0, 3.0, 1.0]))
        agree(getattr(F, name), getattr(torch, name), floats(3, 4), floats(4))


def test_mode_of_repeated_values():
    x = integers(4, 9, high=3)
    values, _ = F.mode(convert((x,), False)[0][0], 1)
    assert np.array_equal(values.numpy(), torch.mode(x, 1).values.numpy())


def test_nan_in_selections():
    x = torch.tensor([[1.0, np.nan, 3.0, 2.0], [4.0, 2.0, 8.0, 1.0]])
    for name in ("max", "min", "cummax", "cummin"):
        agree(getattr(F, name), getattr(torch, name), x, 1, grad=False)
    for name in ("median", "nanmedian"):
        agree(getattr(F, name), getattr(torch, name), x, 1, grad=False)
    for name in ("argmax", "argmin", "amax", "amin", "logsumexp"):
        agree(getattr(F, name), getattr(torch, name), x, 1, grad=False)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name):
    ours, theirs = getattr(F, name), getattr(torch, name)
    for x in (floats(3, 4), integers(3, 4, high=3)):
        agree(ours, theirs, x, grad=False)
        agree(ours, theirs, x, 1, grad=False)
        agree(ours, theirs, x, 0, True, grad=False)
    agree(ours, theirs, floats(), grad=False)


@pytest.mark.parametrize("name", ["any", "all"])
def test_any_all(name):
    ours, theirs = getattr(F, name), getattr(torch, name)
    agree(ours, theirs, bools(3, 4))
    agree(ours, theirs, bools(3, 4), 1, True)
    agree(ours, theirs, integers(3, 4, high=2), 0)
    agree(ours, theirs, torch.zeros(0, 3), 0, grad=False)


def test_empty():
    x = torch.zeros(0, 3, dtype=torch.float64)
    for name in ("sum", "prod", "mean"):
        agree(getattr(F, name), getattr(torch, name), x, grad=False)
        agree(getattr(F, name), getattr(torch, name), x, 0, grad=False)
    (mine, _) = convert((x,), False)
    for name in ("amax", "argmax", "max"):
        with pytest.raises((RuntimeError, TypeError, IndexError)):
            getattr(F, name)(mine[0], 0) if name != "amax" else F.amax(mine[0])


def test_dims_are_checked():
    (mine, _) = convert((floats(3, 4),), False)
    for call in (
        lambda x: F.sum(x, 2),
        lambda x: F.argmax(x, -3),
        lambda x: F.sum(x, (0, 0)),
        lambda x: F.cumsum(x, 5),
    ):
        with pytest.raises(IndexError):
            call(mine[0])


def test_counting():
    agree(F.count_nonzero, torch.count_nonzero, integers(3, 4, high=2))
    agree(F.count_nonzero, torch.count_nonzero, integers(3, 4, high=2), 1)
    agree(F.aminmax, torch.aminmax, floats(3, 4), dim=1)
    agree(F.equal, torch.equal, integers(3), integers(3))
    agree(F.allclose, torch.allclose, torch.ones(3), torch.ones(3) + 1e-9)


@pytest.mark.parametrize("dim", [0, 1, (0, 1), -1])
def test_logsumexp(dim):
    agree(F.logsumexp, torch.logsumexp, floats(3, 4) * 30, dim)
    agree(F.logsumexp, torch.logsumexp, floats(3, 4), dim, True)


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp"])
def test_running(name):
    for dim in (0, 1, -1):
        agree(getattr(F, name), getattr(torch, name), floats(3, 4), dim)
    agree(getattr(F, name), getattr(torch, name), floats(), 0)


def test_differences():
    agree(F.diff, torch.diff, floats(3, 5))
    agree(F.diff, torch.diff, floats(5, 3), 2, 0)
    agree(F.trapezoid, torch.trapezoid, floats(3, 5), dx=0.5)


@pytest.mark.parametrize("p", [2, 1, 3.5, 0, float("inf"), -float("inf"), "fro"])
@pytest.mark.parametrize("dim", [None, 1])
def test_norm(p, dim):
    if p == "fro" and dim == 1:
        agree(F.norm, torch.norm, floats(3, 4), p, dim, True)
        return
    agree(F.norm, torch.norm, floats(3, 4), p, dim)
    if p != "fro":
        agree(F.vector_norm, torch.linalg.vector_norm, floats(3, 4), p, dim)


def test_norm_at_zero():
    agree(F.norm, torch.norm, torch.zeros(4, dtype=torch.float64))
    agree(F.norm, torch.norm, torch.zeros(4, dtype=torch.float64), 3)


@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf")])
def test_matrix_norm(order):
    agree(F.matrix_norm, torch.linalg.matrix_norm, floats(2, 3, 4), order, rtol=1e-7)


def test_distances():
    T = torch.nn.functional
    agree(F.normalize, T.normalize, floats(3, 4), dim=1)
    agree(F.normalize, T.normalize, floats(3, 4), 1.0, 0)
    agree(F.cosine_similarity, T.cosine_similarity, floats(3, 4), floats(3, 4))
    agree(F.pairwise_distance, T.pairwise_distance, floats(3, 4), floats(3, 4))
    agree(F.cdist, torch.cdist, floats(3, 4), floats(5, 4))
    agree(F.cdist, torch.cdist, floats(2, 3, 4), floats(2, 5, 4), 1.0)
    exactly = "donot_use_mm_for_euclid_dist"
    agree(F.cdist, torch.cdist, floats(3, 4), floats(5, 4), compute_mode=exactly)
    agree(F.renorm, torch.renorm, floats(3, 4), 2.0, 0, 1.0)


@pytest.mark.parametrize("descending", [False, True])
def test_sort(descending):
    for dim in (0, -1):
        agree(F.sort, torch.sort, floats(4, 5), dim, descending)
        agree(F.argsort, torch.argsort, floats(4, 5), dim, descending, grad=False)
    agree(F.sort, torch.sort, torch.tensor([2.0, np.nan, 1.0, np.inf]), 0, descending, grad=False)
    agree(F.sort, torch.sort, floats(), -1)


def test_topk_and_kthvalue():
    agree(F.topk, torch.topk, floats(4, 6), 3)
    agree(F.topk, torch.topk, floats(6, 4), 2, 0, False)
    agree(F.kthvalue, torch.kthvalue, floats(4, 6), 2)
    agree(F.kthvalue, torch.kthvalue, floats(4, 6), 3, 0, True)
    agree(F.msort, torch.msort, floats(4, 3))


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_quantile(interpolation):
    q = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
    agree(F.quantile, torch.quantile, floats(3, 6), q, 1, grad=False, interpolation=interpolation)
    agree(
        F.quantile,
        torch.quantile,
        floats(3, 6),
        0.4,
        0,
        True,
        grad=False,
        interpolation=interpolation,
    )
    agree(F.quantile, torch.quantile, floats(3, 6), 0.5, grad=False, interpolation=interpolation)


def test_searching():
    rows = torch.sort(floats(3, 7), 1).values
    for right in (False, True):
        agree(F.searchsorted, torch.searchsorted, rows, floats(3, 4), right=right, grad=False)
        agree(F.bucketize, torch.bucketize, integers(9), torch.tensor([1, 3, 5, 7]), right=right)
    agree(F.isin, torch.isin, integers(3, 4), torch.tensor([1, 5, 7]))
    agree(F.bincount, torch.bincount, integers(20), minlength=12)
    agree(F.bincount, torch.bincount, integers(20), floats(20), grad=False)
    agree(F.histc, torch.histc, floats(50), 8, -2.0, 2.0, grad=False)
    agree(F.cov, torch.cov, floats(3, 8))
    agree(F.corrcoef, torch.corrcoef, floats(3, 8), grad=False)


def test_data_dependent_shapes():
    x = integers(5, 4, high=3)
    agree(F.nonzero, torch.nonzero, x)
    agree(F.nonzero, torch.nonzero, x, as_tuple=True)
    agree(F.argwhere, torch.argwhere, x)
    agree(F.unique, torch.unique, x)
    agree(F.unique, torch.unique, x, return_inverse=True, return_counts=True)
    agree(F.unique, torch.unique, x, dim=0, return_inverse=True)
    agree(
        F.unique_consecutive, torch.unique_consecutive, x, return_inverse=True, return_counts=True
    )
    agree(F.masked_select, torch.masked_select, floats(3, 4), bools(3, 4))
    agree(
        F.masked_select, torch.masked_select, floats(3, 4), torch.tensor([True, False, True, True])
    )


def test_names_of_numpy():
    x = floats(2, 3, 4)
    for name in ("sum", "mean", "std", "argmax", "amax", "softmax", "cumsum", "logsumexp"):
        agree(lambda t, n=name: getattr(t, n)(axis=1), lambda t, n=name: getattr(t, n)(axis=1), x)
    agree(lambda t: t.sum(axis=-1, keepdims=True), lambda t: t.sum(axis=-1, keepdims=True), x)
    for name in ("cat", "stack"):
        ours, theirs = getattr(F, name), getattr(torch, name)
        agree(lambda t, f=ours: f([t, t], axis=1), lambda t, f=theirs: f([t, t], axis=1), x)
