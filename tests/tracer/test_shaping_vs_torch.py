"""Joining, repeating, padding, indexing, scattering and matrix products against PyTorch."""

from functools import partial

import pytest
import torch
from torch_oracle import agree, bools, convert, floats, integers

import tracegrad as tg
from tracegrad.tracer import functions as F
from tracegrad.tracer.dispatch import apply

TF = torch.nn.functional


def joined(function, dim, *tensors):
    return function(tensors, dim)


def test_joining():
    for dim in (0, 1, -1):
        for name in ("cat", "stack"):
            ours, theirs = (partial(joined, getattr(lib, name), dim) for lib in (F, torch))
            agree(ours, theirs, floats(2, 3), floats(2, 3), floats(2, 3))
    agree(
        lambda *x: F.cat(x, 1), lambda *x: torch.cat(x, 1), floats(2, 3), floats(2, 1), floats(2, 4)
    )
    agree(
        lambda *x: F.cat(x),
        lambda *x: torch.cat(x),
        floats(2),
        integers(3),
        floats(1, dtype=torch.float32),
    )
    agree(
        lambda *x: F.cat(x),
        lambda *x: torch.cat(x),
        torch.zeros(0),
        floats(2, 3, dtype=torch.float32),
    )
    agree(lambda *x: F.stack(x), lambda *x: torch.stack(x), floats(), floats())
    agree(lambda *x: F.hstack(x), lambda *x: torch.hstack(x), floats(2), floats(3))
    agree(lambda *x: F.vstack(x), lambda *x: torch.vstack(x), floats(3), floats(2, 3))
    (mine, _) = convert((floats(2, 3), floats(3, 3)), False)
    with pytest.raises((RuntimeError, TypeError), match="differ outside dimension 1"):
        F.cat(mine, 1)


def test_repeating():
    agree(F.repeat, lambda x, n: x.repeat(n), floats(2, 3), (2, 1))
    agree(F.repeat, lambda x, n: x.repeat(n), floats(3), (2, 2, 3))
    agree(F.tile, torch.tile, floats(2, 3), (2,))
    agree(F.tile, torch.tile, floats(2, 3), (2, 1, 2))
    agree(F.repeat_interleave, torch.repeat_interleave, floats(2, 3), 2)
    agree(F.repeat_interleave, torch.repeat_interleave, floats(2, 3), 3, 1)
    agree(
        F.repeat_interleave,
        torch.repeat_interleave,
        floats(2, 3),
        torch.tensor([1, 2]),
        0,
        grad=False,
    )


def test_flips_and_rolls():
    agree(F.flip, torch.flip, floats(2, 3, 4), (0, 2))
    agree(F.fliplr, torch.fliplr, floats(2, 3))
    agree(F.flipud, torch.flipud, floats(2, 3))
    agree(F.roll, torch.roll, floats(4, 5), 2)
    agree(F.roll, torch.roll, floats(4, 5), (1, -2), (0, 1))
    for k in (-1, 0, 1, 2, 3, 5):
        agree(F.rot90, torch.rot90, floats(2, 3, 4), k, (0, 2))
        agree(F.rot90, torch.rot90, floats(2, 3, 4), k, (2, 1))


@pytest.mark.parametrize("diagonal", [-2, -1, 0, 1, 3])
def test_triangles(diagonal):
    agree(F.tril, torch.tril, floats(2, 3, 4), diagonal)
    agree(F.triu, torch.triu, floats(4, 3), diagonal)
    agree(F.tril_indices, torch.tril_indices, 4, 3, diagonal)
    agree(F.triu_indices, torch.triu_indices, 3, 4, diagonal)
    agree(F.diag, torch.diag, floats(3), diagonal)
    agree(F.diag, torch.diag, floats(3, 4), diagonal)
    agree(F.diag_embed, torch.diag_embed, floats(2, 3), diagonal)
    agree(F.diag_embed, torch.diag_embed, floats(2, 3), diagonal, 0, 2)


def test_grids():
    for indexing in ("ij", "xy"):
        agree(F.meshgrid, torch.meshgrid, floats(3), floats(4), floats(2), indexing=indexing)
    agree(F.cartesian_prod, torch.cartesian_prod, floats(3), floats(2))
    agree(F.trace, torch.trace, floats(3, 4))
    agree(F.vander_increasing, torch.linalg.vander, floats(2, 3))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode):
    for x, amounts in (
        (floats(2, 3, 5), (1, 2)),
        (floats(2, 3, 5, 4), (1, 2, 3, 1)),
        (floats(2, 3, 5), (-1, 2)),
    ):
        if mode == "constant":
            agree(F.pad, TF.pad, x, amounts, mode, 1.5)
        elif min(amounts) >= 0:
            agree(F.pad, TF.pad, x, amounts, mode)
    if mode == "constant":
        agree(F.pad, TF.pad, floats(3, 4), (1, -2, -1, 2))
        agree(F.pad, TF.pad, bools(3, 4), (1, 1), "constant", True)


def test_gather_and_scatter():
    x, index = floats(4, 5), integers(4, 5, high=4)
    agree(F.gather, torch.gather, x, 0, index)
    agree(F.gather, torch.gather, x, 1, index[:3, :2])
    agree(F.gather, torch.gather, x, 0, index[:, :3])
    order = torch.argsort(floats(4, 5), 0)
    agree(F.scatter, torch.scatter, x, 0, order, floats(4, 5))
    agree(F.scatter, torch.scatter, x, 0, order[:, :3], floats(4, 4), grad=False)  # PyTorch cannot
    agree(F.scatter, torch.scatter, x, 0, order, 2.5)
    agree(F.scatter, torch.scatter, x, 0, order[:2], value=1.0)
    agree(F.scatter_add, torch.scatter_add, x, 0, index, floats(4, 5))
    agree(F.scatter_add, torch.scatter_add, x, 1, index[:2, :3], floats(4, 5), grad=False)
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        for include in (True, False):
            agree(
                F.scatter_reduce,
                torch.scatter_reduce,
                x,
                0,
                index,
                floats(4, 5),
                reduce,
                include_self=include,
                grad=reduce == "sum",
            )
    agree(F.take, torch.take, x, torch.tensor([[1, -2], [7, 19]]))
    agree(F.take_along_dim, torch.take_along_dim, x, index[:1], 0)
    agree(F.take_along_dim, torch.take_along_dim, x, index.flatten()[:7])


def test_index_functions():
    x, index = floats(4, 5, 3), torch.tensor([2, 0, 2])
    for dim in (0, 1, -1):
        agree(F.index_select, torch.index_select, x, dim, index)
        shape = list(x.shape)
        shape[dim] = 3
        agree(F.index_add, torch.index_add, x, dim, index, floats(*shape))
        agree(F.index_add, torch.index_add, x, dim, index, floats(*shape), alpha=-2)
        agree(F.index_copy, torch.index_copy, x, dim, torch.tensor([2, 0, 1]), floats(*shape))
        agree(F.index_fill, torch.index_fill, x, dim, torch.tensor([2, 0]), 1.5)


POSITIONS = [
    ((0,), lambda i, j: (i,)), ((1,), lambda i, j: (slice(None), i)),
    ((2,), lambda i, j: (slice(None), slice(None), i)),
    ((0, 1), lambda i, j: (i, j)), ((1, 2), lambda i, j: (slice(None), i, j)),
    ((0, 2), lambda i, j: (i, slice(None), j)),
]  # fmt: skip


@pytest.mark.parametrize(
    "positions, key", POSITIONS, ids=lambda value: str(value) if type(value) is tuple else ""
)
@pytest.mark.parametrize("shapes", [((4,), (4,)), ((2, 1), (3,)), ((2, 2), ())])
def test_advanced_indexing(positions, key, shapes):
    if shapes[1] == () and len(positions) == 2:
        # PyTorch reads a 0-d index as an int; so does the parser of x[...].
        shapes = (shapes[0], (1,))
    x = floats(3, 4, 5)
    used = [integers(*shape, low=-3, high=3) for shape in shapes][: len(positions)]
    agree(
        lambda a, *i: apply(F.index, (a, *i), (positions,)), lambda a, *i: a[at(key, i)], x, *used
    )

    def accumulated(a, v, *i):
        flat = torch.arange(a.numel()).reshape(a.shape)[at(key, i)].reshape(-1)
        return a.reshape(-1).index_add(0, flat, v.reshape(-1)).reshape(a.shape)

    agree(
        lambda a, v, *i: apply(F.index_put_at, (a, v, *i), (positions, True)),
        accumulated,
        x,
        floats(*x[at(key, used)].shape),
        *used,
    )


def at(key, indices):
    """The subscript that puts one or two index tensors in their places."""
    return key(*(*indices, None)[:2])


def test_index_put_stores():
    def theirs(a, v, i, j):
        b = a.clone()
        b[i, :, j] = v
        return b

    i, j = torch.tensor([0, 2, 1]), torch.tensor([3, 0, -1])
    for value in (floats(3, 4), floats(4), floats()):
        agree(
            lambda a, v, *k: apply(F.index_put_at, (a, v, *k), ((0, 2), False)),
            theirs,
            floats(3, 4, 5),
            value,
            i,
            j,
        )


@pytest.mark.parametrize("accumulate", [False, True])
def test_index_put_as_a_function(accumulate):
    i, j = torch.tensor([0, 2, 2]), torch.tensor([1, 3, 3])
    for indices in ((i,), (i, j)):
        x = floats(3, 4, 5)
        value = floats(*x[indices].shape) if accumulate else floats()
        agree(
            lambda a, v, *k: tg.index_put(a, k, v, accumulate),
            lambda a, v, *k: torch.index_put(a, k, v, accumulate),
            x,
            value,
            *indices,
        )


def test_masks():
    agree(F.masked_fill, torch.masked_fill, floats(3, 4), bools(3, 4), -1.0)
    agree(F.masked_fill, torch.masked_fill, floats(3, 4), bools(4), floats())
    agree(
        F.masked_fill,
        torch.masked_fill,
        floats(3, 4, dtype=torch.float32),
        bools(3, 1),
        -float("inf"),
    )
    agree(F.masked_fill, torch.masked_fill, integers(3, 4), bools(3, 4), 7)
    agree(F.masked_scatter, torch.masked_scatter, floats(3, 4), bools(3, 4), floats(12))


def test_embedding_and_one_hot():
    agree(F.embedding, TF.embedding, integers(3, 4, high=6), floats(6, 5))
    agree(F.embedding, TF.embedding, integers(3, 4, high=6), floats(6, 5), 2)
    agree(F.embedding, TF.embedding, torch.tensor(3), floats(6, 5))
    agree(F.one_hot, TF.one_hot, integers(3, 4, high=6), 6)
    agree(F.one_hot, TF.one_hot, integers(3, 4, high=6))


MATMUL = [
    ((3,), (3,)), ((3, 4), (4,)), ((3,), (3, 4)), ((3, 4), (4, 5)), ((2, 3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (2, 4, 5)), ((3, 4), (2, 4, 5)),
    ((6, 3, 4), (1, 4, 5)),
]  # fmt: skip


@pytest.mark.parametrize("a, b", MATMUL, ids=str)
def test_matmul(a, b):
    agree(F.matmul, torch.matmul, floats(*a), floats(*b))
    agree(F.matmul, torch.matmul, integers(*a), integers(*b))


def test_products():
    agree(F.mm, torch.mm, floats(2, 3), floats(3, 4))
    agree(F.bmm, torch.bmm, floats(2, 3, 4), floats(2, 4, 5))
    agree(F.mv, torch.mv, floats(2, 3), floats(3))
    agree(F.dot, torch.dot, floats(3), floats(3))
    agree(F.outer, torch.outer, floats(3), floats(4))
    agree(F.inner, torch.inner, floats(2, 3), floats(4, 5, 3))
    agree(F.addmm, torch.addmm, floats(4), floats(2, 3), floats(3, 4), beta=0.5, alpha=2.0)
    agree(F.addmv, torch.addmv, floats(2), floats(2, 3), floats(3))
    agree(F.baddbmm, torch.baddbmm, floats(2, 3, 5), floats(2, 3, 4), floats(2, 4, 5), alpha=0.5)
    agree(F.addbmm, torch.addbmm, floats(3, 5), floats(2, 3, 4), floats(2, 4, 5))
    agree(F.addr, torch.addr, floats(3, 4), floats(3), floats(4))
    agree(F.tensordot, torch.tensordot, floats(2, 3, 4), floats(3, 4, 5), 2)
    agree(F.tensordot, torch.tensordot, floats(2, 3, 4), floats(4, 5, 2), ([0, 2], [2, 0]))
    agree(F.kron, torch.kron, floats(2, 3), floats(4, 1))
    agree(F.cross, torch.linalg.cross, floats(4, 3), floats(4, 3))
    for shape in ((3,), (2, 3), (2, 4, 3)):
        agree(F.linear, TF.linear, floats(*shape), floats(5, 3), floats(5))
        agree(F.linear, TF.linear, floats(*shape), floats(5, 3))
    agree(F.bilinear, TF.bilinear, floats(2, 3), floats(2, 4), floats(5, 3, 4), floats(5))


EINSUM = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ii->i", (3, 3)), ("ii", (3, 3)), ("ij,ij->i", (2, 3), (2, 3)), ("i,j->ij", (2,), (3,)),
    ("ij,kl->ijkl", (2, 3), (4, 2)),
    ("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)), ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...i,i->...", (2, 3, 4), (4,)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("ij,jk", (2, 3), (3, 4)),
    ("bij,jk->bk", (2, 3, 4), (4, 5)),
    ("nchw,cd->ndhw", (2, 3, 4, 5), (3, 6)), ("b i j, b j -> b i", (2, 3, 4), (2, 4)),
    ("ij,ij->ij", (2, 1), (2, 3)),
    ("iij->j", (3, 3, 2)), ("...->...", (2, 3)), ("ba,ca,da->bcd", (2, 5), (3, 5), (4, 5)),
]  # fmt: skip


@pytest.mark.parametrize("case", EINSUM, ids=lambda c: c[0])
def test_einsum(case):
    equation, *shapes = case
    agree(F.einsum, torch.einsum, equation, *(floats(*shape) for shape in shapes))


def test_einsum_refuses():
    (mine, _) = convert((floats(2, 3), floats(4, 5)), False)
    for equation in ("ij,jk->ik", "ij->i", "ij,jk->iz", "ijk,kl->il"):
        with pytest.raises((RuntimeError, TypeError), match="einsum"):
            F.einsum(equation, *mine)


def test_no_promotion_in_products():
    (mine, _) = convert((floats(2, 3), floats(3, 4, dtype=torch.float32)), False)
    with pytest.raises((RuntimeError, TypeError), match="float64 and float32"):
        F.matmul(*mine)


def test_weights_are_never_broadcast_over_a_batch():
    from tracegrad.ir.graph import Graph, placeholder
    from tracegrad.ir.types import TensorType, f32

    x, w, b = (placeholder(TensorType(s, f32)) for s in ((2, 7, 3), (5, 3), (5,)))
    graph = Graph((x, w, b), (F.FUNCTIONS["linear"].emit(x, w, b),))
    (product,) = (n for n in graph.nodes if n.op.name == "matmul")
    assert [n.shape for n in product.inputs] == [(14, 3), (3, 5)]
