"""Linear algebra of matrices, or batches, without elements, against PyTorch."""

import numpy as np
import pytest
from everywhere import MODES, agree_everywhere

SQUARE = ((0, 0), (2, 0, 0), (0, 3, 3))
SQUARES = {
    "inv": lambda t, F, x: t.linalg.inv(x),
    "solve": lambda t, F, x: t.linalg.solve(x, t.ones(*x.shape[:-1], 2)),
    "solve a vector": lambda t, F, x: t.linalg.solve(x, t.ones(*x.shape[:-1])),
    "det": lambda t, F, x: t.linalg.det(x),
    "slogdet": lambda t, F, x: list(t.linalg.slogdet(x)),
    "logdet": lambda t, F, x: t.logdet(x),
    "matrix_power": lambda t, F, x: [t.linalg.matrix_power(x, n) for n in (0, 3, -1)],
    "cholesky": lambda t, F, x: t.linalg.cholesky(x),
    "eigvalsh": lambda t, F, x: t.linalg.eigvalsh(x),
}
ANY = {
    "pinv": lambda t, F, x: t.linalg.pinv(x),
    "pinverse": lambda t, F, x: x.pinverse(),
    "matrix_rank": lambda t, F, x: t.linalg.matrix_rank(x),
    "qr": lambda t, F, x: list(t.linalg.qr(x)),
    "svd": lambda t, F, x: list(t.linalg.svd(x, full_matrices=False)),
    "svdvals": lambda t, F, x: t.linalg.svdvals(x),
    "matmul": lambda t, F, x: x @ x.mT,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("name", SQUARES)
def test_square(name, shape, mode):
    agree_everywhere(mode, SQUARES[name], np.zeros(shape, np.float32), grad=False, legal=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [*SQUARE, (0, 2), (3, 0), (0, 2, 5), (2, 0, 5)])
@pytest.mark.parametrize("name", ANY)
def test_any(name, shape, mode):
    agree_everywhere(mode, ANY[name], np.zeros(shape, np.float32), grad=False, legal=True)
