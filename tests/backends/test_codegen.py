"""Generated code against the plain kernels: every op sample, and the rules of an executable."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.agreement import assert_agree
from tests.backends.random_graphs import random_arrays, random_graph
from tests.op_samples import SAMPLES
from tests.sampling import Sample
from tracegrad.backends.base import BackendError, IndexOutOfRange, KernelError, Options
from tracegrad.backends.numpy import compile, interpret
from tracegrad.backends.optimise import optimise
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, Op, placeholder
from tracegrad.ir.loc import Loc, at
from tracegrad.ir.types import TensorType, bool_, f32, i64

Array = np.ndarray[Any, Any]
ALL_SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{index}-{sample.label}")
    for name, samples in SAMPLES.items()
    for index, sample in enumerate(samples)
]


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


def arrays_for(graph: Graph, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(n.shape), n.dtype.np) for n in graph.inputs]


@pytest.mark.parametrize("op, sample", ALL_SAMPLES)
def test_every_sample_equals_its_kernel(op: str, sample: Sample) -> None:
    graph, arrays = sample.graph(op), sample.arrays()
    before = [array.copy() for array in arrays]
    expected = interpret(graph, arrays)
    for options in (Options(), Options(poison=True)):
        results = compile(graph, options)(arrays)
        assert_agree(op, results, expected)
        for result in results:
            assert not any(np.may_share_memory(result, array) for array in arrays)
    for array, old in zip(arrays, before):
        np.testing.assert_array_equal(array, old)


REDUCTIONS = [ops.sum_, ops.prod, ops.max_, ops.min_]


@pytest.mark.parametrize("shape", [(16, 1), (1, 8), (1, 1), ()])
@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda op: op.name)
def test_a_loop_reduces_what_is_broadcast(reduce: Op, shape: tuple[int, ...]) -> None:
    """Of (16, 1) each element counts eight times; of (1, 8) every row has the same result."""
    x, y = tensor(*shape), tensor(16, 8)
    dims = tuple(range(2 - len(shape), 2))
    wide = ops.broadcast_to(x, shape=(16, 8), dims=dims)
    row = ops.broadcast_to(reduce(wide, axes=(1,)), shape=(16, 8), dims=(0,))
    graph = Graph((x, y), (ops.tanh(y * row + y),))
    arrays = arrays_for(graph)
    (expected,) = interpret(graph, arrays)
    for each in (graph, optimise(graph)):
        (result,) = compile(each, Options(tile_bytes=256, poison=True))(arrays)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda op: op.name)
def test_a_loop_reduces_a_row_value_that_it_has_broadcast(reduce: Op) -> None:
    x = tensor(16, 8)
    row = ops.broadcast_to(ops.max_(ops.tanh(x), axes=(1,)), shape=(16, 8), dims=(0,))
    again = ops.broadcast_to(reduce(row, axes=(1,)), shape=(16, 8), dims=(0,))
    graph = Graph((x,), (ops.tanh(x - again),))
    arrays = arrays_for(graph)
    (result,) = compile(graph, Options(tile_bytes=256, poison=True))(arrays)
    np.testing.assert_allclose(result, interpret(graph, arrays)[0], rtol=1e-5)


def test_row_values_whose_broadcast_is_read_elsewhere_are_no_loop() -> None:
    """The broadcast is made where it is read: nothing with columns stays in their group."""
    x = tensor(16, 8)
    row = ops.reshape(ops.sum_(x, axes=(1,)), shape=(16, 1))
    late = ops.tanh(ops.tanh(row + ops.cumsum(row, axis=0)))
    wide = ops.broadcast_to(late, shape=(16, 8), dims=(0, 1))
    graph = Graph((x,), (ops.cumsum(wide, axis=1), ops.reshape(late, shape=(16,))))
    arrays = arrays_for(graph)
    results = compile(graph, Options(tile_bytes=128, poison=True))(arrays)
    for result, expected in zip(results, interpret(graph, arrays)):
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("kept", [True, False])
def test_parts_of_what_has_no_elements(kept: bool) -> None:
    """Their place would lie behind the end of a storage without bytes."""
    x = tensor(0, 40, 30)
    y = x * 2.0
    part = ops.slice_(y, start=(0, 39, 29), stop=(0, 40, 30), step=(1, 1, 1))
    outputs = (part * 3.0, ops.concatenate(y, x * 4.0, axis=2), *(y, part)[: 2 * kept])
    graph = Graph((x,), outputs)
    for options in (Options(), Options(fuse=False, poison=True)):
        results = compile(graph, options)(arrays_for(graph))
        assert [result.shape for result in results] == [node.shape for node in outputs]


# ------------------------------------------------------------------ random graphs

VARIANTS = [
    Options(fuse=False),
    Options(tile_bytes=128),
    Options(donate=tuple(range(6)), tile_bytes=128, poison=True),
    Options(donate=(0, 2, 4), tile_bytes=512),
    Options(donate=tuple(range(6)), fuse=False, poison=True),
]


@pytest.mark.parametrize("options", VARIANTS, ids=["whole", "tiles", "donated", "some", "poison"])
@pytest.mark.parametrize("seed", range(25))
def test_random_graphs(seed: int, options: Options) -> None:
    graph = random_graph(seed, 20 + 3 * seed)
    arrays = random_arrays(graph, seed)
    expected = interpret(graph, arrays)
    given = [array.copy() for array in arrays]
    results = compile(graph, options)(given)
    for result, wanted in zip(results, expected):
        np.testing.assert_allclose(result, wanted, rtol=2e-3, atol=2e-4)
    for index, (array, now) in enumerate(zip(arrays, given)):
        if index not in options.donate:
            np.testing.assert_array_equal(array, now)
    for k, role in enumerate(graph.output_roles):
        for other in results[:k]:
            assert not np.may_share_memory(results[k], other)
        if role.startswith("state:"):
            source = graph.input_names.index(role.removeprefix("state:"))
            assert (results[k] is given[source]) == (source in options.donate)


# ------------------------------------------------------------------ state updated in its array


def state_graph(inputs: list[Node], results: list[Node], updates: dict[int, Node]) -> Graph:
    """Results, then the new value of the inputs whose numbers are the keys of `updates`."""
    names = tuple(f"a{i}" for i in range(len(inputs)))
    return Graph(
        tuple(inputs),
        (*results, *updates.values()),
        names,
        tuple(f"o{i}" for i in range(len(results) + len(updates))),
        tuple("state" if i in updates else "argument" for i in range(len(inputs))),
        ("result",) * len(results) + tuple(f"state:a{i}" for i in updates),
    )


def check_donated(graph: Graph, arrays: list[Array] | None = None) -> None:
    arrays = arrays or arrays_for(graph)
    donate = tuple(i for i, role in enumerate(graph.input_roles) if role == "state")
    expected = interpret(graph, [array.copy() for array in arrays])
    for fuse in (True, False):
        given = [array.copy() for array in arrays]
        options = Options(donate=donate, fuse=fuse, tile_bytes=64, poison=True)
        results = compile(graph, options)(given)
        for result, wanted in zip(results, expected):
            np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
        for k, role in enumerate(graph.output_roles):
            if role.startswith("state:"):
                source = int(role.removeprefix("state:a"))
                assert results[k] is given[source]
                np.testing.assert_array_equal(given[source], results[k])


def test_a_weight_read_by_the_backward_is_overwritten_after_it() -> None:
    x, w, g = tensor(4, 5), tensor(5, 6), tensor(4, 6)
    new_w = w - ops.matmul(ops.transpose(x, perm=(1, 0)), g) * 0.1
    to_x = ops.matmul(g, ops.transpose(w, perm=(1, 0)))  # reads the old weight, through a view
    check_donated(state_graph([x, w, g], [to_x], {1: new_w}))


def test_states_that_read_each_other() -> None:
    a, b = tensor(3, 4), tensor(3, 4)
    check_donated(state_graph([a, b], [], {0: b, 1: a}))  # a swap
    check_donated(state_graph([a, b], [], {0: a + b, 1: a * b}))
    check_donated(state_graph([a, b], [a], {0: b * 2.0, 1: a * 3.0}))


def test_a_state_read_out_of_order_by_its_own_update() -> None:
    a = tensor(4, 4)
    turned = ops.transpose(a, perm=(1, 0))
    check_donated(state_graph([a], [], {0: a + turned}))
    check_donated(state_graph([a], [], {0: ops.matmul(a, a)}))
    row = ops.slice_(a, start=(0, 0), stop=(1, 4), step=(1, 1))
    spread = ops.broadcast_to(row, shape=(4, 4), dims=(0, 1))
    check_donated(state_graph([a], [], {0: a * spread}))


def test_old_and_new_value_of_a_state_meet() -> None:
    a = tensor(6, 8)
    new = ops.tanh(a)
    check_donated(state_graph([a], [new - a, ops.sum_(new, axes=(1,))], {0: new}))


def test_a_state_that_is_not_contiguous_is_updated_all_the_same() -> None:
    a, b = tensor(6, 8), tensor(6, 8)
    graph = state_graph([a, b], [], {0: ops.tanh(a * 2.0 + b) - a})
    given = arrays_for(graph)
    wide = np.zeros((8, 6), np.float32)
    strided = wide.T
    strided[...] = given[0]
    expected = interpret(graph, [given[0].copy(), given[1]])
    (result,) = compile(graph, Options(donate=(0,), tile_bytes=64))([strided, given[1]])
    assert result is strided
    np.testing.assert_allclose(strided, expected[0], rtol=1e-5)


def test_a_check_that_fails_leaves_state_as_it_was() -> None:
    a = tensor(4)
    positive = ops.lt(ops.zeros_like(ops.sum_(a, axes=(0,))), ops.sum_(a, axes=(0,)))
    checked = ops.check(positive, message="the sum must be positive", kind="check")
    update_first = Graph((a,), (a + 1.0, checked), ("a",), (), ("state",), ("state:a", "check"))
    given = [-np.ones(4, np.float32)]
    with pytest.raises(BackendError, match="must be positive"):
        compile(update_first, Options(donate=(0,)))(given)
    np.testing.assert_array_equal(given[0], -np.ones(4, np.float32))


# ------------------------------------------------------------------ results, arguments, errors


def test_results_are_fresh_at_every_call() -> None:
    x = tensor(5, 3)
    y = ops.tanh(x)
    graph = Graph((x,), (y, ops.transpose(y, perm=(1, 0)), x, y, ops.reshape(y, shape=(15,))))
    run = compile(graph)
    first = run([np.ones((5, 3), np.float32)])
    kept = [result.copy() for result in first]
    run([np.zeros((5, 3), np.float32)])
    for result, old in zip(first, kept):
        np.testing.assert_array_equal(result, old)


def test_large_results_are_aligned() -> None:
    x = tensor(100, 30)
    (result,) = compile(Graph((x,), (ops.tanh(x),)))([np.ones((100, 30), np.float32)])
    assert result.ctypes.data % 64 == 0


@pytest.mark.parametrize("order", ["C", "F", "sliced", "reversed"])
def test_arguments_of_any_layout(order: str) -> None:
    x, w = tensor(12, 10), tensor(10, 12)
    h = ops.tanh(ops.matmul(x, w))
    row = ops.reshape(ops.sum_(x * 2.0, axes=(1,)), shape=(12, 1))
    y = ops.reshape(x, shape=(120,)) * 3.0
    graph = Graph((x, w), (h, row, y, ops.transpose(x, perm=(1, 0)) + w))
    arrays = arrays_for(graph)
    if order == "F":
        arrays[0] = np.asfortranarray(arrays[0])
    elif order == "sliced":
        arrays[0] = np.repeat(np.repeat(arrays[0], 2, axis=0), 3, axis=1)[::2, ::3]
    elif order == "reversed":
        arrays[0] = arrays[0][::-1, ::-1]
    expected = interpret(graph, arrays)
    for options in (Options(tile_bytes=64), Options(fuse=False)):
        assert_agree("layout", compile(graph, options)(arrays), expected)


def test_an_error_names_the_op_and_the_line_of_its_own_graph() -> None:
    def lookup(line: int) -> Graph:
        with at(Loc("model.py", line)):
            table, index = tensor(4, 2), placeholder(TensorType((3,), i64))
            return Graph((table, index), (ops.gather(table * 2.0, index, axes=(0,)),))

    arrays = [np.ones((4, 2), np.float32), np.array([0, 4, 1])]
    for line in (11, 77):  # the second graph shares the first one's code
        with pytest.raises(IndexOutOfRange, match=f"^index .*\n.*model.py:{line}"):
            compile(lookup(line))(arrays)


def test_an_error_in_a_sub_graph_names_the_line_of_its_own_graph() -> None:
    def lookup(line: int) -> Graph:
        with at(Loc("model.py", line)):
            table, index = tensor(4, 2), placeholder(TensorType((3,), i64))
            body = Graph((table, index), (ops.gather(table, index, axes=(0,)),))
            x, i = tensor(4, 2), placeholder(TensorType((3,), i64))
            return Graph((x, i), (ops.proj(ops.call(x, i, graph=body), index=0),))

    arrays = [np.ones((4, 2), np.float32), np.array([0, 4, 1])]
    for line in (11, 77):
        with pytest.raises(IndexOutOfRange, match=f"^index .*\n.*model.py:{line}"):
            compile(lookup(line))(arrays)


def test_the_wrong_number_of_arrays_is_refused() -> None:
    x = tensor(3)
    with pytest.raises(KernelError, match="takes 1 arrays, 2 given"):
        compile(Graph((x,), (x + 1.0,)))([np.ones(3, np.float32)] * 2)


def test_floating_point_warnings_stay_inside() -> None:
    x = tensor(3)
    (result,) = compile(Graph((x,), (ops.log(x),)))([np.array([-1, 0, 1], np.float32)])
    np.testing.assert_array_equal(result, np.array([np.nan, -np.inf, 0], np.float32))
    assert np.geterr()["divide"] != "ignore"


def test_threads_may_call_one_executable_at_once() -> None:
    graph = random_graph(3, 60)
    run = compile(graph, Options(tile_bytes=128))
    expected = {seed: interpret(graph, random_arrays(graph, seed)) for seed in range(4)}
    wrong: list[Any] = []

    def work(seed: int) -> None:
        arrays = random_arrays(graph, seed)
        for _ in range(40):
            for result, wanted in zip(run(arrays), expected[seed]):
                if not np.allclose(result, wanted, rtol=2e-3, atol=2e-4):
                    wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_equal_graphs_share_code() -> None:
    def build() -> Graph:
        x = tensor(7)
        return Graph((x,), (ops.exp(x) * 1.25,))

    first, second = compile(build()), compile(build())
    assert first.source is second.source
    assert compile(build(), Options(poison=True)).source != first.source


def test_select_is_exact_for_nan_and_inf() -> None:
    size = 4096
    mask, x, y = placeholder(TensorType((size,), bool_)), tensor(size), tensor(size)
    zero = ops.zeros_like(x)
    graph = Graph(
        (mask, x, y), (ops.where(mask, x, y), ops.where(mask, x, zero), ops.where(mask, zero, y))
    )
    rng = np.random.default_rng(0)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1.0], np.float32)
    arrays = [rng.random(size) < 0.5, rng.choice(special, size), rng.choice(special, size)]
    for options in (Options(fuse=False), Options(tile_bytes=1024)):
        for result, wanted in zip(compile(graph, options)(arrays), interpret(graph, arrays)):
            np.testing.assert_array_equal(result.view(np.int32), wanted.view(np.int32))
