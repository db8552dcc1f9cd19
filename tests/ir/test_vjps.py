"""Every VJP, at first and second order, against central finite differences along random directions.

With a complex input the gradient g of a real L is dL/d(re) + i dL/d(im), so L changes along v by Re <g, v>
with <g, v> = sum conj(g) v; for real inputs that is the usual scalar product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tests.sampling import Array, Sample
from tracegrad.backends.numpy import interpret
from tracegrad.ir.graph import Graph
from tracegrad.passes.autodiff import gradient_graph

STEP = 1e-5
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}

CHECKED = [
    pytest.param(name, sample, id=f"{name}-{sample.label or index}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
    if sample.differentiable and sample.grad_check
]


def direction(rng: np.random.Generator, like: Array) -> Array:
    """A random array of the shape and dtype of `like`."""
    v = rng.standard_normal(like.shape)
    if np.iscomplexobj(like):
        v = v + 1j * rng.standard_normal(like.shape)
    return np.asarray(v).astype(like.dtype)


def product(g: Array, v: Array) -> float:
    return float(np.sum(np.conj(g) * v).real)


def check_gradient(graph: Graph, arrays: list[Array], wrt: tuple[int, ...], seed: int) -> Graph:
    """Compare the gradient graph of `graph` at `arrays` with differences; returns that graph."""
    rng = np.random.default_rng(seed)
    outputs = [k for k, node in enumerate(graph.outputs) if node.dtype.is_inexact]
    cotangents = [direction(rng, a) for a in np_values(graph, arrays, outputs)]
    ways = {k: direction(rng, arrays[k]) for k in wrt}

    def loss(step: float) -> float:
        moved = [np.asarray(a + step * ways[k]) if k in ways else a for k, a in enumerate(arrays)]
        values = np_values(graph, moved, outputs)
        return sum(product(ct, value) for ct, value in zip(cotangents, values))

    backward = gradient_graph(graph, wrt, outputs)
    gradients = interpret(backward, [*arrays, *cotangents])
    for k, gradient in zip(wrt, gradients):
        assert gradient.shape == arrays[k].shape and gradient.dtype == arrays[k].dtype
    got = sum(product(gradient, ways[k]) for k, gradient in zip(wrt, gradients))
    expected = (loss(STEP) - loss(-STEP)) / (2 * STEP)
    np.testing.assert_allclose(got, expected, **TOLERANCE)
    return backward


def np_values(graph: Graph, arrays: list[Array], outputs: list[int]) -> list[Array]:
    values = interpret(graph, arrays)
    return [np.array(values[k]) for k in outputs]


@pytest.mark.parametrize(("name", "sample"), CHECKED)
def test_first_and_second_order(name: str, sample: Sample) -> None:
    graph, arrays = sample.graph(name), sample.arrays()
    backward = check_gradient(graph, arrays, sample.differentiable, seed=1)
    # Second order: the gradient as a function of the inputs and of the cotangents.
    rng = np.random.default_rng(2)
    cotangents = [
        direction(rng, np.zeros(node.shape, node.dtype.np))
        for node in backward.inputs[len(arrays) :]
    ]
    wrt = (*sample.differentiable, *range(len(arrays), len(backward.inputs)))
    check_gradient(backward, [*arrays, *cotangents], wrt, seed=3)


def test_third_order_of_products_with_zeros() -> None:
    # d3(a b c d)/da db dc = d, also where a, b and c are zero: no formula that divides gets it.
    sample = SAMPLES["prod"][0]
    zeros = Sample(lambda rng: (np.array([[0.0, 0.0, 0.0, 5.0]]),), {"axes": (1,)}, (0,))
    running = Sample(lambda rng: (np.array([[0.0, 0.0, 0.0, 5.0]]),), {"axis": 1}, (0,))
    assert sample.differentiable == (0,)
    for name, case in (("prod", zeros), ("cumprod", running)):
        graph, arrays = case.graph(name), case.arrays()
        for order in range(3):
            graph = check_gradient(graph, arrays, (0,), seed=order)
            rng = np.random.default_rng(order)
            more = graph.inputs[len(arrays) :]
            arrays = [
                *arrays,
                *(direction(rng, np.zeros(node.shape, node.dtype.np)) for node in more),
            ]


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
