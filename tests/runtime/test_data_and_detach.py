"""`x.data = y`, `x.detach_()` and `x.requires_grad = False` inside a compiled function, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegrad as tg


def data_of_another_shape(lib: Any, w: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        y = x * 2
        y.data = lib.full((1,), 3.0)
        return y * 1

    return f


def data_that_is_written(lib: Any, w: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        y, z = x * 2, x * 3
        y.data = z
        z.add_(1)
        return y * 1

    return f


def history_dropped(lib: Any, w: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        y = w * x
        z = y * 2
        y.detach_()
        (y * w + z).sum().backward()
        return y * 1

    return f


def made_and_dropped(lib: Any, w: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        y = lib.ones(3, requires_grad=True)
        y.detach_()
        return x * (2.0 if y.requires_grad else 1.0)

    return f


PROGRAMS = [data_of_another_shape, data_that_is_written, history_dropped, made_and_dropped]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_as_in_pytorch(program: Callable[..., Any], backend: str) -> None:
    results = []
    for lib, compiled in (
        (torch, lambda f: f), (tg, lambda f: f), (tg, lambda f: tg.compile(f, backend=backend)),
    ):  # fmt: skip
        w = lib.ones(3, requires_grad=True)
        f = compiled(program(lib, w))
        found = [f(lib.full((3,), value)).tolist() for value in (2.0, 5.0)]
        results.append((found, w.grad if w.grad is None else w.grad.tolist()))
    assert results[0] == results[1] == results[2]


def swapped(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    other = lib.zeros(3)

    def f(x: Any) -> Any:
        w.data, other.data = other.data, w.data
        w.data.add_(x)
        found = w * x
        w.data, other.data = other.data, w.data
        return found

    return f, [w, other]


def another_one(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    other = lib.zeros(3)

    def f(x: Any) -> Any:
        w.data = other
        w.data.add_(x)
        return other * 1

    return f, [w, other]


def argument(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    def f(x: Any) -> Any:
        w.data = x
        w.data.mul_(2)
        return x * 1

    return f, [w]


def with_an_older_view(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    state = lib.zeros(3)
    view = state.view(-1)

    def f(x: Any) -> Any:
        state.data = state.data + x
        return view * 1

    return f, [state, view]


def with_a_backup(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    def f(x: Any) -> Any:
        backup = w.data
        w.data = w.data + x
        found = w * x
        w.data.copy_(backup)
        return found

    return f, [w]


def value_written_later(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    def f(x: Any) -> Any:
        value = x * 2
        w.data = value
        value.add_(1)
        return w * 1

    return f, [w]


def value_returned(lib: Any, w: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    state = lib.zeros(3)

    def f(x: Any) -> Any:
        value = state * 1
        state.data = value
        state.add_(x)
        return value

    return f, [state]


@pytest.mark.parametrize(
    "program",
    [swapped, another_one, argument, with_an_older_view, with_a_backup, value_written_later, value_returned],
)  # fmt: skip
def test_data_that_another_tensor_has_too_is_given_by_eager(
    program: Callable[..., Any], backend: str
) -> None:
    results = []
    for lib, compiled in (
        (torch, lambda f: f), (tg, lambda f: f), (tg, lambda f: tg.compile(f, backend=backend)),
    ):  # fmt: skip
        f, state = program(lib, lib.ones(3, requires_grad=True))
        f = compiled(f)
        found = []
        for value in (2.0, 5.0):
            x = lib.full((3,), value)
            if hasattr(f, "stats") and not f.stats()["eager"]:
                with pytest.warns(UserWarning, match="memory that another tensor has too"):
                    found.append(f(x).tolist())
            else:
                found.append(f(x).tolist())
            found += [t.tolist() for t in state]
        results.append(found)
    assert results[0] == results[1] == results[2]


def test_new_data_is_state_of_the_graph(backend: str) -> None:
    """As optimisers write it that are made by hand."""
    results = []
    for compile_ in (lambda f: f, lambda f: tg.compile(f, backend=backend, fullgraph=True)):
        weights = [tg.ones(3, requires_grad=True), tg.full((3,), 2.0, requires_grad=True)]

        def step(x: Any, weights: Any = weights) -> Any:
            for _ in range(2):
                loss = (weights[0] * weights[1] * x).sum()
                for weight, g in zip(weights, tg.autograd.grad(loss, weights)):
                    weight.data = weight.data - 0.1 * g
                    weight.data.clamp_(-1.0, 1.5)
            return loss

        run = compile_(step)
        results.append([run(tg.full((3,), value)).tolist() for value in (1.0, 2.0, 3.0)])
        results[-1] += [value for weight in weights for value in weight.tolist()]
    assert results[0] == pytest.approx(results[1])


def test_data_updated_in_place_is_state_of_the_graph(backend: str) -> None:
    """`w.data -= lr * w.grad`, as tutorials write it: what is assigned is the memory that was there."""
    results = []
    for lib, compile_ in (
        (torch, lambda f: f),
        (tg, lambda f: f),
        (tg, lambda f: tg.compile(f, backend=backend, fullgraph=True)),
    ):
        w, view_of = lib.ones(3, requires_grad=True), lib.zeros(2, 3)
        row = view_of[0]

        def step(x: Any, w: Any = w, row: Any = row) -> Any:
            loss = (w * x).square().sum()
            loss.backward()
            w.data -= 0.1 * w.grad.data
            w.grad.data.zero_()
            row.data += x
            return loss.detach()

        run = compile_(step)
        found = [run(lib.full((3,), value)).item() for value in (1.0, 2.0, 0.5)]
        results.append((found, w.tolist(), view_of.tolist(), w.requires_grad))
    for other in results[1:]:
        assert other[0] == pytest.approx(results[0][0])
        assert other[1] == pytest.approx(results[0][1])
        assert other[2:] == results[0][2:]


@pytest.mark.parametrize("value", [tg.ones(3).half(), tg.ones(1)], ids=["dtype", "shape"])
def test_data_from_outside_is_replaced_by_eager(value: Any) -> None:
    w = tg.zeros(3)

    def f(x: Any) -> Any:
        w.data = value
        return w * x

    with pytest.warns(UserWarning, match="another shape or dtype"):
        tg.compile(f, backend="numpy")(tg.ones(3))
    assert w.dtype is value.dtype and w.shape == value.shape


def test_history_from_outside_is_dropped_by_eager() -> None:
    state = tg.ones(3, requires_grad=True) * 2

    def f(x: Any) -> Any:
        state.detach_()
        return state * x

    with pytest.warns(UserWarning, match="detach_"):
        found = tg.compile(f, backend="numpy")(tg.ones(3))
    assert not state.requires_grad and not found.requires_grad


def no_leaf(x: Any) -> None:
    (x * 2).requires_grad_(False)


def a_view(x: Any) -> None:
    (x * 2)[1:].detach_()


@pytest.mark.parametrize("program", [no_leaf, a_view], ids=lambda f: f.__name__)
def test_refused_in_both(program: Callable[[Any], None]) -> None:
    for run in (program, tg.compile(program, backend="numpy")):
        with pytest.raises(tg.errors.GradientError, match="fix:"):
            run(tg.ones(3, requires_grad=True))
