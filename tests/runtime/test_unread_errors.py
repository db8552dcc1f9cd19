"""What may be an error for the values of a call is one though nobody reads the result, as in eager mode."""

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_of_what_nobody_reads_are_raised(backend):
    """A decomposition as a check, an index out of range in a value that is thrown away."""

    @tg.compile(backend=backend, fullgraph=True)
    def checked(matrix):
        tg.linalg.cholesky(matrix)
        return matrix.sum()

    for _ in range(2):
        assert checked(tg.eye(2)).item() == 2.0
        with pytest.raises(np.linalg.LinAlgError):
            checked(-tg.eye(2)).item()

    weight = tg.nn.Parameter(tg.ones(3))
    opt = tg.optim.SGD([weight], 0.5)

    @tg.compile(backend=backend, fullgraph=True)
    def step(x, place):
        opt.zero_grad()
        x[place]
        (weight * x).sum().backward()
        opt.step()

    step(tg.ones(3), tg.tensor([1]))
    with pytest.raises(IndexError):
        step(tg.ones(3), tg.tensor([5]))
        weight.tolist()
    assert weight.tolist() == [0.5] * 3
