"""Gradients of gradients through several calls of an `autograd.Function` inside a compiled function."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg

torch = pytest.importorskip("torch")


def second_order(lib, backend: str | None) -> np.ndarray:
    class Scaled(lib.autograd.Function):
        """A backward that is not the forward's, so that it is known by its numbers."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, ct):
            (x,) = ctx.saved_tensors
            return ct * 3 * x

    w = lib.tensor([0.5, 0.2, -0.3], requires_grad=True)

    def f(x):
        y = Scaled.apply(-x * w)
        y = Scaled.apply(-y * w)  # between the two calls the cotangent depends on w
        return lib.autograd.grad(y.sum(), w, create_graph=True)[0]

    call = tg.compile(f, backend=backend) if backend else f
    gradient = call(lib.tensor([1.0, 2.0, 3.0]))
    return lib.autograd.grad((gradient**2).sum(), w)[0].numpy()


@pytest.mark.parametrize("backend", [None, "numpy", "jax"])
def test_gradient_between_two_custom_calls(backend):
    if backend == "jax":
        pytest.importorskip("jax")
    np.testing.assert_allclose(second_order(tg, backend), second_order(torch, None), rtol=1e-5)
