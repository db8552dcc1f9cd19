"""Gradients against central finite differences along random directions.

With a complex input the gradient g of a real L is dL/d(re) + i dL/d(im), so L changes along v by
Re <g, v> with <g, v> = sum conj(g) v; for real inputs that is the usual scalar product.
"""

from __future__ import annotations

import numpy as np

from tests.sampling import Array
from tracegrad.backends.numpy import interpret
from tracegrad.ir.graph import Graph
from tracegrad.passes.autodiff import gradient_graph

STEP = 1e-5
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}


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
    cotangents = [direction(rng, a) for a in values_at(graph, arrays, outputs)]
    ways = {k: direction(rng, arrays[k]) for k in wrt}

    def loss(step: float) -> float:
        moved = [np.asarray(a + step * ways[k]) if k in ways else a for k, a in enumerate(arrays)]
        values = values_at(graph, moved, outputs)
        return sum(product(ct, value) for ct, value in zip(cotangents, values))

    backward = gradient_graph(graph, wrt, outputs)
    gradients = interpret(backward, [*arrays, *cotangents])
    for k, gradient in zip(wrt, gradients):
        assert gradient.shape == arrays[k].shape and gradient.dtype == arrays[k].dtype
    got = sum(product(gradient, ways[k]) for k, gradient in zip(wrt, gradients))
    expected = (loss(STEP) - loss(-STEP)) / (2 * STEP)
    np.testing.assert_allclose(got, expected, **TOLERANCE)
    return backward


def values_at(graph: Graph, arrays: list[Array], outputs: list[int]) -> list[Array]:
    values = interpret(graph, arrays)
    return [np.array(values[k]) for k in outputs]


def check_orders(
    graph: Graph, arrays: list[Array], wrt: tuple[int, ...], orders: int = 2
) -> list[Graph]:
    """check_gradient of `graph`, then of its gradient graph with respect to `wrt` and so on."""
    graphs = []
    for order in range(orders):
        backward = check_gradient(graph, arrays, wrt, seed=1 + 2 * order)
        graphs.append(backward)
        rng = np.random.default_rng(2 + 2 * order)
        added = backward.inputs[len(arrays) :]
        wrt = (*wrt, *range(len(arrays), len(backward.inputs)))
        arrays = [
            *arrays,
            *(direction(rng, np.zeros(node.shape, node.dtype.np)) for node in added),
        ]
        graph = backward
    return graphs
