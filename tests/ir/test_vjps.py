"""Every VJP, at first and second order, against finite differences and PyTorch's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gradcheck import check_orders, direction
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends.numpy import interpret
from tracegrad.passes.autodiff import gradient_graph

CHECKED = [
    pytest.param(name, sample, id=f"{name}-{sample.label or index}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
    if sample.differentiable and sample.grad_check
]


@pytest.mark.parametrize(("name", "sample"), CHECKED)
def test_first_and_second_order(name: str, sample: Sample) -> None:
    check_orders(sample.graph(name), sample.arrays(), sample.differentiable)


@pytest.mark.parametrize(("name", "attrs"), [("prod", {"axes": (1,)}), ("cumprod", {"axis": 1})])
def test_third_order_of_products_with_zeros(name: str, attrs: dict[str, Any]) -> None:
    # d3(a b c d)/da db dc = d, also where a, b and c are zero: no formula that divides gets it.
    zeros = Sample(lambda rng: (np.array([[0.0, 0.0, 0.0, 5.0]]),), attrs, (0,))
    check_orders(zeros.graph(name), zeros.arrays(), (0,), orders=3)


def gradients(name: str, attrs: dict[str, Any], *arrays: Any) -> list[list[Any]]:
    """Gradients of the sum of the op's result with respect to all its inputs."""
    values = [np.asarray(a) for a in arrays]
    graph = Sample(lambda rng: tuple(values), attrs).graph(name)
    backward = gradient_graph(graph)
    ones = [np.ones(node.shape, node.dtype.np) for node in graph.outputs]
    return [g.tolist() for g in interpret(backward, [*values, *ones])]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "attrs", "inputs", "expected"),
    [
        ("abs", {}, [[0.0, -0.0, 2.0]], [[0, 0, 1]]),
        ("sign", {}, [[0.0, 3.0]], [[0, 0]]),
        ("maximum", {}, [[1.0, 2.0, 0.0], [1.0, 0.0, 3.0]], [[0.5, 1, 0], [0.5, 0, 1]]),
        ("minimum", {}, [[1.0, 2.0, 0.0], [1.0, 0.0, 3.0]], [[0.5, 0, 1], [0.5, 1, 0]]),
        ("maximum", {}, [[NAN, 1.0], [1.0, NAN]], [[1, 1], [1, 1]]),
        ("max", {"axes": (1,)}, [[[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]], [[[0, 0.5, 0.5], [1, 0, 0]]]),
        ("min", {"axes": (0,)}, [[1.0, 1.0, 3.0, 1.0]], [[1 / 3, 1 / 3, 0, 1 / 3]]),
        ("cummax", {"axis": 0}, [[1.0, 1.0, 3.0, 2.0]], [[1, 1, 2, 0]]),
        ("cummin", {"axis": 0}, [[1.0, 1.0, 0.0, 2.0]], [[1, 1, 2, 0]]),
        ("cummax", {"axis": 0}, [[1.0, NAN, 3.0]], [[1, 2, 0]]),
        ("pow", {}, [[0.0, 0.0, 2.0], [0.0, 2.0, 0.0]], [[0, 0, 0], [0, 0, np.log(2.0)]]),
        ("cumlogsumexp", {"axis": 0}, [[-INF, 0.0]], [[0, 1]]),
        ("scatter", {"axes": (0,), "mode": "max"}, [[1.0, 0.0], [0, 0], [1.0, 1.0]],
         [[1 / 3, 1], [1 / 3, 1 / 3]]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_conventions_at_kinks(
    name: str, attrs: dict[str, Any], inputs: list[Any], expected: list[Any]
) -> None:
    got = gradients(name, attrs, *inputs)
    assert len(got) == len(expected)
    for gradient, wanted in zip(got, expected):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-12)


TORCH_NAMES = {
    "neg": "neg", "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt",
    "rsqrt": "rsqrt", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos",
    "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh",
    "acosh": "acosh", "atanh": "atanh", "abs": "abs", "sign": "sgn", "real": "real",
    "imag": "imag", "conj": "conj_physical", "add": "add", "sub": "sub", "mul": "mul",
    "div": "div", "pow": "pow",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_complex_gradients_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of complex gradients")
    sample = next(
        s for s in SAMPLES[name] if s.differentiable and s.arrays()[0].dtype == np.complex128
    )
    arrays = sample.arrays()
    graph = sample.graph(name)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = getattr(torch, TORCH_NAMES[name])(*tensors)
    ct = direction(np.random.default_rng(5), value.detach().numpy())
    expected = torch.autograd.grad(value, tensors, torch.tensor(ct))
    got = interpret(gradient_graph(graph), [*arrays, ct])
    for ours, theirs in zip(got, expected):
        np.testing.assert_allclose(ours, theirs.resolve_conj().numpy(), rtol=1e-9, atol=1e-12)
