"""A recording looks at the variables of functions with loops: they do not notice. And what turns do to
be alike neither fails nor records again where eager code runs.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from numpy.testing import assert_array_equal

import tracegrad as tg
from tests.runtime.test_loops import Loop, assert_same, given
from tracegrad.tracer.bytecode import asks_for_variables


class Thing:
    pass


def let_go(x: tg.Tensor) -> Any:
    thing = Thing()
    seen = weakref.ref(thing)
    while x.sum() > 0.3:
        x = x * 0.5
    len([thing])
    del thing
    return x, seen() is None


def let_go_in_a_branch(x: tg.Tensor) -> Any:
    thing = Thing()
    seen = weakref.ref(thing)
    if x.sum() > 0.3:
        x = x * 0.5
    len([thing])
    thing = None  # type: ignore[assignment]
    return x, seen() is None


def closed_when_let_go(x: tg.Tensor) -> Any:
    closed: list[int] = []

    def count() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(1)

    counting = count()
    while x.sum() > 0.3:
        x = x * 0.5
    next(counting)
    del counting
    return x, len(closed)


def own_snapshot(x: tg.Tensor) -> Any:
    then = locals()
    k = 0
    while x.sum() > 0.3:
        x = x * 0.5
        k += 1
    return x, then["x"], "k" in then


def dead_proxy(x: tg.Tensor) -> Any:
    thing = Thing()
    proxy = weakref.proxy(thing)
    del thing
    while x.sum() > 0.3:
        x = x * 0.5
    del proxy
    return x


def lists_within_lists(x: tg.Tensor) -> Any:
    around: list[Any] = []
    around.extend([around] * 4)
    doubled: list[Any] = []
    for _ in range(40):
        doubled = [doubled, doubled]
    while x.sum() > 0.3:
        x = x * 0.5
    return x


class Key:
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("nobody compares keys")


def keys_of_ones_own(x: tg.Tensor) -> Any:
    named = {Key(): x}
    while x.sum() > 0.3:
        x = x * 0.5
    return x, len(named)


@pytest.mark.parametrize(
    "function",
    [
        let_go, let_go_in_a_branch, closed_when_let_go, own_snapshot, dead_proxy, lists_within_lists,
        keys_of_ones_own,
    ],
)  # fmt: skip
def test_functions_do_not_notice(function: Callable[[tg.Tensor], Any]) -> None:
    compiled = tg.compile(function, backend="numpy", fullgraph=True)
    for _ in range(2):
        found, expected = compiled(tg.tensor([1.0, 2.0])), function(tg.tensor([1.0, 2.0]))
        assert str(found) == str(expected)


def stops_and_goes(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    turn, left, y, z = 0, tg.ones(()), x * 1, x * 1
    while left > tolerance:
        with tg.set_grad_enabled(turn != 1):
            y = y.sin() + w[1]
        z, turn, left = z.cos(), turn + 1, left * 0.5
    return y


def test_which_functions_may_look_at_their_variables() -> None:
    """What the others hold is looked at unnoticed."""

    def method(m: Any) -> None:
        m.eval()

    def builtin() -> Any:
        return eval("1")

    def all_of_them() -> Any:
        return locals()

    def frame() -> Any:
        return sys._getframe()

    assert not asks_for_variables(method.__code__)
    assert all(asks_for_variables(f.__code__) for f in (builtin, all_of_them, frame))
    many = "\n".join(f"    name{k}" for k in range(300))
    names: dict[str, Any] = {}
    exec(f"def f():\n{many}\n    dir()\ndef g(m):\n{many}\n    m.dir()", names)
    assert asks_for_variables(names["f"].__code__) and not asks_for_variables(names["g"].__code__)


def variables_of_the_caller() -> dict[str, Any]:
    return sys._getframe(1).f_locals


def test_variables_that_a_helper_took_stay(backend: str) -> None:
    def function(x: tg.Tensor) -> Any:
        kept = 3
        taken = variables_of_the_caller()
        while x.sum() > 0.3:
            x = x * 0.5
        return dict(taken)["kept"], kept

    assert tg.compile(function, backend=backend)(tg.ones(3)) == (3, 3)


@pytest.mark.parametrize("tolerance", [0.6, 0.2, 0.1])
def test_second_order_where_an_argument_has_no_gradient(tolerance: float, backend: str) -> None:
    found = []
    for function in (stops_and_goes, tg.compile(stops_and_goes, backend=backend, fullgraph=True)):
        x, w = (t.requires_grad_() for t in given(0))
        loss = function(x, w, tg.tensor(tolerance)).sin().sum()
        first = tg.autograd.grad(loss, (x, w), create_graph=True, allow_unused=True)
        squares = sum((g.square().sum() for g in first if g is not None), tg.zeros(()))
        found.append([*first, *tg.autograd.grad(squares, (x, w), allow_unused=True)])
    assert_same(found[1], found[0])


def test_no_gradient_is_asked_for_where_there_is_none(backend: str) -> None:
    """What a turn does for the sake of other turns does not refuse what this one can do."""

    def loop(w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        v, left = tg.ones(3), tg.ones(())
        while left > tolerance:
            v, left = tg.nextafter(v, v + 1) * w[0], left * 0.5
        return v.sum()

    found = []
    for function in (loop, tg.compile(loop, backend=backend, fullgraph=True)):
        w = given(0)[1].requires_grad_()
        loss = function(w, tg.tensor(0.6))
        loss.backward()
        found.append([loss, w.grad])
    assert_same(found[1], found[0])


def test_the_sign_of_a_zero_gradient(backend: str) -> None:
    def loop(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
        y, left = x * 0, tg.ones(())
        while left > tolerance:
            y, left = y + w * -0.0, left * 0.5
        return y.sum()

    found = []
    for function in (loop, tg.compile(loop, backend=backend, fullgraph=True)):
        x, w = tg.ones(3), tg.ones(3).requires_grad_()
        function(x, w, tg.tensor(0.6)).backward()
        found.append(tg.signbit(w.grad).numpy())
    assert_array_equal(found[0], found[1])


def trains_if_it_turned(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    y, left = x @ w, tg.ones(())
    with tg.no_grad():
        scale = (w * 2).sin()
    while left > tolerance:
        y, left = (y @ (w * scale)).tanh(), left * 0.5
    loss = y.sum()
    if tolerance < 1:
        loss.backward()
    return loss


def trains_above_a_loss(x: tg.Tensor, w: tg.Tensor, tolerance: tg.Tensor) -> tg.Tensor:
    loss = (x @ w).square().sum()
    if loss > tolerance:
        loss.backward()
        return loss.detach()
    return loss * 2


@pytest.mark.parametrize("function", [trains_if_it_turned, trains_above_a_loss])
def test_paths_with_and_without_a_backward_begin_alike(function: Loop, backend: str) -> None:
    """They stay in one tree: nothing is recorded again and again."""
    compiled = tg.compile(function, backend=backend, fullgraph=True)
    counts = []
    for tolerance in (100.0, 0.5, 0.2) * 4:
        found = []
        for each in (function, compiled):
            x, w = given(0)
            w.requires_grad_()
            found.append([each(x, w, tg.tensor(tolerance)), w.grad])
        assert_same(found[1], found[0])
        counts.append(compiled.stats()["recordings"])
    assert counts[2] == counts[-1] <= 3
