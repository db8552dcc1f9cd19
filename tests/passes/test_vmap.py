"""vmap and jvp: against a loop over examples for every op, and against torch.func on functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tests.sampling import Array, Sample
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.loc import Loc, at
from tracegrad.ir.types import DType, TensorType, bool_, f64, i64, u32
from tracegrad.ir.verify import verify
from tracegrad.passes.autodiff import gradient_graph
from tracegrad.passes.jvp import tangent_graph
from tracegrad.passes.vmap import BatchingError, vmap

EXAMPLES = 3
REFUSED = {"fold_in", "random_bits", "fused"}  # over a batched key; made after differentiation


def stacked(arrays: list[Array], axis: int | None) -> Array:
    return arrays[0] if axis is None else np.stack(arrays, axis)


def each_example(
    graph: Graph, columns: list[list[Array]], axes: tuple[int | None, ...]
) -> list[Array]:
    """The outputs, stacked on axis 0, of a loop over the examples."""
    rows = [
        interpret(graph, [column[0 if axis is None else k] for column, axis in zip(columns, axes)])
        for k in range(EXAMPLES)
    ]
    return [np.stack(values) for values in zip(*rows)]


def axis_choices(graph: Graph) -> list[tuple[int | None, ...]]:
    """All inputs batched, on assorted axes; then each alone; then each alone left out."""
    n = len(graph.inputs)
    every = tuple(k % (node.ndim + 1) for k, node in enumerate(graph.inputs))
    alone = [tuple(0 if k == j else None for k in range(n)) for j in range(n)]
    without = [tuple(None if k == j else 0 for k in range(n)) for j in range(n)]
    return list(dict.fromkeys([every, *alone, *without]))


CASES = [
    pytest.param(name, sample, id=f"{name}-{sample.label or index}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
    if sample.arrays() and name not in REFUSED
]


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_every_op_equals_a_loop_over_the_examples(name: str, sample: Sample) -> None:
    graph = sample.graph(name)
    columns = [list(values) for values in zip(*(sample.arrays(seed) for seed in range(EXAMPLES)))]
    for axes in axis_choices(graph):
        if all(axis is None for axis in axes):
            continue
        if name == "dropout" and axes[1] is not None:
            continue
        batched = vmap(graph, axes, EXAMPLES)
        verify(batched)
        arrays = [stacked(column, axis) for column, axis in zip(columns, axes)]
        expected = each_example(graph, columns, axes)
        for ours, wanted in zip(interpret(batched, arrays), expected, strict=True):
            assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype), axes
            tolerance = {"float16": 5e-3, "float32": 1e-5}.get(ours.dtype.name, 1e-10)
            np.testing.assert_allclose(
                ours.astype(np.complex128), wanted.astype(np.complex128),
                rtol=tolerance, atol=tolerance, err_msg=str(axes),
            )  # fmt: skip


def graph_of(function: Callable[..., Any], *types: tuple[tuple[int, ...], DType]) -> Graph:
    inputs = tuple(placeholder(TensorType(shape, dtype)) for shape, dtype in types)
    outputs = function(*inputs)
    return Graph(inputs, outputs if isinstance(outputs, tuple) else (outputs,))


def test_a_batched_condition_chooses_per_example() -> None:
    pair = ((2,), f64)
    then = graph_of(lambda x: x * 2.0, pair)
    orelse = graph_of(lambda x: ops.sin(x), pair)
    graph = graph_of(
        lambda p, x: ops.proj(ops.cond(p, x, then=then, orelse=orelse), index=0), ((), bool_), pair
    )
    p = np.array([True, False, True])
    x = np.random.default_rng(0).standard_normal((3, 2))
    for axes, xs in (((0, 0), x), ((0, None), x[0])):
        (got,) = interpret(vmap(graph, axes, 3), [p, xs])
        rows = x if axes[1] == 0 else np.broadcast_to(x[0], x.shape)
        np.testing.assert_array_equal(got, np.where(p[:, None], rows * 2.0, np.sin(rows)))


@pytest.mark.parametrize("bound", [None, 6])
def test_a_loop_ends_for_each_example_on_its_own(bound: int | None) -> None:
    types = (((), f64), ((), i64))
    going = graph_of(lambda x, n: ops.lt(ops.splat(0, n.type), n), *types)
    body = graph_of(lambda x, n: (x * 2.0, n - 1), *types)
    graph = graph_of(
        lambda x, n: ops.proj(
            ops.while_loop(x, n, cond=going, body=body, max_trips=bound), index=0
        ),
        *types,
    )
    trips = np.array([0, 5, 2])
    (got,) = interpret(vmap(graph, (None, 0), 3), [np.array(1.5), trips])
    np.testing.assert_array_equal(got, 1.5 * 2.0**trips)
    if bound is not None:
        gradient = gradient_graph(vmap(graph, (0, 0), 3), (0,))
        (got,) = interpret(gradient, [np.ones(3), trips, np.ones(3)])
        np.testing.assert_array_equal(got, 2.0**trips)


def test_what_no_example_changes_is_not_repeated() -> None:
    graph = graph_of(lambda x, w: x * ops.tanh(w), ((4,), f64), ((4,), f64))
    batched = vmap(graph, (0, None), 7)
    (tanh,) = (node for node in batched.nodes if node.op is ops.tanh)
    assert tanh.shape == (4,)


def test_shared_weights_give_one_product_for_all_examples() -> None:
    graph = graph_of(ops.matmul, ((3, 4), f64), ((4, 5), f64))
    (product_,) = (n for n in vmap(graph, (0, None), 7).nodes if n.op is ops.matmul)
    assert product_.shape == (21, 5)


def test_locations_name_the_user_line_and_the_step() -> None:
    with at(Loc("net.py", 41)):
        graph = graph_of(ops.tanh, ((2,), f64))
    (node,) = (node for node in vmap(graph, (0,), 3).nodes if node.op is ops.tanh)
    assert str(node.loc) == "net.py:41 <- vmap"


def test_a_batched_key_is_refused_with_the_op_and_the_line() -> None:
    with at(Loc("net.py", 7)):
        graph = graph_of(lambda key: ops.random_bits(key, shape=(3,)), ((2,), u32))
    with pytest.raises(BatchingError, match=r"random_bits at net.py:7 cannot be vectorised"):
        vmap(graph, (0,), 4)
    with pytest.raises(BatchingError, match="in_axes 3 for input"):
        vmap(graph, (3,), 4)
    with pytest.raises(BatchingError, match="2 in_axes for 1 inputs"):
        vmap(graph, (0, 0), 4)


# ---------------------------------------------------------------- jvp


JVP_CASES = [
    pytest.param(name, sample, id=f"{name}-{sample.label or index}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
    if sample.differentiable and sample.grad_check and not sample.label.startswith("complex")
]


@pytest.mark.parametrize(("name", "sample"), JVP_CASES)
def test_a_tangent_pairs_with_a_cotangent_as_the_gradient_does(name: str, sample: Sample) -> None:
    # <ct, J t> = <J^T ct, t>
    graph, arrays, wrt = sample.graph(name), sample.arrays(), sample.differentiable
    rng = np.random.default_rng(4)
    directions = [random_like(rng, arrays[k]) for k in wrt]
    forward = tangent_graph(graph, wrt)
    results = interpret(forward, [*arrays, *directions])
    count = len(graph.outputs)
    for value, wanted in zip(results[:count], interpret(graph, arrays), strict=True):
        np.testing.assert_array_equal(value, wanted)
    tangents = results[count:]
    cotangents = [random_like(rng, t) for t in tangents]
    gradients = interpret(gradient_graph(graph, wrt), [*arrays, *cotangents])
    left = sum(inner(ct, t) for ct, t in zip(cotangents, tangents, strict=True))
    right = sum(inner(g, d) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-10)


def random_like(rng: np.random.Generator, array: Array) -> Array:
    v = rng.standard_normal(array.shape)
    if np.iscomplexobj(array):
        v = v + 1j * rng.standard_normal(array.shape)
    return np.asarray(v).astype(array.dtype)


def inner(x: Array, y: Array) -> float:
    return float(np.sum(np.conj(x) * y).real)


# ---------------------------------------------------------------- against torch.func


def mlp(x: Node, w: Node, b: Node) -> Node:
    h = ops.matmul(ops.reshape(x, shape=(1, *x.shape)), w)
    return ops.sum_(ops.gelu(ops.reshape(h, shape=b.shape) + b, approximate="none"), axes=(0,))


def test_per_example_gradients_are_those_of_torch_func() -> None:
    torch = pytest.importorskip("torch", reason="torch.func is the oracle")
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((5, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    graph = graph_of(mlp, ((3,), f64), ((3, 4), f64), ((4,), f64))
    gradients = gradient_graph(graph)
    batched = vmap(gradients, (0, None, None, None), 5)
    got = interpret(batched, [x, w, b, np.array(1.0)])

    def reference(x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.gelu(x @ w + b).sum()

    one = torch.func.grad(reference, argnums=(0, 1, 2))
    expected = torch.func.vmap(one, in_dims=(0, None, None))(*map(torch.tensor, (x, w, b)))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-12)


def test_the_jacobian_is_that_of_torch_func() -> None:
    torch = pytest.importorskip("torch", reason="torch.func is the oracle")
    rng = np.random.default_rng(1)
    x = rng.standard_normal(4)
    graph = graph_of(lambda x: ops.softmax(ops.sin(x) * 2.0, axis=0), ((4,), f64))
    backward = vmap(gradient_graph(graph), (None, 0), 4)  # one cotangent per output element
    forward = vmap(tangent_graph(graph), (None, 1), 4)  # one tangent per input element
    expected = torch.func.jacrev(lambda x: torch.softmax(torch.sin(x) * 2.0, 0))(torch.tensor(x))
    np.testing.assert_allclose(interpret(backward, [x, np.eye(4)])[0], expected.numpy(), rtol=1e-10)
    columns = interpret(forward, [x, np.eye(4)])[1]
    np.testing.assert_allclose(columns.T, expected.numpy(), rtol=1e-10)


def test_a_hessian_vector_product_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rng = np.random.default_rng(2)
    x, w, b, v = (rng.standard_normal(shape) for shape in ((3,), (3, 4), (4,), (3,)))
    graph = graph_of(mlp, ((3,), f64), ((3, 4), f64), ((4,), f64))
    forward_over_reverse = tangent_graph(gradient_graph(graph, (0,)), (0,))
    got = interpret(forward_over_reverse, [x, w, b, np.array(1.0), v])[1]

    point = torch.tensor(x, requires_grad=True)
    loss = torch.nn.functional.gelu(point @ torch.tensor(w) + torch.tensor(b)).sum()
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, point, torch.tensor(v))  # the Hessian is symmetric
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-10, atol=1e-12)
