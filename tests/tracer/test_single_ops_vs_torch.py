"""Corners of single ops, in every mode: 0-d tensors, integer and bool dtypes, results' dtypes."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

X = np.random.default_rng(2).uniform(0.1, 0.9, (3, 4)).astype(np.float32)
S = np.float32(5)
Z = np.array([0.0, 2.0, -1.0, 0.0], np.float32)
I = np.array([3, 20, 1], np.int64)
B8 = np.array([[100, 100], [7, 1]], np.int8)
FLAGS = np.array([True, False, True, False])
AT = np.array([0, 1, 0, 3, 3], np.int64)
SOURCES = {
    np.bool_: (FLAGS, np.array([False, True, False, True, False])),
    np.uint8: (np.array([5, 6, 7, 8], np.uint8), np.array([200, 3, 250, 4, 9], np.uint8)),
    np.int8: (np.array([5, -6, 7, 8], np.int8), np.array([-3, 3, -100, 4, 9], np.int8)),
    np.int64: (np.array([5, -6, 7, 8]), np.array([-(2**63), 3, 2**63 - 1, 4, 9])),
    np.float32: (Z, np.array([2.0, -3.0, 0.5, np.inf, 1.0], np.float32)),
}
REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def at(t, *values):
    return t.tensor(values[0] if len(values) == 1 else list(values))


CALLS = {
    "vander": (lambda t, F, x: [t.vander(x[0].detach()), t.vander(x[0].detach(), 2), t.vander(
        x[0].detach(), increasing=True)], X),
    "vander of integers": (lambda t, F, x: [t.vander(x.to(t.uint8), 6), t.vander(x, N=0)], I),
    "linalg.vander": (lambda t, F, x: [t.linalg.vander(x), t.linalg.vander(x[0, 0], N=3)], X),
    "linalg.vander of integers": (lambda t, F, x: t.linalg.vander(x.to(t.int32), N=4), I),
    "circular": (lambda t, F, x: [F.pad(x[None], pads, mode="circular") for pads in (
        (-1, 1), (1, -1), (-2, -1), (3, -1), (1, 4), (0, -3))], X),
    "circular of two": (lambda t, F, x: F.pad(x[None, None], (-1, 1, -1, 1), mode="circular"), X),
    "scatter 0-d": (lambda t, F, x: [
        x.scatter_add(0, at(t, 0), t.tensor(2.0)), x.scatter(0, at(t, 0), 3.0),
        x.scatter(0, t.tensor([0]), t.tensor([2.0]))], S),
    "scatter_reduce 0-d": (lambda t, F, x: [
        x.scatter_reduce(0, at(t, 0), t.tensor(2.0), name, include_self=own)
        for name in REDUCTIONS for own in (True, False)], S),
    "scatter at a 0-d place": (lambda t, F, x: x[0].scatter(0, at(t, 1), t.tensor(2.0)), X),
    "scatter nothing": (lambda t, F, x: [
        x.detach().scatter_add(0, t.zeros(2, 0, dtype=t.int64), x.detach()),
        x.detach().gather(1, t.zeros(3, 0, dtype=t.int64))], X),
    "gather 0-d": (lambda t, F, x: [
        x.gather(0, at(t, 0)), x.gather(0, t.tensor([0, 0, 0])), x.reshape(1).gather(0, at(t, 0))], S),
    "index 0-d": (lambda t, F, x: [
        x.index_fill(0, at(t, 0), 2.0), x.index_fill(0, t.tensor([0]), 3.0),
        x.index_copy(0, at(t, 0), x * 2), x.index_add(0, at(t, 0), x * 2, alpha=-1),
        x.index_select(0, t.tensor([0])), x.index_select(0, at(t, 0))], S),
    "index_fill twice": (lambda t, F, x, v: [
        x.index_fill(1, t.tensor([0, 0, 1]), v), x.index_fill(0, t.tensor([-1]), 2.0)], X, S),
    "einsum": (lambda t, F, x: [t.einsum(e, *[x] * (e.count(",") + 1)) for e in (
        "ij->i", "ij->", "ij,jk->ik", "ij,jk->", "ij,kl->i", "ii", "ii->i", "ij,kl->ijkl")], B8),
    "einsum of three": (lambda t, F, x: t.einsum("i,j,k->ik", x[0], x[1], x[0]), B8),
    "einsum of ones": (lambda t, F, x: [
        t.einsum("ij->i", x[:, :1]), t.einsum("ij,j->i", x[:, :1], x[0, :1])], B8),
    "isclose": (lambda t, F, x: [
        t.isclose(x, x + 1, rtol=0, atol=0), t.isclose(x, x + 1, rtol=0, atol=1.5),
        t.isclose(x + 2**60, x + 2**60 + 1, rtol=0, atol=0), t.isclose(x + 2**60, x + 2**60 + 1)], I),
    "norms": (lambda t, F, x: [t.norm(x, p) for p in (0.5, -1, -0.5, 0.9, 1.5, 3)], Z),
    "norms of zeros": (lambda t, F, x: [t.norm(x, p) for p in (0.5, -1, 0.9, 1.5)], Z * 0),
    "unfold 0-d": (lambda t, F, x: [x.unfold(0, 1, 1), x.unfold(0, 0, 1)], S),
    "triangles": (lambda t, F, x: [
        t.triu_indices(3, 2), t.triu_indices(3, 4, 1, dtype=t.int32), t.tril_indices(3, 4, -1),
        t.tril_indices(0, 2, dtype=t.int32)], X),
    "square of bools": (lambda t, F, x: [t.square(x), x.square()], FLAGS),
    "any of bytes": (lambda t, F, x: [
        x.any(), x.all(), x.any(0), x.all(1, keepdim=True), x[:0].any(), x[:0].all(0),
        (x > 1).any()], np.array([[0, 1], [2, 3]], np.uint8)),
    "unravel_index": (lambda t, F, x: list(t.unravel_index(x.to(t.int32), (5, 7))), I),
    "bincount": (lambda t, F, x, w: [
        t.bincount(x), t.bincount(x, w.detach()), t.bincount(x, x),
        t.bincount(x, w > 1, minlength=30)], I, Z[:3]),
    "bincount of nothing": (lambda t, F, x: [t.bincount(x[:0]), t.bincount(x[:0], x[:0], 2)], I),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_call(name, mode):
    call, *arrays = CALLS[name]
    agree_everywhere(mode, call, *arrays, legal=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", SOURCES)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scatter_reduce(reduce, own, dtype, mode):
    agree_everywhere(
        mode, lambda t, F, x, i, y: x.scatter_reduce(0, i, y, reduce, include_self=own),
        SOURCES[dtype][0], AT, SOURCES[dtype][1], grad=False,
    )  # fmt: skip


REFUSED = {
    "vander of a matrix": (lambda t, F, x: t.vander(x), X),
    "vander of a negative number": (lambda t, F, x: t.vander(x[0], -1), X),
    "linalg.vander of one": (lambda t, F, x: t.linalg.vander(x, N=1), X),
    "circular padding above the size": (lambda t, F, x: F.pad(x[None], (0, 5), mode="circular"), X),
    "index_fill of a vector": (lambda t, F, x: x.index_fill(0, t.tensor([0]), t.tensor([1.0])), X),
    "two indices of a 0-d tensor": (lambda t, F, x: x.index_select(0, t.tensor([0, 0])), S),
    "isclose of two dtypes": (lambda t, F, x: t.isclose(x, x.double()), X),
    "isclose with a negative tolerance": (lambda t, F, x: t.isclose(x, x, rtol=-1.0), X),
    "bincount of floats": (lambda t, F, x: t.bincount(x[0]), X),
    "bincount of a matrix": (lambda t, F, x: t.bincount(x.long()), X),
    "bincount of a negative number": (lambda t, F, x: t.bincount(-x), I),
    "bincount with too many weights": (lambda t, F, x: t.bincount(x, t.ones(4)), I),
    "a negative minlength": (lambda t, F, x: t.bincount(x, minlength=-1), I),
    "unravel_index of floats": (lambda t, F, x: t.unravel_index(x, (3, 4)), X),
    "a negative number of rows": (lambda t, F, x: t.triu_indices(-2, 2), X),
    "a triangle of floats": (lambda t, F, x: t.tril_indices(2, 2, dtype=t.float32), X),
    "a misspelt option": (lambda t, F, x: t.triu_indices(2, 2, ofset=1), X),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, mode):
    call, *arrays = REFUSED[name]
    with pytest.raises(Exception):  # noqa: B017  (PyTorch's own)
        agree_everywhere("torch", call, *arrays, legal=True)
    agree_everywhere(mode, call, *arrays)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_nonzero_of_0d(value):
    import tracegrad as tg

    (found,) = tg.tensor(value).nonzero(as_tuple=True)
    assert found.tolist() == [0] * bool(value) and found.dtype is tg.int64
