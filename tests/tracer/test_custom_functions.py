"""What an autograd.Function may return from forward and backward, as in PyTorch: eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tracegrad as tg


def no_save(lib: Any, ctx: Any, x: Any) -> Any:
    return x * 2


def with_none(lib: Any, ctx: Any, x: Any) -> Any:
    return x * 2, None


def with_a_number(lib: Any, ctx: Any, x: Any) -> Any:
    return 5, x * 2


def two(lib: Any, ctx: Any, x: Any) -> Any:
    return x * 2, x * 3


def two_or_none(lib: Any, ctx: Any, x: Any) -> Any:
    ctx.set_materialize_grads(False)
    return x * 2, x * 3


def not_differentiable(lib: Any, ctx: Any, x: Any) -> Any:
    y = x * 3
    ctx.mark_non_differentiable(y)
    return x * 2, y


FITTING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "of another width": (no_save, lambda lib, g: g.double() * 2),
    "of more dimensions": (no_save, lambda lib, g: lib.ones(5, 2, 3)),
    "none beside": (with_none, lambda lib, g, h: g * (2 if h is None else 0)),
    "a number beside": (with_a_number, lambda lib, g, h: h * (2 if g is None else 0)),
    "zeros for missing": (two, lambda lib, g, h: g * 2 + h * 10 + 1),
    "none for missing": (two_or_none, lambda lib, g, h: g * 2 + (100 if h is None else h)),
    "not differentiable": (not_differentiable, lambda lib, g, h: g * 2 + h * 1000),
}
WRONG: dict[str, Callable[..., Any]] = {
    "of fewer dimensions": lambda lib, g: g.sum(0),
    "of another shape": lambda lib, g: lib.ones(7),
    "a number": lambda lib, g: 2.0,
    "a list": lambda lib, g: [g * 2],
}


def function_of(lib: Any, forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    class Doubled(lib.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return forward(lib, ctx, x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward(lib, *gradients)

    return Doubled


def gradient(lib: Any, function: Any, x: Any) -> Any:
    """The gradient of the first tensor that it returns, times a second one if that is a tensor."""
    found = function.apply(x)
    found = found if isinstance(found, tuple) else (found,)
    tensors = [f for f in found if hasattr(f, "requires_grad")]
    loss = tensors[0]
    if len(tensors) == 2 and not tensors[1].requires_grad:
        loss = loss * tensors[1]
    loss.sum().backward()
    return x.grad


def values(lib: Any) -> Any:
    return lib.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("case", FITTING)
def test_gradients_are_those_of_pytorch(case: str, backend: str) -> None:
    if backend == "jax":
        pytest.importorskip("jax")
    wanted = gradient(torch, function_of(torch, *FITTING[case]), values(torch))
    ours = function_of(tg, *FITTING[case])
    compiled = tg.compile(lambda x: gradient(tg, ours, x), backend=backend)
    for found in (gradient(tg, ours, values(tg)), compiled(values(tg))):
        assert found.tolist() == wanted.tolist()
        assert found.dtype is tg.float32


@pytest.mark.parametrize("case", WRONG)
def test_other_gradients_are_refused(case: str) -> None:
    with pytest.raises(RuntimeError):
        gradient(torch, function_of(torch, no_save, WRONG[case]), values(torch))
    ours = function_of(tg, no_save, WRONG[case])
    compiled = tg.compile(lambda x: gradient(tg, ours, x), backend="numpy")
    for run in (lambda x: gradient(tg, ours, x), compiled):
        with pytest.raises((tg.errors.ShapeError, tg.errors.ArgumentError)) as caught:
            run(values(tg))
        assert "Doubled.backward" in str(caught.value) and "fix:" in str(caught.value)


@pytest.mark.parametrize("backend", ["eager", "numpy", "jax"])
def test_a_context_that_is_set_up_apart(backend: str) -> None:
    """`forward` without a context, `setup_context` beside it; of second order, too."""

    def function(lib: Any) -> Callable[[Any], list[Any]]:
        class Cube(lib.autograd.Function):
            @staticmethod
            def forward(x: Any, scale: float) -> tuple[Any, Any]:
                return x * x * x * scale, x > 0

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
                x, ctx.scale = inputs
                cube, positive = output
                ctx.mark_non_differentiable(positive)
                ctx.save_for_backward(x, cube)

            @staticmethod
            def backward(ctx: Any, g: Any, of_positive: Any) -> tuple[Any, None]:
                x, cube = ctx.saved_tensors
                return g * x * x * 3 * ctx.scale + 0 * cube.detach(), None

        def gradients(x: Any) -> list[Any]:
            cube, positive = Cube.apply(x, 0.5)
            (first,) = lib.autograd.grad(cube.sum(), x, create_graph=True)
            return [cube, positive, first, *lib.autograd.grad(first.sum(), x)]

        return gradients

    ours = function(tg)
    if backend != "eager":
        ours = tg.compile(ours, backend=backend, fullgraph=True)
    found, wanted = ours(values(tg)), function(torch)(values(torch))
    assert [f.tolist() for f in found] == [w.tolist() for w in wanted]
