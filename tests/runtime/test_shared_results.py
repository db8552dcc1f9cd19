"""Results that are one tensor, or share memory, are so after every run, as in eager."""

import pytest

import tracegrad as tg
from tests.runtime.programs import BACKENDS


def same_tensors(compile_):
    state = tg.zeros(3)

    def f(x):
        y = x * 2
        part, apart, seen = y[:2], y.detach(), state[:1]
        return y, apart, y, part, {"part": part}, apart, seen, seen

    g = compile_(f)
    for _ in range(2):
        y, apart, again, part, inside, apart_again, seen, seen_again = g(tg.ones(3))
        yield y is again, part is inside["part"], apart is apart_again, seen is seen_again
        y.add_(1)
        yield y, apart, part


def detached_first(compile_):
    weight = tg.ones(3, requires_grad=True)

    def f(x):
        y = weight * x
        return y.detach(), y, y.detach()[:2]

    g = compile_(f)
    for _ in range(2):
        weight.grad = None
        apart, y, part = g(tg.ones(3) * 2)
        yield apart.requires_grad, y.requires_grad, part.requires_grad
        y.sum().backward()
        yield weight.grad
        apart.add_(1)
        yield apart, y, part


def two_detached(compile_):
    def f(x):
        y = x * 2
        return y.detach(), y.detach()

    g = compile_(f)
    one, other = g(tg.ones(3))
    one.add_(1)
    yield one is other, one, other


def leaf_on_a_result(compile_):
    def f(x):
        y = x * 2
        leaf = y.detach().requires_grad_()
        (leaf**2).sum().backward()
        return y, leaf, leaf.grad

    g = compile_(f)
    for k in range(2):
        y, leaf, grad = g(tg.ones(3) * k)
        yield leaf.is_leaf, leaf.requires_grad, y.requires_grad, leaf.grad is grad, grad
        y.add_(1)
        yield leaf
        (leaf * 3).sum().backward()
        yield leaf.grad


def plain(value):
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.tolist() if isinstance(value, tg.Tensor) else value


PROGRAMS = [same_tensors, detached_first, two_detached, leaf_on_a_result]


def test_a_state_that_is_kept_detached_and_returned_is_recorded_once(backend):
    weight = tg.ones(3, requires_grad=True)

    class Holder:
        pass

    holder = Holder()
    holder.state = tg.zeros(3)

    def f(x):
        y = weight * x + holder.state
        holder.state = y.detach()
        return y

    g = tg.compile(f, backend=backend)
    for k in range(4):
        assert g(tg.ones(3)).tolist() == holder.state.tolist() == [k + 1.0] * 3
    assert g.stats()["recordings"] == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_shared_results(program, backend):
    eager = list(map(plain, program(lambda f: f)))
    compiled = program(lambda f: tg.compile(f, backend=backend, fullgraph=True))
    assert list(map(plain, compiled)) == eager


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_returned_part_of_state_whose_base_is_gone_is_that_state(backend):
    part = tg.zeros(4)[1:3]

    def count(x):
        part.add_(x)
        return part[0], part.view(1, 2), part.detach()

    run = tg.compile(count, backend=backend, fullgraph=True)
    for k in range(1, 4):
        first, whole, alias = run(tg.ones(()))
        first.add_(10.0)
        whole.mul_(2.0)
        alias.sub_(1.0)
        assert part[0].item() == 21.0 * (2**k - 1)
        assert first.item() == part[0].item() and alias.tolist() == part.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_flow_into_what_is_written_through_a_returned_view(backend):
    state, weight = tg.zeros(4), tg.tensor([3.0], requires_grad=True)

    def count(x):
        state.add_(x)
        y = x * 2.0
        return state[1:], y[None], state.split(2)[0]

    for run in (count, tg.compile(count, backend=backend, fullgraph=True)):
        view, fresh, piece = run(tg.ones(4))
        view.mul_(weight)
        fresh[0, :1].mul_(weight)
        (state.sum() + fresh.sum()).backward()
        assert weight.grad.tolist() == [3.0 + 2.0]
        with pytest.raises(tg.errors.InPlaceError, match="split"):
            piece.mul_(weight)
        weight.grad = None
        state.detach_().zero_()
