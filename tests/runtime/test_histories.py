"""What carries a gradient and what does not: the same eager, compiled, and where there is an oracle in
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegrad as tg
from tests.runtime.programs import BACKENDS

Program = Callable[..., list[Any]]


def number_of_a_value_without_history(lib: Any, w: Any, v: Any) -> list[Any]:
    """No gradient goes through a number, though the tensor it was read from was made of `w`."""
    with lib.no_grad():
        total = (w * 2).sum()
    number = total.item()
    y = (v * number).sum() + (v.add(w, alpha=number) ** 2).sum() + lib.where(v > 0, number, w).sum()
    found = lib.autograd.grad(y + (w * w).sum(), [w, v])
    return [*found, total.requires_grad]


def number_of_a_leaf_that_was_written(lib: Any, w: Any, v: Any) -> list[Any]:
    found: list[Any] = []
    with lib.no_grad():
        w.mul_(0.5)
    y = w[0] * w.detach().sum().item()
    return [*lib.autograd.grad(y, [w]), w.is_leaf, y.requires_grad, *found]


def two_gradients_added(lib: Any, w: Any, v: Any) -> list[Any]:
    """`.grad` accumulates under create_graph: the sum has a history, too."""
    w.grad = None
    (w**3).sum().backward(create_graph=True)
    w.sin().sum().backward(create_graph=True)
    found = lib.autograd.grad(w.grad.square().sum() + w.sum(), [w])
    w.grad = None
    return list(found)


def leaf_with_two_values(lib: Any, w: Any, v: Any) -> list[Any]:
    """Read before and after a write under no_grad: its gradient is a sum with a history."""
    before = v * 2
    with lib.no_grad():
        v.mul_(0.5)
    y = (before + v * 0.1).square().sum()
    (gradient,) = lib.autograd.grad(y, [v], create_graph=True)
    return list(lib.autograd.grad((gradient * gradient).sum() + y, [v]))


def create_graph_under_no_grad(lib: Any, w: Any, v: Any) -> list[Any]:
    y = (w**3).sum()
    with lib.no_grad():
        (gradient,) = lib.autograd.grad(y, [w], create_graph=True)
    return [*lib.autograd.grad((gradient * gradient).sum(), [w]), gradient.requires_grad]


def accumulated_under_no_grad(lib: Any, w: Any, v: Any) -> list[Any]:
    w.grad = None
    y = (w**3).sum()
    with lib.no_grad():
        y.backward(create_graph=True, retain_graph=True)
        y.backward(create_graph=True)
    gradient = w.grad
    w.grad = None
    return [*lib.autograd.grad((gradient * gradient).sum(), [w]), gradient.requires_grad]


def given(lib: Any) -> list[Any]:
    return [lib.tensor([0.3, 0.5], requires_grad=True), lib.tensor([3.0, 4.0], requires_grad=True)]


def plain(values: list[Any]) -> list[Any]:
    return [v if isinstance(v, bool) else v.tolist() for v in values]


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize(
    "program",
    [
        number_of_a_value_without_history, number_of_a_leaf_that_was_written, two_gradients_added,
        leaf_with_two_values, create_graph_under_no_grad, accumulated_under_no_grad,
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph:UserWarning")
def test_as_in_pytorch(program: Program, backend: str) -> None:
    expected = plain(program(torch, *given(torch)))
    w, v = given(tg)

    def function() -> list[Any]:
        return program(tg, w, v)

    if backend != "eager":
        function = tg.compile(function, backend=backend, fullgraph=True)
    for found, wanted in zip(plain(function()), expected, strict=True):
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_a_leaf_stays_one(backend: str) -> None:
    """Written under no_grad, and read as a number."""
    w = tg.tensor([1.0, 2.0], requires_grad=True)

    def function() -> tg.Tensor:
        with tg.no_grad():
            w.mul_(0.5)
        return w[0] * w.sum().item()

    if backend != "eager":
        function = tg.compile(function, backend=backend, fullgraph=True)
    for expected in ([1.5, 0.0], [2.25, 0.0]):
        function().backward()
        assert w.is_leaf
        assert w.grad.tolist() == expected


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_a_gradient_read_twice_of_no_dimensions_is_a_tensor(backend: str) -> None:
    """Written under no_grad between two uses: the gradient is a sum of two."""
    w = tg.tensor(2.0, requires_grad=True)

    def function() -> tg.Tensor:
        square = w * w
        with tg.no_grad():
            w.mul_(0.5)
        (gradient,) = tg.autograd.grad(square * w, [w])
        return gradient

    if backend != "eager":
        function = tg.compile(function, backend=backend, fullgraph=True)
    found = function()
    assert isinstance(found, tg.Tensor) and found.item() == 8.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_with_a_history_is_left_by_eager(backend: str) -> None:
    """A compiled call's results lead back into it, `.grad` does not."""
    w = tg.tensor([0.3, 0.5], requires_grad=True)
    function = tg.compile(
        lambda: (w**3).sum().backward(create_graph=True), backend=backend, keep_grads=True
    )
    with pytest.warns(UserWarning, match=r"a \.grad with a history"):
        function()
    (found,) = tg.autograd.grad(w.grad.square().sum() + w.sum(), [w])
    assert found.tolist() == pytest.approx([1.972, 5.5])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_function_that_turns_gradients_on_is_called_under_no_grad(backend: str) -> None:
    weight = tg.ones(3, requires_grad=True)

    @tg.compile(backend=backend, fullgraph=True)
    def total(x: Any) -> Any:
        with tg.enable_grad():
            return (weight * x).sum()

    for count in (1, 2):
        with tg.no_grad():
            result = total(tg.ones(3))
        assert result.requires_grad
        result.backward()
        assert weight.grad.tolist() == [count] * 3
        assert total(tg.ones(3)).requires_grad


def written_argument(lib: Any, w: Any, given: Any) -> None:
    given.mul_(w)
    (given * given).sum().backward()


def written_state(lib: Any, w: Any, given: Any) -> None:
    given.add_(w * w)
    (given * 1.0).sum().backward()


def written_with_sums(lib: Any, w: Any, given: Any) -> None:
    """Nothing is kept for these gradients: they may be asked for again."""
    given.add_(w)
    given.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("program", [written_argument, written_state, written_with_sums])
def test_what_is_written_and_walked_backwards_keeps_that_it_has_a_history(
    program: Callable[..., None], captured: bool, backend: str
) -> None:
    """As in PyTorch, so that a second walk is an error there too, or is refused: never another gradient."""
    found = []
    for lib in (torch, tg):
        w, given = lib.ones(3, requires_grad=True), lib.full((3,), 2.0)

        def step(x: Any, lib: Any = lib, w: Any = w, given: Any = given) -> None:
            program(lib, w, given if captured else x)

        run = step if lib is torch else tg.compile(step, backend=backend)
        run(given)
        found.append([given.requires_grad, given.is_leaf, given.tolist(), w.grad.tolist()])
        if program is written_with_sums:
            (given * 2).sum().backward()
            found[-1].append(w.grad.tolist())
        else:
            with pytest.raises(RuntimeError, match="second time"):
                (given * 1.0).sum().backward()
    with pytest.raises(tg.errors.GradientError, match="computed outside it|second time"):
        run(given)
    assert found[0] == found[1]
