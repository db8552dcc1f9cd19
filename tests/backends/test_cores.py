"""Who has the cores: the same results with either, and BLAS's threads as they were afterwards."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from tracegrad.backends.base import BackendError, Options
from tracegrad.backends.numpy import compile, interpret
from tracegrad.backends.numpy.cores import Cores, cores_of
from tracegrad.backends.numpy.fast import blas, pool
from tracegrad.backends.numpy.fast.matmul import cut_of, share_matmul
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import TensorType, f32

TWO = Options(threads=2)
pytestmark = pytest.mark.skipif(not blas.available(), reason="NumPy's BLAS is not its own OpenBLAS")


@pytest.fixture(autouse=True)
def two_blas_threads():
    before = blas.get_num_threads()
    blas.set_num_threads(2)
    yield
    blas.set_num_threads(before)


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


def arrays_for(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(x.shape).astype(np.float32) * 0.1 for x in graph.inputs]


def attention(*parts: Node) -> Node:
    return ops.proj(ops.sdpa(*parts, causal=True, scale=0.125), index=0)


def mixed() -> Graph:
    """Attention worth sharing, and products: rows, columns, a batch, and one too small."""
    q, k, v = (tensor(8, 6, 256, 64) for _ in range(3))
    tall, small, wide = tensor(64, 2048), tensor(8, 64), tensor(64, 3072)
    rows = ops.reshape(attention(q, k, v), shape=(12288, 64))
    long, little = ops.matmul(rows, tall), ops.matmul(small, tall)
    columns = ops.matmul(ops.transpose(tall, perm=(1, 0)), wide)
    batch = ops.matmul(q, ops.transpose(k, perm=(0, 1, 3, 2)))
    return Graph((q, k, v, tall, small, wide), (long, little, columns, batch))


def test_the_pool_has_the_cores_where_much_but_products_is_shared() -> None:
    graph = mixed()
    compiled = compile(graph, TWO)
    assert compiled.source.startswith("# cores: the pool shares loops and products")
    axes = [line.split(", ")[3] for line in compiled.source.splitlines() if "share_matmul" in line]
    assert sorted(axes) == ["-1", "-2", "0"]
    arrays = arrays_for(graph)
    for actual, wanted in zip(compiled(arrays), interpret(graph, arrays)):
        np.testing.assert_allclose(actual, wanted, 1e-4, 1e-4)


def test_blas_has_the_cores_where_there_is_little_but_products() -> None:
    x, w = tensor(64, 784), tensor(784, 512)
    graph = Graph((x, w), (ops.exp(ops.matmul(x, w)),))
    source = compile(graph, TWO).source
    assert (
        source.startswith("# cores: products run as BLAS is set") and "share_matmul" not in source
    )


def test_code_is_made_for_the_number_of_threads_there_is() -> None:
    graph, before = mixed(), pool.thread_count()
    try:
        pool.set_thread_count(1)
        assert "share_matmul" not in compile(graph).source
        pool.set_thread_count(2)
        assert "share_matmul" in compile(graph).source
    finally:
        pool.set_thread_count(before)


def test_without_products_the_pool_shares_and_blas_is_let_be() -> None:
    result = attention(*(tensor(8, 6, 256, 64) for _ in range(3)))
    assert cores_of([result.inputs[0]], 2) == Cores(2)


def test_one_thread_means_one() -> None:
    graph = mixed()
    compiled = compile(graph, Options(threads=1))
    assert compiled._program.holds_blas and "share_matmul" not in compiled.source
    arrays = arrays_for(graph)
    for actual, wanted in zip(compiled(arrays), interpret(graph, arrays)):
        np.testing.assert_allclose(actual, wanted, 1e-4, 1e-4)


def test_an_unknown_blas_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_functions", lambda: None)
    assert cores_of(mixed().nodes, 2) == Cores(2)


def test_a_loop_uses_the_cores_as_the_program_around_it() -> None:
    x, w, carry, weight = tensor(256, 512), tensor(512, 512), tensor(256, 512), tensor(512, 512)
    body = Graph((carry, weight), (ops.tanh(ops.matmul(carry, weight)), weight))
    q, k, v = (tensor(8, 6, 256, 64) for _ in range(3))
    result = ops.proj(ops.call(x, w, graph=body), index=0)
    graph = Graph((x, w, q, k, v), (result, attention(q, k, v)))
    compiled = compile(graph, TWO)
    inner = [value for name, value in compiled._program.namespace.items() if "graph_" in name]
    assert compiled._program.holds_blas
    assert len(inner) == 1 and "share_matmul" in inner[0].source


def test_blas_is_held_at_one_thread_while_the_program_runs_and_not_after() -> None:
    graph = mixed()
    compiled = compile(graph, TWO)
    seen = []

    def watched(*arguments: object) -> None:
        seen.append(blas.get_num_threads())
        share_matmul(*arguments)

    compiled._program.namespace["share_matmul"] = watched
    try:
        compiled(arrays_for(graph))
    finally:
        compiled._program.namespace["share_matmul"] = share_matmul
    assert seen == [1, 1, 1] and blas.get_num_threads() == 2


def test_a_call_that_fails_gives_blas_its_threads_back() -> None:
    graph = mixed()
    arrays = arrays_for(graph)
    arrays[3] = arrays[3][:-1]
    with pytest.raises(BackendError):
        compile(graph, TWO)(arrays)
    assert blas.get_num_threads() == 2


def test_the_last_of_several_holders_gives_the_threads_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.single_threaded_blas():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with blas.single_threaded_blas():
        thread.start()
        assert entered.wait(10)
    assert blas.get_num_threads() == 1
    leave.set()
    thread.join()
    assert blas.get_num_threads() == 2


def test_a_number_of_threads_set_while_blas_is_held_counts_afterwards() -> None:
    with blas.single_threaded_blas():
        blas.set_num_threads(3)
        assert blas.get_num_threads() == 1
    assert blas.get_num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # jax's, where it is loaded
def test_a_child_forked_while_blas_is_held_has_its_threads() -> None:
    with blas.single_threaded_blas():
        child = os.fork()
        if child == 0:
            seen = [blas.get_num_threads()]
            blas.release()  # the child is inside the region of its parent, too
            with blas.single_threaded_blas():
                seen.append(blas.get_num_threads())
            seen.append(blas.get_num_threads())
            os._exit(0 if seen == [2, 1, 2] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert blas.get_num_threads() == 1


@pytest.mark.parametrize(
    "x, y",
    [
        ((700, 300), (300, 500)),
        ((300, 700), (700, 900)),
        ((5, 200, 300), (5, 300, 400)),
        ((200, 300), (7, 300, 400)),
        ((7, 200, 300), (1, 300, 400)),
        ((1, 900, 300), (300, 400)),
        ((3, 2, 200, 300), (2, 300, 400)),
    ],
)
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_a_shared_product_equals_the_whole(
    x: tuple[int, ...], y: tuple[int, ...], threads: int
) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal(x), rng.standard_normal(y[:-2] + y[:-3:-1]).swapaxes(-1, -2)
    wanted = left @ right
    cut = cut_of(wanted.shape, x[-1], threads)
    assert cut is not None and len(cut.bounds) > 2
    assert cut.bounds[0] == 0 and list(cut.bounds) == sorted(set(cut.bounds))
    out = np.full(wanted.shape, np.nan)
    with blas.single_threaded_blas():
        share_matmul(left, right, out, *cut)
    np.testing.assert_allclose(out, wanted, 1e-10, 1e-10)


def test_a_small_product_is_not_shared() -> None:
    assert cut_of((64, 512), 64, 2) is None
