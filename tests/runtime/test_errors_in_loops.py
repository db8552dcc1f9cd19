"""What goes wrong inside loops and branches is raised in every mode, and state stays as it was."""

import numpy as np
import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS

MODES = ["eager", *BACKENDS]


def until_not_positive(x, start, bound=None):
    return tg.while_loop(lambda i: x[i] > 0, lambda i: (i + 1,), (start,), max_trips=bound)[0]


def until_divided(n, start):
    return tg.while_loop(lambda i: n // i > 1, lambda i: (i - 1,), (start,))[0]


def branch(x, start):
    return tg.cond(start >= 0, lambda: until_not_positive(x, start), lambda: start)


def grown(y, bound):
    return tg.while_loop(lambda y: y.sum() < 100, lambda y: (y + 1,), (y,), max_trips=bound)[0]


def gradient(x, start):
    """Backward runs the condition again, as part of a scan over the bound."""
    w = tg.ones(4, requires_grad=True)
    loop = tg.while_loop(
        lambda i, s: x[i] > 0, lambda i, s: (i + 1, s + w[i]), (start, tg.zeros(())), max_trips=6
    )
    loop[1].backward()
    return w.grad


FOUND, NEVER = tg.tensor([1.0, 1.0, 0.0, 1.0]), tg.ones(4)
ZERO = tg.tensor(0)
PROGRAMS = {
    "index in a condition": (until_not_positive, (FOUND, ZERO), 2, (NEVER, ZERO), IndexError),
    "division in a condition": (
        until_divided, (tg.tensor(3), tg.tensor(2)), 2, (tg.tensor(9), tg.tensor(2)), ZeroDivisionError,
    ),
    "loop in a branch": (branch, (FOUND, ZERO), 2, (NEVER, ZERO), IndexError),
    "gradient of a loop": (gradient, (FOUND, ZERO), [1, 1, 0, 0], (NEVER, ZERO), IndexError),
    "bound": (
        lambda y: grown(y, 4), (tg.full((3,), 33.0),), [34, 34, 34], (tg.zeros(3),), RuntimeError,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_error_in_control_flow_reaches_the_caller(name, mode):
    function, good, wanted, bad, error = PROGRAMS[name]
    calls = tg.zeros(2)

    def step(*values):
        result = function(*values)
        calls.add_(1)
        return result

    run = step if mode == "eager" else tg.compile(step, backend=mode)
    for count in (1, 2):
        np.testing.assert_array_equal(run(*good).numpy(), wanted)
        assert calls.tolist() == [count, count]
    with pytest.raises(error):
        run(*bad).numpy()
    assert calls.tolist() == [2, 2]
    np.testing.assert_array_equal(run(*good).numpy(), wanted)  # told once
    assert calls.tolist() == [3, 3]


def divided(n):
    return tg.cond(n != 0, lambda n: 12 // n, lambda n: n - 1, (n,))


def divisors_summed(n):
    return tg.while_loop(
        lambda n, total: n > 0, lambda n, total: (n - 1, total + 12 // n), (n, tg.tensor(0))
    )[1]


def picked(n):
    """A gradient through a branch that reads out of range for examples that do not take it."""
    x = tg.arange(4.0) ** 2
    return tg.func.grad(lambda w: tg.cond(n < 4, lambda w: w * w * x[n], lambda w: w, (w,)))(
        tg.tensor(3.0)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("one", [divided, divisors_summed, picked])
def test_examples_of_vmap_raise_for_what_they_take_only(one, mode):
    n = tg.tensor([2, 0, 5, 3])
    batched = tg.func.vmap(one)
    if mode != "eager":
        batched = tg.compile(batched, backend=mode)
    expected = [float(one(tg.tensor(k))) for k in n.tolist()]
    assert batched(n).tolist() == expected


@pytest.mark.parametrize("mode", MODES)
def test_an_example_of_vmap_raises_for_what_it_takes(mode):
    batched = tg.func.vmap(lambda n: tg.cond(n < 3, lambda n: 12 // n, lambda n: n, (n,)))
    if mode != "eager":
        batched = tg.compile(batched, backend=mode)
    assert batched(tg.tensor([1, 4])).tolist() == [12, 4]
    assert batched(tg.tensor([7, 4])).tolist() == [7, 4]
    with pytest.raises(tg.TracegradError, match="zero"):
        batched(tg.tensor([1, 0])).tolist()


@pytest.mark.parametrize("place", ["in a piece", "in the last program", "beside unread state"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_of_pieces_changes_all_or_nothing(backend, place):
    """Whichever of its programs meets the index, and whichever has the new value of the state."""
    tg.manual_seed(0)
    weight, table, x = tg.randn(3, 3).requires_grad_(), tg.randn(5, 3), tg.randn(4, 3)
    optimizer = tg.optim.SGD([weight], lr=0.1)
    before, after, last = tg.zeros(()), tg.zeros(()), tg.zeros(())

    def step(index, left):
        optimizer.zero_grad()
        before.add_(1)
        z = x
        while left > 1:
            z, left = (z @ weight).tanh(), left * 0.5
        if place == "in a piece":
            loss, result = (z - table[index]).square().sum(), z
        else:
            loss = result = tg.nn.functional.cross_entropy(z @ weight, index)
        if place == "beside unread state":
            last.copy_(left * 3)
        loss.backward()
        optimizer.step()
        after.add_(1)
        return result

    compiled = tg.compile(step, backend=backend, fullgraph=True)
    for turns in (1, 2, 3, 4, 3):
        compiled(tg.tensor([0, 1, 2, 0]), tg.tensor(2.0**turns))
    assert compiled._last.pieces
    last.fill_(-1)
    state = [weight, before, after, last]
    expected = [t.detach().numpy().copy() for t in state]
    with pytest.raises(IndexError):
        compiled(tg.tensor([0, 1, 7, 0]), tg.tensor(8.0)).sum().item()
    for tensor, value in zip(state, expected, strict=True):
        np.testing.assert_array_equal(tensor.detach().numpy(), value)
    compiled(tg.tensor([0, 1, 2, 0]), tg.tensor(8.0))
    assert before.item() == after.item() == 6
