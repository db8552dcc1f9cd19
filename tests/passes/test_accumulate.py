"""Products that a state takes in: which are found, and that the code adds them where the state lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tracegrad.backends.base import BackendError, Options
from tracegrad.backends.numpy import compile, interpret
from tracegrad.backends.numpy.fast import blas
from tracegrad.backends.numpy.fast.matmul import add_product
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import DType, TensorType, f32, f64, i64
from tracegrad.passes.accumulate import Accumulate

needs_gemm = pytest.mark.skipif(not blas.gemms(), reason="NumPy's BLAS is not its own OpenBLAS")
ROWS, DEPTH, COLUMNS = 256, 8, 160
Update = Callable[[Node, Node, Node, Node], Node]


def spread(factor: Node) -> Node:
    return ops.broadcast_to(factor, shape=(ROWS, COLUMNS), dims=())


def product(x: Node, y: Node) -> Node:
    return ops.matmul(x, y)


def turned(x: Node, y: Node) -> Node:
    """The same, as the gradient of a linear layer comes."""
    flipped = ops.matmul(ops.transpose(y, perm=(1, 0)), ops.transpose(x, perm=(1, 0)))
    return ops.transpose(flipped, perm=(1, 0))


UPDATES: dict[str, Update] = {
    "added": lambda w, x, y, lr: w + product(x, y),
    "added in front": lambda w, x, y, lr: product(x, y) + w,
    "subtracted": lambda w, x, y, lr: w - product(x, y),
    "scaled": lambda w, x, y, lr: w - product(x, y) * spread(lr),
    "scaled by a constant": lambda w, x, y, lr: w - ops.splat(0.5, w.type) * product(x, y),
    "turned": lambda w, x, y, lr: w - spread(lr) * turned(x, y),
    "scaled before it is turned": lambda w, x, y, lr: w + ops.transpose(
        ops.matmul(ops.transpose(y, perm=(1, 0)), ops.transpose(x, perm=(1, 0)))
        * ops.broadcast_to(lr, shape=(COLUMNS, ROWS), dims=()), perm=(1, 0),
    ),
}  # fmt: skip
OTHERS: dict[str, Update] = {
    "the product is the first": lambda w, x, y, lr: product(x, y) - w,
    "the state is scaled": lambda w, x, y, lr: w * spread(lr) + product(x, y),
    "scaled twice": lambda w, x, y, lr: w - product(x, y) * spread(lr) * spread(lr),
    "scaled by a row": lambda w, x, y, lr: w - product(x, y) * ops.broadcast_to(
        ops.reshape(ops.slice_(x, start=(0, 0), stop=(ROWS, 1), step=(1, 1)), shape=(ROWS,)),
        shape=(ROWS, COLUMNS), dims=(0,),
    ),
    "no product": lambda w, x, y, lr: w - spread(lr),
}  # fmt: skip


def step(update: Update, dtype: DType = f32, other: Callable[..., Node] | None = None) -> Graph:
    """One state (ROWS, COLUMNS), two factors of a product, a number; the new state and maybe more."""
    shapes: list[tuple[int, ...]] = [(ROWS, COLUMNS), (ROWS, DEPTH), (DEPTH, COLUMNS), ()]
    w, x, y, lr = (placeholder(TensorType(shape, dtype)) for shape in shapes)
    new = update(w, x, y, lr)
    outputs = (new,) if other is None else (new, other(new, x, y))
    return Graph(
        (w, x, y, lr), outputs, name="step", input_names=("w", "x", "y", "lr"),
        input_roles=("state", "argument", "argument", "host"),
        output_names=("new_w", "other")[: len(outputs)], output_roles=("state:w", "result")[: len(outputs)],
    )  # fmt: skip


def values(dtype: DType = f32, lr: float = 0.125) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(ROWS, COLUMNS), (ROWS, DEPTH), (DEPTH, COLUMNS)]
    return [random.standard_normal(s).astype(dtype.np) for s in shapes] + [np.array(lr, dtype.np)]


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@needs_gemm
def test_a_product_is_added_to_the_state_it_is_for(update: Update, dtype: DType) -> None:
    graph = step(update, dtype)
    found = Accumulate().run(graph)
    assert "accumulate" in names(found) and "matmul" not in names(found)
    assert all(node.loc is old.loc for node, old in zip(found.outputs, graph.outputs))
    arrays = values(dtype)
    (wanted,) = interpret(graph, arrays)
    (fresh,) = compile(graph)(arrays)
    np.testing.assert_allclose(fresh, wanted, rtol=1e-5, atol=1e-5)
    executable = compile(graph, Options(donate=(0,), poison=True))
    assert "add_product" in executable.source and "matmul" not in executable.source
    (updated,) = executable(arrays)
    assert updated is arrays[0]
    np.testing.assert_array_equal(updated, fresh)


@pytest.mark.parametrize("update", OTHERS.values(), ids=OTHERS)
def test_other_updates_are_left_alone(update: Update) -> None:
    graph = step(update)
    assert Accumulate().run(graph) is graph


def test_a_product_that_is_read_elsewhere_is_made() -> None:
    shared: list[Node] = []

    def update(w: Node, x: Node, y: Node, lr: Node) -> Node:
        shared.append(product(x, y))
        return w - shared[0]

    graph = step(update, other=lambda new, x, y: ops.exp(shared[0]))
    assert Accumulate().run(graph) is graph
    shared.clear()
    graph = step(update, other=lambda new, x, y: shared[0])  # a result of the step
    assert Accumulate().run(graph) is graph


def test_small_states_and_other_dtypes_are_left_alone() -> None:
    graph = step(UPDATES["added"])
    assert Accumulate(min_size=ROWS * COLUMNS + 1).run(graph) is graph
    assert "accumulate" in names(Accumulate(min_size=ROWS * COLUMNS).run(graph))
    integers = step(UPDATES["added"], i64)
    assert Accumulate().run(integers) is integers


@needs_gemm
def test_the_new_state_may_be_read_and_taken_in_again() -> None:
    def other(new: Node, x: Node, y: Node) -> Node:
        return ops.exp(ops.matmul(new, ops.transpose(y, perm=(1, 0))))

    graph = step(UPDATES["scaled"], other=other)
    arrays = values()
    wanted = interpret(graph, arrays)
    results = compile(graph, Options(donate=(0,)))(arrays)
    for actual, expected in zip(results, wanted):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@needs_gemm
def test_a_product_of_the_state_itself() -> None:
    """BLAS must not read what it writes."""
    w, lr = placeholder(TensorType((256, 256), f32)), placeholder(TensorType((), f32))
    factor = ops.broadcast_to(lr, shape=(256, 256), dims=())
    new = w - factor * ops.matmul(w, ops.transpose(w, perm=(1, 0)))
    graph = Graph((w, lr), (new,), input_names=("w", "lr"), output_roles=("state:w",))
    array = np.random.default_rng(0).standard_normal((256, 256)).astype("f4")
    arrays = [array, np.array(0.01, "f4")]
    (wanted,) = interpret(graph, arrays)
    (updated,) = compile(graph, Options(donate=(0,)))(arrays)
    assert updated is array
    np.testing.assert_allclose(updated, wanted, rtol=1e-4, atol=1e-4)


@needs_gemm
@pytest.mark.parametrize("lr", [0.0, -0.0, float("inf"), float("nan")])
def test_what_is_no_number_stays_none(lr: float) -> None:
    """A factor of 0 does not hide a nan of the product, nor an infinite one a zero."""
    graph = step(UPDATES["scaled"])
    arrays = values(lr=lr)
    arrays[1][3, 2], arrays[1][5], arrays[2][:, 7] = np.nan, np.inf, 0
    with np.errstate(all="ignore"):
        (wanted,) = interpret(graph, arrays)
    (updated,) = compile(graph, Options(donate=(0,)))(arrays)
    np.testing.assert_allclose(updated, wanted, rtol=1e-5, atol=1e-5)


@needs_gemm
def test_a_step_that_fails_has_added_nothing() -> None:
    def checked(new: Node, x: Node, y: Node) -> Node:
        index = ops.cast(ops.slice_(y, start=(0, 0), stop=(1, 2), step=(1, 1)), dtype=i64)
        return ops.gather(x, ops.reshape(index, shape=(2,)), axes=(0,))

    graph = step(UPDATES["scaled"], other=checked)
    arrays = values()
    arrays[2][0, :2] = 5000, 0
    before = arrays[0].copy()
    with pytest.raises(BackendError):
        compile(graph, Options(donate=(0,)))(arrays)
    np.testing.assert_array_equal(arrays[0], before)


def test_without_a_known_blas_products_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "gemms", dict)
    # a number of its own: code is shared by equal graphs
    source = compile(step(lambda w, x, y, lr: w - product(x, y) * ops.splat(0.75, w.type))).source
    assert "matmul" in source and "add_product" not in source


@needs_gemm
def test_a_transpose_that_moves_nothing_turns_nothing() -> None:
    """Square matrices: a wrong turn would fit."""
    w, x, y = (placeholder(TensorType((256, 256), f32)) for _ in range(3))
    still = ops.transpose(y, perm=(0, 1))
    turned = ops.transpose(ops.matmul(x, still), perm=(1, 0))
    for term in (turned, ops.transpose(turned, perm=(0, 1))):
        graph = Graph(
            (w, x, y), (w + term,), input_names=("w", "x", "y"), output_roles=("state:w",)
        )
        random = np.random.default_rng(0)
        arrays = [random.standard_normal((256, 256)).astype("f4") for _ in range(3)]
        (wanted,) = interpret(graph, arrays)
        (updated,) = compile(graph, Options(donate=(0,)))(arrays)
        np.testing.assert_allclose(updated, wanted, rtol=1e-4, atol=1e-4)


def test_a_product_of_no_terms_is_left_alone() -> None:
    """BLAS takes no operand without elements."""
    shapes = ((256, 256), (256, 0), (0, 256))
    w, x, y = (placeholder(TensorType(shape, f32)) for shape in shapes)
    new = w - ops.matmul(x, y)
    graph = Graph((w, x, y), (new,), input_names=("w", "x", "y"), output_roles=("state:w",))
    assert Accumulate().run(graph) is graph


LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "part of wider rows": lambda a: np.pad(a, ((0, 0), (2, 3)))[:, 2 : 2 + a.shape[1]],
    "part of longer columns": lambda a: np.pad(a, ((2, 3), (0, 0))).T.copy().T[2 : 2 + a.shape[0]],
    "every other": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "one row": lambda a: np.broadcast_to(a[:1], a.shape),
    "unaligned": lambda a: unaligned(a),
}


def unaligned(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    raw = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


@needs_gemm
@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("left", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS.values(), ids=LAYOUTS)
def test_operands_may_lie_anyhow(
    left: Callable[..., Any], right: Callable[..., Any], shape: tuple[int, int, int]
) -> None:
    (rows, depth, columns), random = shape, np.random.default_rng(0)
    for char in "fd":
        x = left(random.standard_normal((rows, depth)).astype(char))
        y = right(random.standard_normal((depth, columns)).astype(char))
        wide = random.standard_normal((rows, columns + 2)).astype(char)
        out = wide[:, 1:-1]
        edges, wanted = wide[:, [0, -1]].copy(), out + np.matmul(x, y) * 3
        add_product(x, y, out, np.array(3, char))
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(wide[:, [0, -1]], edges)
