"""What the kernels raise for, generated NumPy code and XLA raise for too, and leave state as it was."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad.backends.numpy as numpy_backend
from tracegrad.backends.base import (
    BackendError,
    DivisionByZero,
    IndexOutOfRange,
    LinAlgError,
    Options,
    TooManyTrips,
)
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import TensorType, dtype_named

jax_backend = pytest.importorskip("tracegrad.backends.jax", reason="the JAX backend needs jax")


def tensor(dtype: str, *shape: int) -> Node:
    return placeholder(TensorType(shape, dtype_named(dtype)))


def literal(value, dtype=np.int64) -> Node:
    return ops.literal(np.array(value, dtype))


def part(node: Node, index: int = 0) -> Node:
    return ops.proj(node, index=index)


def outcome(run, arrays) -> object:
    """The results, or the class of the error."""
    try:
        return run([np.array(array) for array in arrays])
    except BackendError as error:
        return type(error)


def same_everywhere(graph: Graph, *arrays) -> object:
    """What the kernels do with `arrays`, after checking that both backends do the same."""
    expected = outcome(lambda given: numpy_backend.interpret(graph, given), arrays)

    def on_jax(given):
        results = jax_backend.compile(graph)(given)
        jax_backend.raise_pending()
        return [jax_backend.to_numpy(result) for result in results]

    for run in (numpy_backend.compile(graph), on_jax):
        result = outcome(run, arrays)
        if isinstance(expected, type):
            assert result is expected
        else:
            for got, wanted in zip(result, expected, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-6)
    return expected


# ------------------------------------------------------------------ loops


def pick(x: Node, i: Node) -> Node:
    return ops.gather(x, i, axes=(0,))


def search(bound: int | None = None) -> Graph:
    """(x, i) -> the first position from i on where x is not positive; counts its trips too."""
    x, i, n = tensor("f32", 4), tensor("i64"), tensor("i64")
    condition = Graph((x, i, n), (ops.lt(literal(0, np.float32), pick(x, i)),))
    x, i, n = tensor("f32", 4), tensor("i64"), tensor("i64")
    body = Graph((x, i, n), (x, i + 1, n + 1))
    x, i = tensor("f32", 4), tensor("i64")
    loop = ops.while_loop(x, i, literal(0), cond=condition, body=body, max_trips=bound)
    return Graph((x, i), (part(loop, 1), part(loop, 2)))


FOUND = np.array([1, 1, 0, 1], np.float32)
NEVER = np.ones(4, np.float32)


@pytest.mark.parametrize("bound", [None, 2, 9])
def test_the_condition_of_a_loop_raises(bound):
    assert [int(x) for x in same_everywhere(search(bound), FOUND, 0)] == [2, 2]
    assert [int(x) for x in same_everywhere(search(bound), FOUND, 2)] == [2, 0]
    wanted = TooManyTrips if bound == 2 else IndexOutOfRange
    assert same_everywhere(search(bound), NEVER, 0) is wanted
    assert same_everywhere(search(bound), NEVER, 4) is IndexOutOfRange  # before the first trip
    assert same_everywhere(search(bound), FOUND, -1) is IndexOutOfRange


def test_the_bound_counts_trips():
    for bound, start in ((0, 2), (1, 1), (2, 0)):
        assert [int(x) for x in same_everywhere(search(bound), FOUND, start)] == [2, bound]
    for bound, start in ((0, 1), (1, 0)):
        assert same_everywhere(search(bound), FOUND, start) is TooManyTrips


def in_a_branch() -> Graph:
    x, i = tensor("f32", 4), tensor("i64")
    searched = ops.call(x, i, graph=search())
    then = Graph((x, i), (part(searched),))
    y, j = tensor("f32", 4), tensor("i64")
    pred, x, i = tensor("bool"), tensor("f32", 4), tensor("i64")
    chosen = ops.cond(pred, x, i, then=then, orelse=Graph((y, j), (j,)))
    return Graph((pred, x, i), (part(chosen),))


def in_a_scan() -> Graph:
    total, x, i = tensor("i64"), tensor("f32", 4), tensor("i64")
    found = part(ops.call(x, i, graph=search()))
    body = Graph((total, x, i), (total + found, x, found))
    x, starts = tensor("f32", 4), tensor("i64", 3)
    scanned = ops.scan(literal(0), x, starts, body=body, carries=2, length=3)
    return Graph((x, starts), (part(scanned, 0), part(scanned, 2)))


def in_a_loop(bound: int | None) -> Graph:
    """Counts the non-positive elements, each found by a search of its own."""

    def state() -> tuple[Node, Node, Node]:
        return tensor("f32", 4), tensor("i64"), tensor("i64")

    x, i, n = state()
    last = ops.lt(part(ops.call(x, i, graph=search())), literal(3))
    condition = Graph((x, i, n), (last,))
    x, i, n = state()
    body = Graph((x, i, n), (x, part(ops.call(x, i, graph=search())) + 1, n + 1))
    x, i = tensor("f32", 4), tensor("i64")
    loop = ops.while_loop(x, i, literal(0), cond=condition, body=body, max_trips=bound)
    return Graph((x, i), (part(loop, 1), part(loop, 2)))


def test_a_loop_in_a_branch_a_scan_and_a_loop_raises():
    assert same_everywhere(in_a_branch(), True, FOUND, 0) == [2]
    assert same_everywhere(in_a_branch(), False, NEVER, 7) == [7]  # the search does not run
    assert same_everywhere(in_a_branch(), True, NEVER, 0) is IndexOutOfRange
    total, each = same_everywhere(in_a_scan(), FOUND, np.array([0, 1, 2]))
    assert int(total) == 6 and each.tolist() == [2, 2, 2]
    assert same_everywhere(in_a_scan(), FOUND, np.array([0, 3, 2])) is IndexOutOfRange
    zeros = np.array([0, 1, 0, 0], np.float32)
    assert [int(x) for x in same_everywhere(in_a_loop(None), zeros, 0)] == [3, 2]
    assert same_everywhere(in_a_loop(None), FOUND, 0) is IndexOutOfRange
    assert same_everywhere(in_a_loop(1), zeros, 0) is TooManyTrips


def test_a_loop_on_xla_does_not_go_on_from_garbage():
    """Found by an index out of range: 9 (XLA reads the nearest element), which counts down."""
    table, i = tensor("i64", 2), tensor("i64")
    v, n = tensor("i64"), tensor("i64")
    condition = Graph((v, n), (ops.lt(literal(0), v),))
    v, n = tensor("i64"), tensor("i64")
    counted = ops.while_loop(
        pick(table, i), literal(0), cond=condition, body=Graph((v, n), (v - 1, n + 1)),
        max_trips=None,
    )  # fmt: skip
    graph = Graph((table, i), (part(counted, 1),))
    values = np.array([3, 9])
    assert same_everywhere(graph, values, 1) == [9]
    (trips,) = jax_backend.compile(graph)([values, np.array(5)])
    assert int(np.asarray(trips)) == 0
    with pytest.raises(IndexOutOfRange):
        jax_backend.raise_pending()
    found = jax_backend.compile(search())([NEVER, np.array(2)])
    assert int(np.asarray(found[1])) == 2  # the trip that raised was the last
    with pytest.raises(IndexOutOfRange):
        jax_backend.raise_pending()


def test_the_condition_is_lowered_for_the_start_and_for_a_trip_only():
    source = jax_backend.compile(search(9)).source
    assert source.count("stablehlo.while") == 1
    assert source.count('"stablehlo.gather"') == 2


# ------------------------------------------------------------------ which error


def test_a_graph_called_twice_is_looked_at_twice():
    x, i = tensor("f32", 4), tensor("i64")
    inner = Graph((x, i), (pick(x, i),))
    x, i, j = tensor("f32", 4), tensor("i64"), tensor("i64")
    both = part(ops.call(x, i, graph=inner)) + part(ops.call(x, j, graph=inner))
    graph = Graph((x, i, j), (both,))
    assert same_everywhere(graph, NEVER, 0, 3) == [2]
    assert same_everywhere(graph, NEVER, 3, 4) is IndexOutOfRange
    assert same_everywhere(graph, NEVER, 4, 3) is IndexOutOfRange


def test_the_cause_is_told_not_what_follows_from_it():
    d, i, x = tensor("i64", 2), tensor("i64"), tensor("f32", 4)
    divided = ops.floor_div(literal(8), pick(d, i))
    graph = Graph((d, i, x), (pick(x, divided),))
    assert same_everywhere(graph, np.array([4, 0]), 0, NEVER) == [1]
    assert same_everywhere(graph, np.array([4, 0]), 1, NEVER) is DivisionByZero
    assert same_everywhere(graph, np.array([4, 0]), 7, NEVER) is IndexOutOfRange
    assert same_everywhere(graph, np.array([4, 1]), 1, NEVER) is IndexOutOfRange


def test_an_error_is_told_once():
    """With a check in the program the code is read when the call ends, whatever it is."""
    x, i, ok = tensor("f32", 4), tensor("i64"), tensor("bool")
    checked = ops.check(ok, message="must hold", kind="check")
    graph = Graph((x, i, ok), (pick(x, i), checked))
    executable = jax_backend.compile(graph)
    with pytest.raises(IndexOutOfRange):
        executable([NEVER, np.array(9), np.array(False)])
    jax_backend.raise_pending()


def test_control_flow_that_cannot_raise_returns_no_code():
    carry, x = tensor("f32"), tensor("f32")
    body = Graph((carry, x), (carry + x,))
    start, xs = tensor("f32"), tensor("f32", 5)
    total = part(ops.scan(start, xs, body=body, carries=1, length=5))
    graph = Graph((start, xs), (total,), input_names=("s", "xs"), output_roles=("state:s",))
    executable = jax_backend.compile(graph, Options(donate=(0,)))
    assert "tensor<i32>" not in executable.source
    state = jax_backend.from_numpy(np.array(1, np.float32))
    (result,) = executable([state, np.ones(5, np.float32)], donate=True)
    assert float(result) == 6 and state.is_deleted()


# ------------------------------------------------------------------ factorisations


def matrix(**entries: float) -> np.ndarray:
    """A positive definite matrix with some entries replaced; `_31=nan` is row 3, column 1."""
    array = np.eye(5) * 3 + 1
    for place, value in entries.items():
        array[int(place[1]), int(place[2])] = value
    return array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_matrices_that_are_not_finite_are_refused_everywhere(value):
    x = tensor("f64", 5, 5)
    lower = Graph((x,), (ops.cholesky(x),))
    values = Graph((x,), (part(ops.eigh(x)),))
    singular = Graph((x,), (part(ops.svd(x), 1),))
    for bad in (matrix(_00=value), matrix(_31=value), matrix(_44=value)):
        for graph in (lower, values, singular):
            assert same_everywhere(graph, bad) is LinAlgError
    above = matrix(_13=value)  # cholesky and eigh read the lower triangle only
    for graph in (lower, values):
        np.testing.assert_array_equal(
            same_everywhere(graph, above), same_everywhere(graph, matrix())
        )
    assert same_everywhere(singular, above) is LinAlgError


def test_a_matrix_of_a_batch_that_is_not_definite():
    x = tensor("f64", 2, 5, 5)
    graph = Graph((x,), (ops.cholesky(x),))
    same_everywhere(graph, np.stack([matrix(), matrix()]))
    assert same_everywhere(graph, np.stack([matrix(), matrix(_22=-1)])) is LinAlgError
    assert same_everywhere(graph, np.stack([matrix(_22=-1, _04=np.nan), matrix()])) is LinAlgError


# ------------------------------------------------------------------ state


def counted_after(step, *inputs: Node) -> Graph:
    """`step`, and a state that counts the calls."""
    count = tensor("f32", 3)
    return Graph(
        (count, *inputs),
        (count + 1.0, *step),
        input_names=("count", *(f"x{k}" for k in range(len(inputs)))),
        output_roles=("state:count", *("result" for _ in step)),
    )


def in_a_loss() -> Graph:
    logits, target = tensor("f32", 1, 4), tensor("i64", 1)
    loss = ops.cross_entropy(logits, target, ignore_index=-100)
    return counted_after((loss,), logits, target)


def in_a_search(bound: int | None) -> Graph:
    x, i = tensor("f32", 4), tensor("i64")
    return counted_after((part(ops.call(x, i, graph=search(bound))),), x, i)


def in_a_count() -> Graph:
    """A loop that nothing but its bound can stop."""
    i = tensor("i64")
    condition = Graph((i,), (ops.lt(i, literal(5)),))
    i = tensor("i64")
    body = Graph((i,), (i + 1,))
    i = tensor("i64")
    counted = part(ops.while_loop(i, cond=condition, body=body, max_trips=3))
    return counted_after((counted,), i)


@pytest.mark.parametrize(
    "graph, good, bad",
    [
        (in_a_count(), (2,), (1,)),
        (in_a_search(None), (FOUND, 0), (NEVER, 0)),
        (in_a_search(2), (FOUND, 0), (NEVER, 0)),
        (in_a_search(2), (FOUND, 0), (NEVER, 3)),
        (in_a_loss(), (NEVER[None], [3]), (NEVER[None], [4])),
    ],
    ids=["bound alone", "condition", "bound", "index before the bound", "target"],
)
def test_state_is_as_it_was_after_a_step_that_failed(graph, good, bad):
    def arrays(values):
        return [np.array(v, x.dtype.np) for v, x in zip(values, graph.inputs[1:])]

    executable = numpy_backend.compile(graph, Options(donate=(0,)))
    count = np.zeros(3, np.float32)
    executable([count, *arrays(good)])
    assert count.tolist() == [1, 1, 1]
    with pytest.raises(BackendError):
        executable([count, *arrays(bad)])
    assert count.tolist() == [1, 1, 1]

    on_xla = jax_backend.compile(graph, Options(donate=(0,)))
    kept = jax_backend.from_numpy(np.zeros(3, np.float32))
    kept = on_xla([kept, *arrays(good)], donate=True)[0]
    assert jax_backend.to_numpy(kept).tolist() == [1, 1, 1]
    with pytest.raises(BackendError):
        kept = on_xla([kept, *arrays(bad)], donate=True)[0]
        jax_backend.raise_pending()
    assert np.asarray(kept).tolist() == [1, 1, 1]
