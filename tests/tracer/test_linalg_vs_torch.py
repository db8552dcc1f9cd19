"""Linear algebra against PyTorch."""

import numpy as np
import pytest
import torch
from everywhere import MODES, agree_everywhere
from torch_oracle import agree, convert, floats, integers, same

import tracegrad as tg
from tracegrad.tracer import functions as F

L = torch.linalg
SHAPES = [(3, 3), (2, 4, 4), (2, 2, 3, 3)]
CLOSE = dict(rtol=1e-6, atol=1e-7)


def regular(*shape):
    return floats(*shape) + 3 * torch.eye(shape[-1], dtype=torch.float64)


def positive(*shape):
    x = floats(*shape)
    return x @ x.mT + torch.eye(shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_square(shape):
    agree(F.inv, L.inv, regular(*shape), **CLOSE)
    agree(F.det, L.det, floats(*shape), **CLOSE)
    agree(F.slogdet, L.slogdet, regular(*shape), **CLOSE)
    agree(F.logdet, torch.logdet, positive(*shape), **CLOSE)
    agree(F.matrix_power, L.matrix_power, regular(*shape), 3, **CLOSE)
    agree(F.matrix_power, L.matrix_power, regular(*shape), -2, **CLOSE)
    agree(F.matrix_power, L.matrix_power, regular(*shape), 0, grad=False)


def test_determinant_of_permutations():
    for order in ([1, 0, 2], [2, 0, 1], [2, 1, 0], [0, 1, 2]):
        agree(F.det, L.det, torch.eye(3, dtype=torch.float64)[order] * 2, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_cholesky(shape):
    agree(
        lambda x: F.cholesky((x + x.mT) / 2),
        lambda x: L.cholesky((x + x.mT) / 2),
        positive(*shape),
        **CLOSE,
    )
    agree(lambda x: F.cholesky((x + x.mT) / 2, upper=True),
    lambda x: L.cholesky((x + x.mT) / 2, upper=True),
          positive(*shape), **CLOSE)  # fmt: skip


@pytest.mark.parametrize(
    "a, b",
    [
        ((3, 3), (3, 2)),
        ((3, 3), (3,)),
        ((2, 3, 3), (2, 3, 4)),
        ((2, 3, 3), (3, 4)),
        ((2, 3, 3), (2, 3)),
    ],
)
def test_solve(a, b):
    agree(F.solve, L.solve, regular(*a), floats(*b), **CLOSE)


def test_solve_variants():
    agree(F.solve, L.solve, regular(3, 3), floats(2, 3), left=False, **CLOSE)
    for upper in (False, True):
        triangular = torch.triu(regular(3, 3)) if upper else torch.tril(regular(3, 3))
        agree(
            F.solve_triangular, L.solve_triangular, triangular, floats(3, 2), upper=upper, **CLOSE
        )
        agree(
            F.solve_triangular,
            L.solve_triangular,
            triangular,
            floats(2, 3),
            upper=upper,
            left=False,
            **CLOSE,
        )
        agree(
            F.solve_triangular,
            L.solve_triangular,
            triangular,
            floats(3, 2),
            upper=upper,
            unitriangular=True,
            **CLOSE,
        )
    agree(
        F.lstsq_solution,
        lambda a, b: L.lstsq(a, b).solution,
        floats(5, 3),
        floats(5, 2),
        grad=False,
        **CLOSE,
    )


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5), (2, 4, 3)])
def test_decompositions(shape):
    def whole_svd(library):
        def run(x):
            u, s, vh = library(x, full_matrices=False)
            return (u * s[..., None, :]) @ vh, s

        return run

    agree(whole_svd(F.svd_parts), whole_svd(L.svd), floats(*shape), rtol=1e-5, atol=1e-6)
    agree(F.svdvals, L.svdvals, floats(*shape), **CLOSE)
    agree(lambda x: F.pinv(x), lambda x: L.pinv(x), floats(*shape), **CLOSE)
    agree(F.matrix_rank, L.matrix_rank, floats(*shape), grad=False)
    if shape[-2] >= shape[-1]:
        agree(
            lambda x: F.matmul(*F.qr(x)), lambda x: torch.matmul(*L.qr(x)), floats(*shape), **CLOSE
        )
        agree(lambda x: F.abs(F.qr(x)[1]), lambda x: torch.abs(L.qr(x)[1]), floats(*shape), **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_eigh(shape):
    agree(
        lambda x: F.eigvalsh((x + x.mT) / 2),
        lambda x: L.eigvalsh((x + x.mT) / 2),
        floats(*shape),
        **CLOSE,
    )
    agree(
        lambda x: F.abs(F.eigh((x + x.mT) / 2)[1]),
        lambda x: torch.abs(L.eigh((x + x.mT) / 2)[1]),
        floats(*shape),
        **CLOSE,
    )


def test_multi_dot():
    agree(
        lambda *x: F.multi_dot(x),
        lambda *x: L.multi_dot(x),
        floats(2, 3),
        floats(3, 4),
        floats(4, 5),
    )


def test_refuses():
    (mine, _) = convert((floats(2, 3), integers(3, 3)), False)
    for call in (lambda: F.inv(mine[0]), lambda: F.det(mine[1]), lambda: F.cholesky(mine[0])):
        with pytest.raises((RuntimeError, TypeError)):
            call()
    same(F.det(convert((torch.zeros(2, 0, 0),), False)[0][0]), torch.ones(2))


def test_namespace():
    from tracegrad import linalg

    x = floats(3, 4)
    for arguments in ((), ("fro",), (1,), (2, 1), (None, 0, True), (float("inf"), (0, 1))):
        agree(linalg.norm, L.norm, x, *arguments, **CLOSE)
    agree(linalg.vecdot, L.vecdot, x, floats(4))
    agree(linalg.inv, L.inv, regular(3, 3), **CLOSE)
    agree(linalg.lstsq, lambda a, b: L.lstsq(a, b).solution, floats(5, 3), floats(5, 2), grad=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "array", [2 * np.eye(3), np.eye(3)[:, :2], np.eye(3)[:2], np.zeros((2, 3)), np.eye(3)[None] * [2, 2, 0]],
    ids=["square", "tall", "wide", "zeros", "a batch without full rank"],
)  # fmt: skip
def test_pinv_of_equal_singular_values_has_gradients(array, mode):
    agree_everywhere(mode, lambda t, F, x: t.linalg.pinv(x), array, legal=True)


def test_second_gradient_of_pinv():
    def twice(library, array):
        x = library.tensor(array, requires_grad=True)
        (first,) = library.autograd.grad(library.linalg.pinv(x)[0].sum(), x, create_graph=True)
        (second,) = library.autograd.grad((first**2).sum(), x)
        return second.numpy()

    for array in (2 * np.eye(3), np.arange(6.0).reshape(2, 3) ** 2):
        np.testing.assert_allclose(twice(tg, array), twice(torch, array), rtol=1e-6, atol=1e-9)
