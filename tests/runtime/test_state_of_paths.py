"""State that only one path of a function touches: it may change, or be an argument, at every call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import tracegrad as tg

PLAIN, OTHER = 1.0, -1.0  # which path is taken


class Holder:
    h: Any


def state_and_step() -> tuple[Any, Any]:
    """A function that reaches `state.w` by itself on its second path only."""
    state = SimpleNamespace(w=tg.ones(3))

    def step(x: Any, flag: Any) -> Any:
        if flag > 0:
            return x * 2
        before = x * 3
        state.w.add_(1.0)
        return before + x

    return state, step


@pytest.mark.parametrize("first", ["captured", "another"])
def test_an_argument_is_what_the_second_path_captures(first: str, backend: str) -> None:
    state, step = state_and_step()
    other_state, eager = state_and_step()
    compiled = tg.compile(step, backend=backend)
    captured_first = first == "captured"
    for path, captured in [
        (PLAIN, captured_first), (OTHER, captured_first), (OTHER, not captured_first), (PLAIN, True),
        (OTHER, True), (OTHER, False), (PLAIN, False),
    ]:  # fmt: skip
        flag, another = tg.tensor(path), tg.zeros(3)
        actual = compiled(state.w if captured else another, flag)
        assert actual.tolist() == eager(other_state.w if captured else another, flag).tolist()
        assert state.w.tolist() == other_state.w.tolist()
    assert compiled.stats()["recordings"] <= 6


def test_gradients_of_arguments_on_the_second_path(backend: str) -> None:
    def step(x: Any, flag: Any) -> Any:
        if flag > 0:
            return x * 2
        (x * x).sum().backward()
        return x * 3

    compiled = tg.compile(step, backend=backend)
    for k, path in enumerate([PLAIN, OTHER, OTHER, PLAIN, OTHER]):
        x = tg.ones(3, requires_grad=True)
        x.grad = tg.full((3,), float(k))
        compiled(x, tg.tensor(path))
        assert x.grad.tolist() == [k + 2.0 * (path == OTHER)] * 3


def test_names_bound_anew_on_one_path_hold_something_else_on_another(backend: str) -> None:
    state = Holder()
    state.h = tg.zeros(2)

    def step(x: Any, flag: Any) -> Any:
        if flag > 0:
            return x * 2
        state.h = state.h + x
        return state.h * 1

    compiled = tg.compile(step, backend=backend)
    x = tg.ones(2)
    for path in [PLAIN, OTHER, OTHER]:
        compiled(x, tg.tensor(path))
    assert state.h.tolist() == [2.0, 2.0]
    for absent in (None, 1.0):
        state.h = absent
        assert compiled(x, tg.tensor(PLAIN)).tolist() == [2.0, 2.0]
    assert compiled(x, tg.tensor(OTHER)).tolist() == [2.0, 2.0]


def test_a_view_of_captured_state_dies_and_another_function_runs(backend: str) -> None:
    """The state then needs no storage any more; what was compiled for the storage notices."""
    w, x = tg.zeros(3), tg.ones(3)
    view = w.view(3)

    def step(x: Any) -> Any:
        w.add_(x)
        return w.sum()

    add = tg.compile(step, backend=backend)
    scale = tg.compile(lambda x: w * x, backend=backend)
    add(x), add(x)
    del view
    assert scale(x).tolist() == [2.0] * 3
    add(x), add(x)
    assert scale(x).tolist() == w.tolist() == [4.0] * 3


def test_state_that_one_path_alone_reads_goes_to_and_fro(backend: str) -> None:
    """Each of its values is recorded once, as where every path reads it."""
    holder = Holder()
    holder.h = 1.0

    def step(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x * holder.h

    compiled = tg.compile(step, backend=backend)
    compiled(tg.ones(2))
    for k in range(8):
        holder.h = float(k % 2 + 1)
        assert compiled(-tg.ones(2)).tolist() == [-holder.h] * 2
        assert compiled(tg.ones(2)).tolist() == [2.0] * 2
    assert compiled.stats()["recordings"] <= 4
