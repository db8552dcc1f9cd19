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


NUMBERS = tg.tensor([1, 2, 3])
UNIMPORTANT = {
    "times zero": lambda i: NUMBERS[i] * 0,
    "minus itself": lambda i: (lambda a: a - a)(NUMBERS[i]),
    "sliced away": lambda i: tg.cat([NUMBERS[i], NUMBERS])[1:],
    "both the same": lambda i: tg.where(NUMBERS[i] > 1, tg.ones(1), tg.ones(1)),
    "filled with what is there": lambda i: tg.ones(3).index_fill_(0, i, 1.0),
    "the other part": lambda i: tg.complex(tg.ones(1), tg.ones(3)[i]).real,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UNIMPORTANT)
def test_of_what_does_not_matter_to_the_result(name, backend):
    """Simplified away, the values are; the error is not."""
    checked = tg.compile(UNIMPORTANT[name], backend=backend, fullgraph=True)
    for run in (UNIMPORTANT[name], checked, checked):
        assert run(tg.tensor([1])).tolist() == UNIMPORTANT[name](tg.tensor([2])).tolist()
        with pytest.raises(IndexError):
            run(tg.tensor([5])).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_fail_costs_nothing(backend):
    """The index is known to be right once its constants are folded."""
    checked = tg.compile(lambda x: x * 2 + NUMBERS[tg.arange(3) - 1] * 0, backend=backend)
    assert checked(tg.ones(3, dtype=tg.int64)).tolist() == [2, 2, 2]
    assert len(checked.graph.outputs) == 1


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
