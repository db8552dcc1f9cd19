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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decompose", [tg.linalg.eigh, tg.linalg.svd])
def test_of_several_results_too(backend, decompose):
    @tg.compile(backend=backend, fullgraph=True)
    def checked(matrix):
        decompose(matrix)
        return matrix.sum()

    assert checked(tg.eye(2)).item() == 2.0
    with pytest.raises(np.linalg.LinAlgError):
        checked(tg.full((2, 2), float("nan"))).item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_before_a_branch(backend):
    @tg.compile(backend=backend, fullgraph=True)
    def checked(matrix):
        tg.linalg.cholesky(matrix)
        return matrix * 2 if matrix.sum() > 0 else matrix - 1

    assert checked(tg.eye(2)).sum().item() == 4.0
    for wrong in (-tg.eye(2), tg.tensor([[1.0, 2.0], [2.0, 1.0]])):  # one for each branch
        with pytest.raises(np.linalg.LinAlgError):
            checked(wrong).sum().item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_turns_of_a_loop_which_stay_alike(backend):
    def doubled(start, place):
        x = (leaf := start.clone().requires_grad_())
        while x.sum() < 30:
            x[place]
            x, place = x * 2, place + 1
        x.sum().backward()
        return leaf.grad

    compiled = tg.compile(doubled, backend=backend, fullgraph=True)
    for start, place in ((1.0, 0), (1.0, 7), (0.5, 5), (0.5, 6), (0.1, 0), (0.1, 3), (0.1, 1)):
        arguments = tg.full((8,), start), tg.tensor([place])
        try:
            expected = doubled(*arguments).tolist()
        except IndexError:
            with pytest.raises(IndexError):
                compiled(*arguments).tolist()
        else:
            assert compiled(*arguments).tolist() == expected
    assert compiled.stats()["compiles"] <= 6
