"""A tensor that the function captures is its argument at the first call: later calls tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import tracegrad as tg

BACKENDS = ["numpy", "jax"]


def closure(c: tg.Tensor) -> Callable[[Any], Any]:
    return lambda x: x * c


def attribute(c: tg.Tensor) -> Callable[[Any], Any]:
    holder = SimpleNamespace(c=c)
    return lambda x: x * holder.c


def container(c: tg.Tensor) -> Callable[[Any], Any]:
    several = [tg.ones(2), c]
    return lambda x: x * several[1] + several[0]


def table(c: tg.Tensor) -> Callable[[Any], Any]:
    named = {"c": c}
    return lambda x: x * named["c"]


def default(c: tg.Tensor) -> Callable[[Any], Any]:
    def f(x: Any, c: Any = c) -> Any:
        return x * c

    return f


def buffer(c: tg.Tensor) -> Callable[[Any], Any]:
    module = tg.nn.Module()
    module.register_buffer("c", c)
    return lambda x: x * module.c


def written(c: tg.Tensor) -> Callable[[Any], Any]:
    holder = SimpleNamespace(c=c)

    def f(x: Any) -> Any:
        holder.c.add_(1)
        return x * 2

    return f


PLACES = [closure, attribute, container, table, default, buffer, written]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("capture", PLACES, ids=lambda f: f.__name__)
def test_captured_first_and_other_arguments_later(
    capture: Callable[[Any], Callable[[Any], Any]], backend: str
) -> None:
    if backend == "jax":
        pytest.importorskip("jax")
    ours, theirs = tg.tensor([1.0, 2.0]), tg.tensor([1.0, 2.0])
    compiled, eager = tg.compile(capture(ours), backend=backend), capture(theirs)
    for k in (0, 1, 2, 0, 3, 0):
        other = tg.full((2,), float(k))
        actual, wanted = compiled(ours if k == 0 else other), eager(theirs if k == 0 else other)
        assert actual.tolist() == wanted.tolist()
        assert ours.tolist() == theirs.tolist()
    assert compiled.stats()["compiles"] <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_list_of_batches_that_the_function_looks_at(backend: str) -> None:
    """Each batch might have been read from the list: the graphs are told apart, and right."""
    if backend == "jax":
        pytest.importorskip("jax")
    batches = [tg.full((2,), float(k)) for k in range(6)]
    step = tg.compile(lambda x: x.sum() / len(batches), backend=backend)
    for _ in range(2):
        for k, batch in enumerate(batches):
            assert step(batch).item() == pytest.approx(2 * k / 6)
    assert step.stats()["compiles"] <= len(batches)


def test_more_batches_in_a_list_than_recordings_are_kept() -> None:
    batches = [tg.full((2,), float(k)) for k in range(40)]
    step = tg.compile(lambda x: x.sum() / len(batches))
    with pytest.warns(UserWarning, match="reach by itself"):
        results = [step(batch).item() for batch in batches]
    assert results == pytest.approx([2 * k / 40 for k in range(40)])
