"""Loops on tensor values with gradients: eager's numbers, and few executables for all trip counts,
whether backward() is outside the compiled function or in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tracegrad as tg
import tracegrad.nn.functional as F
from tracegrad import nn
from tracegrad.runtime import forest

Loop = Callable[[tg.Tensor, tg.Tensor, tg.Tensor], Any]
FEW = 6


def converge(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    while (x * x).sum() > tolerance:
        x = (x @ w).tanh()
    return x


def after_a_layer(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    return converge(x @ w + 1, w, tolerance).square().sum()


def newton(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """Square roots, from ones."""
    a = (x * x).sum() + w[0] ** 2 + 1
    y = tg.ones_like(a)
    while (y * y - a).abs().max() > tolerance:
        y = (y + a / y) / 2
    return y.sum()


def counted(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> Iterator[None]:
    """More turns for a smaller tolerance, whatever the loop computes."""
    left = tg.ones(())
    while left > tolerance:
        yield
        left = left * 0.5


def side_values(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    """The condition needs nothing of what the loop is there for."""
    velocity = tg.zeros_like(x)
    for _ in counted(x, w, tolerance):
        velocity = 0.9 * velocity + x @ w
        x = x - 0.1 * velocity
    return x, velocity


def from_zeros(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """The first turn's gradient needs less than the others'."""
    x, state = x @ w + 1, tg.zeros(2, 3)
    for _ in counted(x, w, tolerance):
        state = (state @ w + x) / (state.var(1, keepdim=True) + 1)
    return state


def in_place(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    x, rows = x.clone(), tg.zeros(2, 3)
    for _ in counted(x, w, tolerance):
        x.mul_(w[0])
        x[0] += 1
        rows[1] = x[0]
    return x.sum() + (rows * rows).sum()


def noisy(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        x = F.dropout(x @ w, 0.3) + tg.rand(2, 3)
    return x


def without_history(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        with tg.no_grad():
            scale = (x @ w).abs().max()
        x = x.detach() * w[0] + (x @ w) / (scale + 1)
    return x


def several_results(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        largest, _ = x.topk(2, dim=1)
        x = (largest @ w[:2]).sin()
    return x


def largest_from_constants(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    y = tg.full((2, 3), 0.25)
    for _ in counted(x, w, tolerance):
        y = y.topk(3, dim=1).values * 0.5 + (x @ w).tanh()
    return y


def running_total(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    total: Any = 0
    for _ in counted(x, w, tolerance):
        x = (x @ w).tanh()
        total = total + x.sum()
    return total + x.sum()


SIMPLE: list[Loop] = [
    converge, after_a_layer, newton, side_values, from_zeros, noisy, without_history, several_results,
]  # fmt: skip


def all_turns(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """What the loop leaves grows with its turns."""
    seen = [x]
    for _ in counted(x, w, tolerance):
        seen.append((seen[-1] @ w).tanh())
    return tg.stack(seen).sum(0)


def nested(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        for _ in counted(x, w, tolerance * 2):
            x = (x @ w).tanh()
        x = x * 1.1
    return x


def branching(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        x = x - w[0] if x.sum() > 0 else x * w[1] + 0.1
    return x if x.sum() > 0 else x.exp() * w[0]


def one_after_the_other(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    for _ in counted(x, w, tolerance):
        x = (x @ w).tanh()
    y = x * x
    while (y * y).sum() > 1e-3:
        y = y * 0.5
    return y.sum() + x.sum()


def first_as_well(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    """All turns follow from a result."""
    first = (x @ w).tanh()
    x = first
    for _ in counted(x, w, tolerance):
        x = (x @ w).tanh()
    return first, x


def numbers(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    size, turns = 100.0, 0
    while size > tolerance and turns < 20:
        x = x @ w * 0.5
        size = (x * x).sum().item()
        turns += 1
    return x.sum() * turns + size


OTHER: list[Loop] = [
    largest_from_constants, in_place, running_total, all_turns, nested, branching, one_after_the_other,
    first_as_well, numbers,
]  # fmt: skip


def given(seed: int) -> tuple[tg.Tensor, tg.Tensor]:
    tg.manual_seed(seed)
    return tg.randn(2, 3), tg.randn(3, 3) * 0.3


def loss_of(result: Any) -> tg.Tensor:
    parts = result if isinstance(result, tuple) else (result,)
    return sum((p.sin().sum() if isinstance(p, tg.Tensor) else p for p in parts), tg.zeros(()))


def gradients(function: Loop, seed: int, tolerance: float) -> list[Any]:
    """The result, its gradients, and those of their squares."""
    x, w = (t.requires_grad_() for t in given(seed))
    loss = loss_of(function(x, w, tg.tensor(tolerance))) + (x * w[0]).sum()
    first = tg.autograd.grad(loss, (x, w), create_graph=True, allow_unused=True)
    squares = sum((g.square().sum() for g in first if g is not None), tg.zeros(()))
    second: tuple[Any, ...] = (None, None)
    if squares.requires_grad:
        second = tg.autograd.grad(squares, (x, w), allow_unused=True)
    return [loss, *first, *second]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        if a is None or b is None:  # one of them may know that it is zero
            assert all(t is None or not t.any() for t in (a, b))
        else:
            assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=2e-3, atol=2e-5)


def training(loop: Loop) -> tuple[Callable[[tg.Tensor, tg.Tensor], tg.Tensor], list[tg.Tensor]]:
    """A step with backward() and an optimiser in it, and its state."""
    weight = given(99)[1].requires_grad_()
    optimizer = tg.optim.Adam([weight], lr=0.01)
    schedule = tg.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    calls = tg.zeros(())

    def step(x: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        calls.add_(1)
        loss = loss_of(loop(x, weight, tolerance)) + (weight * weight).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return step, [weight, calls]


@pytest.mark.parametrize("loop", [*SIMPLE, *OTHER])
def test_gradients_from_outside_equal_eager(loop: Loop, backend: str) -> None:
    compiled = tg.compile(loop, backend=backend, max_paths=32, fullgraph=True)
    for seed, tolerance in enumerate([0.2, 2.0, 0.6, 0.3, 0.03, 0.005, 0.2]):
        expected = gradients(loop, seed, tolerance)
        assert_same(gradients(compiled, seed, tolerance), expected)


@pytest.mark.parametrize("loop", [*SIMPLE, *OTHER])
def test_training_steps_equal_eager(loop: Loop, backend: str) -> None:
    (eager, expected), (step, state) = training(loop), training(loop)
    compiled = tg.compile(step, backend=backend, max_paths=32, fullgraph=True)
    for seed, tolerance in enumerate([0.2, 2.0, 0.6, 0.3, 0.03, 0.005, 0.2]):
        losses = []
        for run in (eager, compiled):
            x, _ = given(seed)
            losses.append(run(x, tg.tensor(tolerance)))
        assert_same(losses[1:], losses[:1])
        assert_same(state, expected)


@pytest.mark.parametrize("loop", [in_place, running_total, nested, branching, first_as_well])
def test_more_trip_counts_need_no_more_executables(loop: Loop, backend: str) -> None:
    outside = tg.compile(loop, backend=backend, max_paths=32, fullgraph=True)
    inside = tg.compile(training(loop)[0], backend=backend, max_paths=32, fullgraph=True)
    counts = []
    for tolerances in ((2.0, 0.6, 0.3, 0.2, 0.1, 0.03, 0.01, 0.02), (3e-3, 1e-3, 5e-4)):
        for tolerance in tolerances:
            x, w = (t.requires_grad_() for t in given(0))
            (loss_of(outside(x, w, tg.tensor(tolerance))) + (x * w[0]).sum()).backward()
            inside(x.detach(), tg.tensor(tolerance))
        counts.append((outside.stats()["compiles"], inside.stats()["compiles"]))
    assert counts[0] == counts[1]


def branch_and_loop(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    x = (x @ w).tanh() if x.sum() > 0 else x * w[0]
    while (x * x).sum() > tolerance:
        x = (x @ w).tanh() * 0.5
    return x.sin().sum()


def loop_and_branch(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    x = converge(x, w * 0.5, tolerance)
    return (x.exp() if x.sum() > 0 else x * w[0]).sum()


def branch_in_loop(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    while (x * x).sum() > tolerance:
        x = (x @ w).tanh() * 0.5 if x.sum() > 0 else x * w[0] * 0.5
    return x.sum()


@pytest.mark.parametrize("function", [branch_and_loop, loop_and_branch, branch_in_loop])
@pytest.mark.parametrize("inside", [False, True])
def test_a_branch_and_a_loop(function: Loop, inside: bool, backend: str) -> None:
    """Forward the question, the branches, the turn and the rest; backward each of them but the question."""

    def step(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        loss = function(x, w, tolerance)
        loss.backward()
        return loss

    compiled = tg.compile(step if inside else function, backend=backend, fullgraph=True)
    w = given(0)[1].abs().clamp(0.05, 0.3).requires_grad_()
    counts = []
    for signs, tolerances in (
        ([1], (1e-1, 1e-2, 1e-3, 1e-4)),
        ([1, -1], (1e-1, 1e-2, 1e-3, 1e-4)),
        ([1, -1], (1e-5, 1e-6, 3e-2, 3e-4, 1e-8)),
    ):
        for sign in signs:
            for tolerance in tolerances:
                x = given(0)[0].abs() * sign
                w.grad = None
                function(x, w, tg.tensor(tolerance)).backward()
                expected, w.grad = w.grad, None
                loss = compiled(x, w, tg.tensor(tolerance))
                if not inside:
                    loss.backward()
                assert_same([w.grad], [expected])
        counts.append(compiled.stats()["compiles"])
    assert compiled.stats()["recordings"] >= 8
    assert counts[1] == counts[2]
    assert counts[0] <= 8
    if function is branch_and_loop:
        assert counts[0] <= 7 and counts[1] <= 9


def test_a_loop_behind_the_training_step_of_one(backend: str) -> None:
    """The gradient stands between the loops: it belongs to no question, and runs in pieces."""

    def steps(weight: tg.Tensor) -> Callable[[tg.Tensor, tg.Tensor], Any]:
        optimizer = tg.optim.SGD([weight], lr=0.05)

        def step(x: tg.Tensor, tolerance: tg.Tensor) -> Any:
            for _ in counted(x, weight, tolerance):
                x = (x @ weight).tanh() + 0.1
            loss = x.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            root = tg.ones_like(loss)
            for _ in range(20):
                if (root * root - loss.detach()).abs() < tolerance * 1e-3:
                    break
                root = (root + loss.detach() / root) / 2
            return loss, root

        return step

    weights = [given(0)[1].requires_grad_() for _ in range(2)]
    eager = steps(weights[0])
    compiled = tg.compile(steps(weights[1]), backend=backend, fullgraph=True)
    for seed, tolerance in enumerate([0.2, 0.03, 0.6, 0.3, 0.01, 0.003, 0.1, 1e-3]):
        x, _ = given(seed)
        assert_same(list(compiled(x, tg.tensor(tolerance))), list(eager(x, tg.tensor(tolerance))))
        assert_same(weights[1:], weights[:1])
    assert compiled.stats()["recordings"] >= 5
    assert compiled.stats()["compiles"] <= 9


def test_a_recurrent_layer_in_a_loop(backend: str) -> None:
    """Decoding until a confident step: an LSTM whose state the loop carries."""
    tg.manual_seed(2)
    layer, head = nn.LSTM(3, 4), nn.Linear(4, 3)

    def decode(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        state, left = None, tg.ones(())
        while left > tolerance:
            out, state = layer(x, state)
            x = head(out).tanh()
            left = left * 0.6
        return x.square().sum() + state[1].sum()

    compiled = tg.compile(decode, backend=backend, fullgraph=True)
    counts = []
    for tolerance in (0.5, 0.1, 0.03, 0.3, 0.01, 0.005, 0.002, 0.001):
        x = given(0)[0].unsqueeze(0).requires_grad_()
        found = []
        for function in (decode, compiled):
            parameters = [x, *layer.parameters(), *head.parameters()]
            loss = function(x, x, tg.tensor(tolerance))
            found.append([loss, *tg.autograd.grad(loss, parameters)])
        assert_same(found[1], found[0])
        counts.append(compiled.stats()["compiles"])
    assert counts[4] == counts[-1]


def test_a_model_that_iterates_until_it_settles(backend: str) -> None:
    """The whole step, with Adam: one executable for all turns forward, one for all backward."""

    class Settling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.turn, self.leave = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
            z = self.enter(x).tanh()
            while True:
                following = self.turn(z).tanh() * 0.7
                settled = (following - z).abs().max() < tolerance
                z = following
                if settled:
                    return self.leave(z)

    tg.manual_seed(3)
    model = Settling()
    optimizer = tg.optim.Adam(model.parameters(), lr=0.05)

    @tg.compile(backend=backend, fullgraph=True)
    def step(x: tg.Tensor, y: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, tolerance), y)
        loss.backward()
        optimizer.step()
        return loss

    x = tg.randn(6, 4)
    y = (x[:, 0] > 0).long()
    losses = [step(x, y, tg.tensor(10.0 ** -(k % 6 + 1))).item() for k in range(24)]
    assert losses[-1] < 0.9 * losses[0]
    assert step.stats()["recordings"] >= 4
    assert step.stats()["compiles"] <= FEW


def test_random_numbers_are_those_of_eager(backend: str) -> None:
    compiled = tg.compile(noisy, backend=backend, fullgraph=True)
    x, w = given(0)
    for tolerance in (0.2, 0.03, 0.6):
        masks = []
        for function in (noisy, compiled):
            tg.manual_seed(5)
            masks.append((function(x, w, tg.tensor(tolerance)) == 0).numpy())
            masks.append(tg.rand(3).numpy())  # the stream goes on from the same place
        assert_array_equal(masks[0], masks[2])
        assert_array_equal(masks[1], masks[3])


def test_a_result_can_be_written_before_backward(backend: str) -> None:
    """What the gradient has saved is no memory of the user's."""

    def twice(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        for _ in counted(x, w, tolerance):
            x = x * w[0]
        return x, x * w[1]

    found = []
    for function in (twice, tg.compile(twice, backend=backend, fullgraph=True)):
        x, w = (t.requires_grad_() for t in given(0))
        first, second = function(x, w, tg.tensor(0.1))
        kept = first.detach().clone()
        first.detach().mul_(1)
        second.detach().mul_(100)
        second.sum().backward()
        found.append([x.grad, w.grad, kept])
    assert_same(found[1], found[0])


def test_one_path_has_one_gradient(backend: str) -> None:
    """Questions asked once each are no loop: the gradient of a path stays whole."""

    def branch(x: tg.Tensor) -> tg.Tensor:
        y = x * 2
        return (y * y).sum() if y.sum() > 0 else (y - 1).sum()

    compiled = tg.compile(branch, backend=backend)
    for sign in (1.0, -1.0):
        x = tg.tensor([sign, 2 * sign], requires_grad=True)
        compiled(x).backward()
    assert compiled.stats()["compiles"] == 5  # the question, and for each answer there and back


def test_a_loop_of_ever_new_ways_ends_in_eager_calls(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_sign(x: tg.Tensor) -> tg.Tensor:
        y = x
        for k in range(4):
            y = y * 1.1 if x[k] > 0 else y.sin()
        return y

    monkeypatch.setattr(forest, "MAX_WAYS", 5)
    compiled = tg.compile(by_sign, backend=backend, max_paths=5)
    with pytest.warns(UserWarning, match="more than 5 different ways.*while_loop"):
        for seed in range(20):
            tg.manual_seed(seed)
            x = tg.randn(4)
            assert_same([compiled(x)], [by_sign(x)])
    assert compiled.stats()["eager"]


def two_results(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    left, turned = tg.ones(()), x.exp()
    while left > tolerance:
        turned, left = (turned @ x.t()).tanh() @ x, left * 0.5
    return (w @ w).tanh().exp().sum(), turned


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_what_only_another_result_needs_has_no_gradient(backend):
    """Not zeros: an optimiser would apply its momentum and its weight decay."""
    compiled = tg.compile(two_results, backend=backend)
    for tolerance in (0.6, 0.2, 0.6):
        x, w = (tensor.requires_grad_() for tensor in given(1))
        first, second = compiled(x, w, tg.tensor(tolerance))
        first.backward(retain_graph=True)
        assert x.grad is None and w.grad is not None
        w.grad = None
        second.sum().backward()
        assert x.grad is not None and w.grad is None
