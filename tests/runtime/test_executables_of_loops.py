"""At most six executables for a loop and its gradient, whatever the trip counts, and in whatever order
they come; and what turns do to be alike changes no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tracegrad as tg
import tracegrad.nn.functional as F
from tests.runtime import test_loops as loops
from tests.runtime.test_loops import Loop, assert_same, counted, given, loss_of, training
from tracegrad import nn
from tracegrad.runtime.paths.lowering import Compiler

FEW = 6
TURNS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 1e-2, 3e-3, 1e-3)  # from one turn on
NONE = (100.0, *TURNS)


def momentum(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """What the last turn leaves, only another turn would read."""
    x = x @ w
    velocity = tg.zeros_like(x)
    for _ in counted(x, w, tolerance):
        velocity = 0.5 * velocity + 0.1 * x * w[0]
        x = x - 0.1 * velocity
    return (x @ w).sum()


def until_it_settles(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """Every turn reads what is computed before the loop; the question is at its end."""
    given_in = x @ w
    z = tg.zeros_like(given_in)
    while True:
        following = (z @ w + given_in).tanh()
        change = (following - z).abs().max()
        z = following
        if change < tolerance:
            break
    return (z @ w).square().sum()


def cell(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """What is carried stands in a tuple."""
    state = (tg.zeros(2, 3), tg.zeros(2, 3))
    x = x @ w
    for _ in counted(x, w, tolerance):
        h, c = state
        gate = (x @ w + h @ w).sigmoid()
        c = c * gate + (x @ w).tanh()
        state = (c.tanh() * gate, c)
    return (state[0] @ w).sum()


def from_a_number(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """The total is Python's until the first turn; two of them."""
    total: Any = 0
    product: Any = 2.0
    x = x @ w
    for _ in counted(x, w, tolerance):
        x = (x @ w).tanh()
        total = total + x.sum()
        product = (1 + x.mean()) * product
    return (total * product * w).sum()


def layers(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """One before the loop, one in it, one after it, each with weights of its own."""
    x = x @ w[:, :2]
    while (x * x).sum() > tolerance:
        x = (x @ w[:2, :2]).tanh() * 0.7
    return (x @ w[1:]).square().sum()


def turn_and_question(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tuple[tg.Tensor, bool]:
    x = (x @ w).tanh() * 0.7
    return x, bool(x.square().sum() > tolerance)


def asked_elsewhere(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """The line that asks is in no loop, but one that calls it."""
    x, again = x @ w, True
    while again:
        x, again = turn_and_question(x, w, tolerance)
    return (x * w[0]).sum()


MORE: list[Loop] = [
    loops.in_place, loops.largest_from_constants, loops.running_total, loops.first_as_well, momentum,
    until_it_settles, cell, from_a_number, layers, asked_elsewhere,
]  # fmt: skip


def mean_of_the_turns(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """What is counted in Python is a number of the graph after the loop."""
    x, count = x @ w, 0
    total = x.sum() * 0
    for _ in counted(x, w, tolerance):
        x = (x @ w).tanh()
        total, count = total + x.sum(), count + 1
    return (total / (count + 1) * w).sum()


def decaying_step(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    """Every turn has another number."""
    x = x @ w
    for k, _ in enumerate(counted(x, w, tolerance)):
        x = x - 0.3 / (k + 1) * (x @ w) + k
    return x.square().sum()


def executables(loop: Loop, tolerances: tuple[float, ...], inside: bool, backend: str) -> int:
    """After calls that turn that often, each with its gradient."""
    compiled = tg.compile(
        training(loop)[0] if inside else loop, backend=backend, fullgraph=True, max_paths=32
    )
    x, w = (t.requires_grad_() for t in given(0))
    for tolerance in tolerances:
        if inside:
            compiled(x.detach(), tg.tensor(tolerance))
        elif (loss := loss_of(compiled(x, w, tg.tensor(tolerance)))).requires_grad:
            loss.backward()
    assert compiled.stats()["recordings"] >= 2
    return int(compiled.stats()["compiles"])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("loop", [*loops.SIMPLE, *MORE])
def test_six_executables_whatever_the_trip_counts(loop: Loop, inside: bool, backend: str) -> None:
    assert executables(loop, TURNS, inside, backend) <= FEW
    assert executables(loop, TURNS[::-1], inside, backend) <= FEW


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "loop",
    [
        loops.converge, loops.newton, loops.side_values, loops.from_zeros, loops.without_history,
        loops.several_results, loops.in_place, loops.largest_from_constants, layers,
    ],
)  # fmt: skip
def test_six_executables_with_calls_of_no_turn(loop: Loop, inside: bool, backend: str) -> None:
    assert executables(loop, NONE, inside, backend) <= FEW
    assert executables(loop, NONE[::-1], inside, backend) <= FEW


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("loop", [mean_of_the_turns, decaying_step])
def test_numbers_of_pythons_that_vary_add_none(loop: Loop, inside: bool, backend: str) -> None:
    """They become inputs once they are seen to; what was compiled before is counted, too."""
    for tolerances in (TURNS, TURNS[::-1]):
        soon = executables(loop, tolerances[:3], inside, backend)
        assert executables(loop, tolerances, inside, backend) == soon <= FEW + 4


@pytest.mark.parametrize("loop", [mean_of_the_turns, decaying_step])
def test_numbers_of_pythons_that_vary_equal_eager(loop: Loop, backend: str) -> None:
    compiled = tg.compile(loop, backend=backend, fullgraph=True, max_paths=4)
    for tolerance in (*TURNS[:6], *TURNS[:6:-1], *TURNS):
        found = []
        for function in (loop, compiled):
            x, w = (t.requires_grad_() for t in given(2))
            loss = function(x, w, tg.tensor(tolerance))
            found.append([loss, *tg.autograd.grad(loss, (x, w))])
        assert_same(found[1], found[0])


def test_a_loop_until_convergence_needs_three(backend: str) -> None:
    """The question, the turn, the gradient of the turn: which adds to zero what the last turn has for
    the weights.
    """
    assert executables(loops.converge, NONE, False, backend) == 3


def test_a_turn_hands_on_no_weights_and_constants(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient looks at the weights itself; handing on copies them."""
    made: list[tg.ir.Graph] = []
    lower = Compiler.__call__
    monkeypatch.setattr(
        Compiler, "__call__", lambda self, graph, *rest: (made.append(graph), lower(self, graph, *rest))[1]
    )  # fmt: skip
    layer = nn.Linear(3, 3)

    @tg.compile(backend=backend, fullgraph=True)
    def step(x: tg.Tensor) -> tg.Tensor:
        left = tg.ones(())
        while left > 0.2:
            x, left = layer(x).tanh() * 0.5, left * 0.5
        x.sum().backward()
        return x

    step(tg.ones(4, 3))
    turns = [graph for graph in made if graph.name.startswith("segment")][1:]
    assert turns
    for graph in turns:
        assert {output.shape for output in graph.outputs} == {(), (4, 3)}
        assert len(graph.outputs) <= 4


def test_parameters_of_a_loop_that_does_not_turn_are_left_alone(backend: str) -> None:
    """They have no gradient, rather than zeros: weight decay and momentum do not move them."""

    def steps() -> tuple[Callable[[tg.Tensor, tg.Tensor], tg.Tensor], list[tg.Tensor]]:
        tg.manual_seed(4)
        enter, turn, leave = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        parameters = [p for layer in (enter, turn, leave) for p in layer.parameters()]
        optimizer = tg.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)

        def step(x: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
            z = enter(x)
            for _ in counted(x, x, tolerance):
                z = turn(z).tanh()
            loss = leave(z).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step, parameters

    (eager, expected), (step, parameters) = steps(), steps()
    compiled = tg.compile(step, backend=backend, fullgraph=True)
    for seed, tolerance in enumerate([0.2, 2.0, 0.6, 2.0, 0.3, 2.0]):
        x, _ = given(seed)
        before = parameters[2].clone()
        losses = [run(x, tg.tensor(tolerance)) for run in (eager, compiled)]
        assert_same(losses[1:], losses[:1])
        assert_same(parameters, expected)
        assert (parameters[2] == before).all() == (tolerance == 2.0)


def test_what_no_turn_reads_sends_no_gradient_back(backend: str) -> None:
    """Not even zeros: the slope of the root is infinite there."""

    def loop(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        x, root = x @ w, tg.zeros(2, 3)
        for _ in counted(x, w, tolerance):
            x = x * w[0] + root.detach() + root * 0
            root = (x - x.detach()).abs().sqrt()
        return x.sum()

    compiled = tg.compile(loop, backend=backend, fullgraph=True)
    for tolerance in (0.3, 0.6, 0.2, 0.6):
        found = []
        for function in (loop, compiled):
            x, w = (t.requires_grad_() for t in given(1))
            loss = function(x, w, tg.tensor(tolerance))
            found.append([loss, *tg.autograd.grad(loss, (x, w))])
        assert_same(found[1], found[0])
        assert found[1][1].isfinite().all() == (tolerance == 0.6)


def test_variables_that_hold_themselves(backend: str) -> None:
    """A loop's variables are looked through; a list may be its own item."""

    def loop(x: tg.Tensor) -> tg.Tensor:
        around: list[Any] = []
        around.append(around)
        while x.abs().sum() > 0.1:
            x = F.relu(x) * 0.5
        return x

    compiled = tg.compile(loop, backend=backend, fullgraph=True)
    x = tg.tensor([1.0, 2.0])
    assert_same([compiled(x)], [loop(x)])


def test_a_recheck_of_what_was_recorded_before_numbers_varied(
    backend: str, recwarn: pytest.WarningsRecorder
) -> None:
    """It records the same program: with the numbers as constants that were constants then."""

    def scaled(x: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        total, turns = x.sum(), 0
        while x.abs().max() > tolerance:
            x, turns = x * 0.5, turns + 1
            total = total + x.sum()
        return total / (turns + 1)

    compiled = tg.compile(scaled, backend=backend, recheck=3)
    for size, tolerance in [(2, 0.6)] * 2 + [(3, 0.6), (3, 0.3), (3, 0.2)] + [(2, 0.6)] * 5:
        x = tg.ones(size)
        assert_same([compiled(x, tg.tensor(tolerance))], [scaled(x, tg.tensor(tolerance))])
    assert not [w for w in recwarn if "stale" in str(w.message)]
