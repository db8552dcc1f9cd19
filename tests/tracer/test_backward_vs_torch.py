"""What backward() and grad() are given, and what tensors retain, as in PyTorch: eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegrad as tg


def written_under_no_grad(lib: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    z = y * 5
    with lib.no_grad():
        y.mul_(3)
    (y * y + z).sum().backward()
    return y.grad, x.grad


def written(lib: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    y.mul_(3)
    (y * y).sum().backward()
    return y.grad, x.grad


def overwritten_in_part(lib: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    y[0] = 7.0
    (y * y).sum().backward()
    return y.grad, x.grad


def a_view_of_what_is_written(lib: Any, x: Any) -> Any:
    y = x * 2
    view = y[1:]
    view.retain_grad()
    y.mul_(3)
    (view * view).sum().backward()
    return view.grad, x.grad


def asked_twice(lib: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    (y * y).sum().backward(retain_graph=True)
    lib.autograd.grad(y.sum(), x)
    return y.grad, x.grad


def retained_and_among_the_inputs(lib: Any, x: Any) -> Any:
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward(inputs=[y, x])
    return y.grad, x.grad


def of_a_leaf(lib: Any, x: Any) -> Any:
    given = lib.ones(3)
    x.backward(given)
    with lib.no_grad():
        x.grad.mul_(10)
    return x.grad, given


def recorded_of_a_leaf(lib: Any, x: Any) -> Any:
    given = lib.ones(3)
    x.backward(given, create_graph=True)
    with lib.no_grad():
        x.grad.mul_(10)
    return x.grad.detach(), given


def of_another_width(lib: Any, x: Any) -> Any:
    (x * x).backward(lib.ones(3, dtype=lib.float64))
    return (x.grad,)


def of_integers(lib: Any, x: Any) -> Any:
    return lib.autograd.grad(x * x, x, lib.full((3,), 3))


def recorded_of_another_width(lib: Any, x: Any) -> Any:
    (first,) = lib.autograd.grad(x * x * x, x, lib.ones(3, dtype=lib.float64), create_graph=True)
    return (first.detach(), *lib.autograd.grad(first.sum(), x))


PROGRAMS = [
    written_under_no_grad, written, overwritten_in_part, a_view_of_what_is_written, asked_twice,
    retained_and_among_the_inputs, of_a_leaf, recorded_of_a_leaf, of_another_width, of_integers,
    recorded_of_another_width,
]  # fmt: skip
VALUES = [1.0, -2.0, 3.0]


@pytest.mark.filterwarnings("ignore:Using backward")  # PyTorch, of create_graph
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_the_gradients_are_those_of_pytorch(program: Callable[[Any, Any], Any]) -> None:
    wanted = program(torch, torch.tensor(VALUES, requires_grad=True))
    compiled = tg.compile(program, backend="numpy")
    for run in (program, compiled, compiled):
        found = run(tg, tg.tensor(VALUES, requires_grad=True))
        assert [g if g is None else g.tolist() for g in found] == [
            g if g is None else g.tolist() for g in wanted
        ]
        assert [str(g.dtype).split(".")[1] for g in found if g is not None] == [
            str(g.dtype).split(".")[1] for g in wanted if g is not None
        ]


def test_a_leaf_from_outside_is_the_root() -> None:
    leaf = tg.ones(3, requires_grad=True)

    def step(x: Any) -> Any:
        leaf.backward(x)
        return x * 1

    tg.compile(step, backend="numpy")(tg.full((3,), 4.0))
    assert leaf.grad is not None and leaf.grad.tolist() == [4.0] * 3


def of_another_shape(x: Any) -> None:
    (x * x).backward(tg.ones(2))


def complex_of_real(x: Any) -> None:
    (x * x).backward(tg.ones(3, dtype=tg.complex64))


def no_tensor(x: Any) -> None:
    (x * x).sum().backward(1.0)


def unused_input(x: Any) -> None:
    tg.autograd.grad((x * x).sum(), [x, tg.ones(2, requires_grad=True)])


def unwanted_input(x: Any) -> None:
    tg.autograd.grad((x * x).sum(), [x, tg.ones(2)])


def walked_before(x: Any) -> None:
    loss = (x * x).sum()
    loss.backward()
    loss.backward()


REFUSED = [
    of_another_shape, complex_of_real, no_tensor, unused_input, unwanted_input, walked_before,
]  # fmt: skip


@pytest.mark.parametrize("program", REFUSED, ids=lambda f: f.__name__)
def test_what_is_refused_is_refused_in_the_same_words(program: Callable[[Any], None]) -> None:
    messages = []
    for run in (program, tg.compile(program, backend="numpy")):
        with pytest.raises((RuntimeError, TypeError)) as caught:
            run(tg.tensor(VALUES, requires_grad=True))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "fix:" in messages[0] and "test_backward_vs_torch.py" in messages[0]
