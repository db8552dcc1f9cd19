"""Branches and loops on tensor values: a path tree, gradients included, on both backends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tracegrad as tg
from tracegrad.tracer.errors import GraphBreakError


def branch(x: tg.Tensor) -> tg.Tensor:
    y = x * 2
    if y.sum() > 0:
        return y * y
    return y - 1


def newton(a: tg.Tensor) -> tuple[tg.Tensor, int]:
    """Square root by Newton's method; the number of trips depends on the value."""
    x, trips = a, 0
    while (x * x - a).abs().max() > 1e-4:
        x = (x + a / x) / 2
        trips += 1
    return x, trips


def grow(x: tg.Tensor, limit: tg.Tensor) -> tg.Tensor:
    while (x * x).sum() < limit:
        x = x * 1.1
    return x


def test_both_sides_of_a_branch(backend: str) -> None:
    compiled = tg.compile(branch, backend=backend)
    for values in ([1.0, 2.0], [-1.0, -2.0], [3.0, 1.0], [-3.0, 1.0]):
        x = tg.tensor(values)
        assert_allclose(compiled(x).numpy(), branch(x).numpy(), rtol=1e-6)
    assert compiled.stats()["recordings"] == 2


def test_gradients_through_a_branch_from_outside(backend: str) -> None:
    compiled = tg.compile(branch, backend=backend)
    for values in ([1.0, 2.0], [-1.0, -2.0], [1.5, 2.0]):
        grads = []
        for function in (branch, compiled):
            x = tg.tensor(values, requires_grad=True)
            function(x).sum().backward()
            grads.append(x.grad.numpy())
        assert_allclose(grads[1], grads[0], rtol=1e-6)


def test_backward_inside_a_branching_step(backend: str) -> None:
    def make() -> tuple:
        w = tg.tensor([0.5, -0.25], requires_grad=True)

        def step(x: tg.Tensor) -> tg.Tensor:
            w.grad = None
            loss = branch(w * x).sum()
            loss.backward()
            with tg.no_grad():
                w.sub_(w.grad * 0.1)
            return loss

        return w, step

    w, eager = make()
    v, step = make()
    compiled = tg.compile(step, backend=backend)
    for k in range(6):
        x = tg.tensor([1.0, 3.0 * (-1) ** k])
        assert_allclose(float(compiled(x)), float(eager(x)), rtol=1e-5)
        assert_allclose(v.detach().numpy(), w.detach().numpy(), rtol=1e-5)


def test_a_loop_until_convergence_has_few_executables(backend: str) -> None:
    compiled, plain = (tg.compile(grow, backend=backend, fullgraph=True) for _ in range(2))
    for trips in (5, 20, 61, 91):
        limit = tg.tensor(1.1 ** (2 * trips - 1))
        grads = []
        for function in (grow, compiled):
            x = tg.tensor([1.0], requires_grad=True)
            y = function(x, limit)
            y.sum().backward()
            grads.append(x.grad.numpy())
        assert_allclose(grads[0], [1.1**trips], rtol=1e-4)
        assert_allclose(grads[1], grads[0], rtol=1e-4)
        with tg.no_grad():
            assert_allclose(plain(tg.tensor([1.0]), limit).numpy(), [1.1**trips], rtol=1e-4)
    # The first question, a turn; and the gradient of a turn. What is left is handed on as it is.
    assert (plain.stats()["compiles"], compiled.stats()["compiles"]) == (2, 3)


def test_newton_returns_its_trip_count(backend: str) -> None:
    compiled = tg.compile(newton, backend=backend)
    for value in (2.0, 9.0, 100.0, 2.0):
        x, trips = compiled(tg.tensor([value]))
        expected, eager_trips = newton(tg.tensor([value]))
        assert trips == eager_trips
        assert_allclose(x.numpy(), expected.numpy(), rtol=1e-6)


def test_item_arithmetic_stays_in_the_graph(backend: str) -> None:
    def step(x: tg.Tensor) -> tuple[float, tg.Tensor]:
        total = 0.0
        for k in range(3):
            total += (x * k).sum().item()
        return total / 2, x * total

    compiled = tg.compile(step, backend=backend)
    for k in range(5):
        x = tg.tensor([1.0 + k, 2.0])
        (a, b), (c, d) = compiled(x), step(x)
        assert a == pytest.approx(c)
        assert_allclose(b.numpy(), d.numpy(), rtol=1e-6)
    assert compiled.stats()["recordings"] == 1


def test_early_return_and_assert(backend: str) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        assert x.isfinite().all()
        if x.max() > 10:
            return x
        return x + 1

    compiled = tg.compile(function, backend=backend)
    assert compiled(tg.tensor([1.0])).tolist() == [2.0]
    assert compiled(tg.tensor([11.0])).tolist() == [11.0]
    with pytest.raises(AssertionError):
        compiled(tg.tensor([np.inf]))
    assert compiled(tg.tensor([2.0])).tolist() == [3.0]


def test_too_many_paths_falls_back_with_a_warning() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        return x * float(x.sum())  # the exact value: a new path for every input

    compiled = tg.compile(function, max_paths=3)
    with pytest.warns(UserWarning, match="max_paths"):
        for k in range(6):
            assert compiled(tg.tensor([float(k)])).tolist() == [float(k * k)]
    assert compiled.stats()["eager"]

    whole = tg.compile(function, max_paths=3, fullgraph=True)
    with pytest.raises(GraphBreakError, match="test_control_flow.py"):
        for k in range(6):
            whole(tg.tensor([float(k)]))


@pytest.mark.parametrize("use", [math.isfinite, "{:.3f}".format])
def test_a_value_that_no_graph_depends_on_is_not_recorded_for_ever(
    use: Callable[[Any], Any], backend: str
) -> None:
    """The graph is the same for every value, so that its fingerprint tells no paths apart."""

    def function(x: tg.Tensor) -> tg.Tensor:
        use(x.sum().item())
        return x * 2

    compiled = tg.compile(function, backend=backend, max_paths=3)
    with pytest.warns(
        UserWarning, match=r"more than 3 different values .*test_control_flow.py:.*max_paths"
    ):
        for k in range(8):
            assert compiled(tg.tensor([float(k)])).tolist() == [2.0 * k]
    assert compiled.stats()["eager"] and compiled.stats()["recordings"] == 4

    whole = tg.compile(function, backend=backend, max_paths=3, fullgraph=True)
    with pytest.raises(GraphBreakError, match="test_control_flow.py"):
        for k in range(8):
            whole(tg.tensor([float(k)]))


def test_an_endless_unrolling_is_stopped() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        while x.sum() < 1e6:
            x = x + 1
        return x

    compiled = tg.compile(function, max_unroll=50, fullgraph=True)
    with pytest.raises(GraphBreakError, match="while_loop"):
        compiled(tg.tensor([0.0]))


def test_cond_and_while_loop_are_single_nodes(backend: str) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        y = tg.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
        (z,) = tg.while_loop(lambda v: (v * v).sum() < 100, lambda v: (v * 1.5,), (y,))
        return z

    compiled = tg.compile(function, backend=backend, fullgraph=True)
    for values in ([1.0, 2.0], [-1.0, -2.0], [0.5, 0.1]):
        assert_allclose(
            compiled(tg.tensor(values)).numpy(), function(tg.tensor(values)).numpy(), rtol=1e-6
        )
    assert compiled.stats()["compiles"] == 1
    assert {"cond", "while_loop"} <= {node.op.name for node in compiled.graph.nodes}


def test_cond_has_gradients() -> None:
    for value in (2.0, -2.0):
        x = tg.tensor([value, 1.0], requires_grad=True)
        tg.cond(x.sum() > 0, lambda v: (v * v).sum(), lambda v: (v * 3).sum(), (x,)).backward()
        expected = [2 * value, 2.0] if value + 1 > 0 else [3.0, 3.0]
        assert x.grad.tolist() == expected


def test_counting_with_a_minlength_is_one_graph(backend: str) -> None:
    count = tg.compile(lambda x: tg.bincount(x, minlength=6), backend=backend)
    for values in ([0, 5, 5], [1, 2, 2], [0, 0, 0]):
        x = tg.tensor(values)
        assert count(x).tolist() == tg.bincount(x, minlength=6).tolist()
    assert count.stats()["recordings"] == 1
    x = tg.tensor([7, 0, 0])
    assert count(x).tolist() == [2, 0, 0, 0, 0, 0, 0, 1]


def test_a_value_handed_on_and_an_argument_handed_on(backend: str) -> None:
    """Equal programs, of which one needs no executable: its input is an earlier segment's."""

    def f(x: tg.Tensor) -> tg.Tensor:
        if x.sum() > 0:
            z = x * 2
            if z[0] > 0:
                return z.clone()
        return x.clone()

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    for values in ([1.0, 2.0], [-1.0, 2.0], [-1.0, -2.0], [1.0, 2.0], [-1.0, -2.0]):
        x = tg.tensor(values)
        result = compiled(x)
        assert_allclose(result.numpy(), f(x).numpy())
        result.mul_(0)
        assert_allclose(x.numpy(), values)


def test_paths_with_and_without_gradients_begin_alike(backend: str) -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        with tg.no_grad():
            total = (x * 2).sum()
        return x * 3 if total > 0 else total

    compiled = tg.compile(f, backend=backend, fullgraph=True)
    for _ in range(4):
        for sign in (1.0, -1.0):
            x = tg.tensor([sign, 2 * sign], requires_grad=True)
            assert compiled(x).requires_grad == (sign > 0)
    assert compiled.stats()["recordings"] == 2


def test_max_paths_may_allow_more_ways(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        for k in range(3):
            x = x * (k + 2) if x[k] > 0 else x.sin() + k
        return x

    monkeypatch.setattr("tracegrad.runtime.forest.MAX_WAYS", 2)
    compiled = tg.compile(f, backend=backend, max_paths=8)
    for k in range(8):
        compiled(tg.tensor([float(2 * (k >> j & 1) - 1) for j in range(3)]))
    assert not compiled.stats()["eager"]
