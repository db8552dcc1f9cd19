"""The fast building blocks against the plain kernels, on output arrays full of nan."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegrad.backends.numpy import KERNELS, interpret
from tracegrad.backends.numpy.fast import (
    attention,
    blas,
    columns,
    conv,
    lstm,
    pool,
    reduce,
    special,
    windows,
    work,
)
from tracegrad.backends.numpy.fast import random as fast_random
from tracegrad.backends.numpy.fast.conv import ConvPlan
from tracegrad.backends.numpy.kernels import random
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, dtype_of

TOLERANCE = {"float16": 1e-2, "float32": 2e-4, "float64": 1e-10}


@pytest.fixture(autouse=True)
def silent():
    with np.errstate(all="ignore"):
        yield


def run(name: str, arrays: list[np.ndarray], **attrs: Any) -> list[np.ndarray]:
    """The several results of one op, by the interpreter."""
    inputs = tuple(placeholder(TensorType(a.shape, dtype_of(a.dtype))) for a in arrays)
    node = ops.op_named(name)(*inputs, **attrs)
    parts = tuple(ops.proj(node, index=k) for k in range(len(node.type.parts)))
    return interpret(Graph(inputs, parts), arrays)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    tolerance = TOLERANCE[expected.dtype.name]
    np.testing.assert_allclose(actual, expected, tolerance, tolerance)


def check_conv(x: np.ndarray, w: np.ndarray, threads: int = 2, **attrs: Any) -> str:
    expected = KERNELS["conv"](x, w, **attrs)
    plan = ConvPlan(x.shape, w.shape, dtype=x.dtype, threads=threads, **attrs)
    assert plan.out_shape == expected.shape
    assert plan.nbytes >= 0
    for _ in range(2):
        out = np.full(expected.shape, np.nan, x.dtype)
        plan(x, w, out)
        close(out, expected)
    strided = np.full((*expected.shape, 2), np.nan, x.dtype)[..., 0]
    plan(x, w, strided)
    close(strided, expected)
    return plan.kind


ONES = dict(lhs_dilation=(1, 1), rhs_dilation=(1, 1), groups=1)
SAME = dict(padding=((1, 1), (1, 1)), **ONES)
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "pointwise": ((3, 4, 5, 6), (7, 4, 1, 1), dict(strides=(1, 1), padding=((0, 0),) * 2, **ONES)),
    "columns": ((3, 4, 9, 8), (5, 4, 3, 3), dict(strides=(2, 1), **SAME)),
    "gradient": ((4, 3, 9, 8), (5, 3, 9, 8), dict(strides=(1, 1), **SAME)),
    "depthwise": (
        (2, 6, 7, 8), (6, 1, 3, 2),
        dict(strides=(1, 2), padding=((1, 1), (0, 1)), lhs_dilation=(1, 1), rhs_dilation=(2, 1),
             groups=6),
    ),
    "phases": (
        (2, 4, 5, 6), (3, 4, 3, 3),
        dict(strides=(1, 1), padding=((1, 2), (1, 2)), lhs_dilation=(2, 3), rhs_dilation=(1, 1),
             groups=1),
    ),
    "plain": (
        (2, 4, 5, 6), (3, 4, 3, 3),
        dict(strides=(2, 1), padding=((1, 2), (1, 2)), lhs_dilation=(2, 2), rhs_dilation=(1, 1),
             groups=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conv_strategies(kind: str, dtype: Any) -> None:
    x_shape, w_shape, attrs = KINDS[kind]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    assert check_conv(x, w, **attrs) == kind


def test_conv_of_halves_is_plain() -> None:
    x, w = np.ones((1, 1, 3, 3), np.float16), np.ones((1, 1, 2, 2), np.float16)
    assert check_conv(x, w, strides=(1, 1), padding=((0, 0),) * 2, **ONES) == "plain"


@pytest.mark.parametrize("low", [-2, 0, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_in_bands(low: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "CHUNK_BYTES", 10_000)  # a few rows of the output
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 17, 12)), rng.standard_normal((4, 3, 3, 3))
    attrs: dict[str, Any] = dict(padding=((low, low + 1), (low, 1)), lhs_dilation=(1, 1), groups=1)
    assert check_conv(x, w, strides=(stride, 1), rhs_dilation=(1, 2), **attrs) == "columns"
    wide = rng.standard_normal((4, 3, 14 + low, 9 + low))
    assert check_conv(x, wide, strides=(stride, 1), rhs_dilation=(1, 1), **attrs) == "gradient"


@pytest.mark.parametrize("threads", [1, 2])
def test_gradient_of_the_filters_of_groups(threads: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3 * 5, 9, 8)), rng.standard_normal((3 * 4, 5, 9, 8))
    attrs: dict[str, Any] = dict(strides=(1, 1), **(SAME | dict(groups=3)))
    assert check_conv(x, w, threads, **attrs) == "gradient"


@pytest.mark.parametrize(
    "size", [1, 1_000, 4_000]
)  # one channel, some channels, some images a block
@pytest.mark.parametrize("padding", [((0, 3), (1, -2)), ((-2, 1), (-1, 2))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_depthwise_in_blocks(
    size: int, padding: Any, strides: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "DEPTHWISE_BYTES", size)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 3, 12, 11)), rng.standard_normal((3, 1, 3, 2))
    attrs = dict(strides=strides, padding=padding, lhs_dilation=(1, 1), rhs_dilation=(1, 2))
    assert check_conv(x, w, groups=3, **attrs) == "depthwise"


def test_conv_images_last_and_shared_over_threads() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((100, 16, 8, 8)), rng.standard_normal((32, 16, 3, 3))
    attrs: dict[str, Any] = dict(strides=(1, 1), **SAME)
    assert work.share_count(2, 100, 2.0 * w.size * 100 * 64) == (2 if blas.available() else 1)
    assert check_conv(x, w, **attrs) == "columns"
    ct = rng.standard_normal((100, 32, 8, 8))
    # the gradient of the filter, on transposed views as the VJP makes them
    assert check_conv(x.swapaxes(0, 1), ct.swapaxes(0, 1), **attrs) == "gradient"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_conv(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))
    groups = data.draw(st.sampled_from([1, 1, 2, 4]))

    def ints(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    size, window = ints(3, 8), ints(1, data.draw(st.sampled_from([3, 8])))
    plain = data.draw(st.booleans())
    strides = (1,) * axes if plain else ints(1, 3)
    rhs = (1,) * axes if plain else ints(1, 2)
    lhs = ints(1, 3) if data.draw(st.booleans()) else (1,) * axes
    padding = tuple(zip(ints(-1, 3), ints(-1, 3)))
    spans = [(n - 1) * a + 1 + low + high - (k - 1) * b - 1
             for n, k, a, b, (low, high) in zip(size, window, lhs, rhs, padding)]  # fmt: skip
    if min(spans) < 0:
        return
    images = data.draw(st.sampled_from([1, 2, 17, 40]))
    channels, filters = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, channels * groups, *size))
    w = rng.standard_normal((filters * groups, channels, *window))
    check_conv(x, w, strides=strides, padding=padding, lhs_dilation=lhs, rhs_dilation=rhs,
               groups=groups)  # fmt: skip


WINDOWS = [
    ((2, 3, 6, 8), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((2, 3, 7, 8), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((2, 3, 7, 8), (3, 3), (2, 1), ((1, 1), (1, 0)), (1, 2)),
    ((2, 9), (3,), (1,), ((1, 1),), (2,)),
    ((2, 4, 5, 6), (2, 1, 3), (1, 2, 2), ((0, 0), (0, 0), (1, 1)), (1, 1, 1)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("special_values", [False, True])
def test_windows(case: Any, dtype: Any, special_values: bool) -> None:
    shape, window, strides, padding, dilation = case
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(dtype)  # ties
    if special_values:
        x.flat[:5] = [np.nan, -np.inf, np.inf, np.nan, 1]
    summed: dict[str, Any] = dict(window=window, strides=strides, padding=padding)
    attrs = dict(summed, dilation=dilation)
    expected = KERNELS["window_max"](x, **attrs)
    out = np.full(expected.shape, 7, dtype)
    windows.WindowMax(x.shape, x.dtype, **attrs)(x, out)
    np.testing.assert_array_equal(out, expected)

    ct = rng.standard_normal(expected.shape).astype(dtype)
    if special_values:
        ct.flat[-1] = np.inf  # must reach one element and turn no other into nan
    select = windows.SelectScatter(x.shape, x.dtype, **attrs)
    for _ in range(2):
        back = np.full(shape, np.nan, dtype)
        select(ct, x, back)
        close(back, KERNELS["select_scatter"](ct, x, **attrs))

    expected = KERNELS["window_sum"](x, **summed)
    out = np.full(expected.shape, 7, dtype)
    windows.WindowSum(x.shape, x.dtype, **summed)(x, out)
    close(out, expected)


@pytest.mark.parametrize("shape", [(3, 5, 300, 302), (1, 1, 2, 40), (7, 1, 2000, 602)])
@pytest.mark.parametrize("threads", [1, 3])
def test_windows_of_two_by_two_in_blocks(
    shape: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that do not divide the images, on several threads."""
    monkeypatch.setattr(windows, "BLOCK", 5000)
    attrs: dict[str, Any] = dict(
        window=(2, 2), strides=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1)
    )
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    expected = KERNELS["window_max"](x, **attrs)
    largest = windows.WindowMax(x.shape, x.dtype, **attrs, threads=threads)
    select = windows.SelectScatter(x.shape, x.dtype, **attrs, threads=threads)
    if threads > 1 and x.size > 4e6:
        assert largest.blocks.shares == select.blocks.shares == threads
    ct = rng.standard_normal(expected.shape).astype(np.float32)
    for _ in range(2):
        out, back = np.full_like(expected, np.nan), np.full_like(x, np.nan)
        largest(x, out)
        select(ct, x, back)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(back, KERNELS["select_scatter"](ct, x, **attrs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_column_sums(dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((300, 70)).astype(dtype)
    out = np.empty(70, dtype)
    reduce.sum_first(x, out)
    close(out, x.sum(0))


@pytest.mark.parametrize("size, count", [(10, 50), (5000, 300), (3, 0)])
def test_add_rows(size: int, count: int) -> None:
    rng = np.random.default_rng(0)
    out, index = rng.standard_normal((size, 7)), rng.integers(0, size, count)
    rows = rng.standard_normal((count, 7))
    if count == 50:
        rows[0, 0] = np.inf
    expected = KERNELS["scatter"](out, index, rows, axes=(0,), mode="add")
    reduce.add_rows(out, index, rows)
    close(out, expected)


def test_erf_and_gelu_tiles() -> None:
    for dtype in (np.float32, np.float64):
        x = np.linspace(-6, 6, 1001).astype(dtype)
        out, *scratch = (np.empty_like(x) for _ in range(5))
        special.erf(x, out, *scratch[:3])
        np.testing.assert_array_equal(out, KERNELS["erf"](x))
        special.gelu(x, out, *scratch)
        close(out, KERNELS["gelu"](x, approximate="none"))
        special.sigmoid(x, out)
        close(out, KERNELS["sigmoid"](x))


def test_random_bits_and_dropout_tiles() -> None:
    key = np.array([3, 4], np.uint32)
    out = np.empty((500, 999), np.uint32)
    fast_random.bits_into(key, out, threads=2)
    np.testing.assert_array_equal(out, KERNELS["random_bits"](key, shape=out.shape))

    x = np.random.default_rng(0).standard_normal(1000)
    x[:4] = [np.inf, np.nan, -0.0, 1]
    bits, keep = np.empty(300, np.uint32), np.empty(300, np.bool_)
    for rate in (0.0, 0.3, 1.0):
        whole = KERNELS["dropout"](x, key, rate=rate)
        tiled = np.empty_like(x)
        for first in range(0, 1000, 300):
            n = min(300, 1000 - first)
            part = slice(first, first + n)
            fast_random.dropout_tile(key, x[part], tiled[part], first, rate, bits[:n], keep[:n])
        np.testing.assert_array_equal(tiled, whole)


ATTENTION = [  # (queries, keys, width of a head, of its values, causal)
    (5, 5, 4, 4, True), (5, 7, 4, 3, False), (300, 300, 8, 8, True), (300, 200, 8, 8, True),
    (200, 300, 8, 6, True), (130, 260, 8, 8, False), (1, 3, 2, 2, True), (100, 250, 8, 6, True),
]  # fmt: skip


@pytest.mark.parametrize("lead", [(2, 3), (7, 2)])  # several images a tile, a last one with fewer
@pytest.mark.parametrize("t, s, d, e, causal", ATTENTION)
def test_attention(t: int, s: int, d: int, e: int, causal: bool, lead: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((*lead, *shape)) for shape in ((t, d), (s, d), (s, e)))
    attrs: dict[str, Any] = dict(causal=causal, scale=0.4)
    out, lse = run("sdpa", [q, k, v], **attrs)
    shapes = (q.shape, v.shape)
    forward = attention.Attention(*shapes, dtype=q.dtype, threads=2, **attrs)
    results = [np.full_like(out, np.nan), np.full_like(lse, np.nan)]
    forward(q, k, v, *results)
    close(results[0], out)
    close(results[1], lse)
    ct = rng.standard_normal(out.shape)
    expected = run("sdpa_backward", [ct, q, k, v, out, lse], **attrs)
    grads = [np.full_like(grad, np.nan) for grad in expected]
    backward = attention.AttentionBackward(*shapes, dtype=q.dtype, threads=2, **attrs)
    backward(ct, q, k, v, out, lse, *grads)
    for grad, wanted in zip(grads, expected):
        close(grad, wanted)
    assert forward.nbytes > 0 and backward.nbytes > 0


@pytest.mark.parametrize(
    "steps, batch, features, hidden", [(5, 3, 4, 6), (1, 2, 3, 2), (0, 2, 3, 2)]
)
def test_lstm(steps: int, batch: int, features: int, hidden: int) -> None:
    rng = np.random.default_rng(0)
    inputs = [
        rng.standard_normal(shape)
        for shape in (
            (steps, batch, features), (batch, hidden), (batch, hidden), (4 * hidden, features),
            (4 * hidden, hidden), (4 * hidden,), (4 * hidden,),
        )
    ]  # fmt: skip
    expected = run("lstm", inputs)
    results = [np.full_like(part, np.nan) for part in expected]
    forward = lstm.LstmForward(inputs[0].shape, hidden, np.dtype(np.float64))
    forward(*inputs, *results)
    for result, wanted in zip(results, expected):
        close(result, wanted)
    cts = [rng.standard_normal(part.shape) for part in expected]
    wanted_grads = run("lstm_backward", [*cts, *inputs, expected[0]])
    grads = tuple(np.full_like(grad, np.nan) for grad in wanted_grads)
    backward = lstm.LstmBackward(inputs[0].shape, hidden, np.dtype(np.float64))
    backward(*cts, *inputs, expected[0], grads)
    for grad, wanted in zip(grads, wanted_grads):
        close(grad, wanted)
    assert forward.nbytes > 0 and backward.nbytes > 0


def test_blas_threads_are_restored() -> None:
    if not blas.available():
        pytest.skip("NumPy's BLAS is not a bundled OpenBLAS")
    before = blas.get_num_threads()
    with pytest.raises(RuntimeError), blas.single_threaded_blas():
        assert blas.get_num_threads() == 1
        raise RuntimeError
    assert blas.get_num_threads() == before


def test_without_a_known_blas_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_functions", lambda: None)
    assert not blas.available() and blas.get_num_threads() is None
    blas.set_num_threads(3)
    with blas.single_threaded_blas():
        assert blas.get_num_threads() is None
    assert work.share_count(8, 8, 1e12) == 1  # two threads in a BLAS of many would fight


def test_pool_runs_every_chunk_once_and_reports_errors() -> None:
    crew = pool.Pool(3)
    seen: list[int] = []
    crew.run(seen.append, 100)
    assert sorted(seen) == list(range(100))

    def fail(chunk: int) -> None:
        if chunk == 5:
            raise ValueError("chunk 5")

    with pytest.raises(ValueError, match="chunk 5"):
        crew.run(fail, 10)
    seen.clear()
    crew.run(seen.append, 4)  # still usable
    assert sorted(seen) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least one thread"):
        pool.Pool(0)


def test_pool_uses_other_threads_silently_and_nests() -> None:
    crew = pool.Pool(2)
    both = threading.Barrier(2, timeout=10)
    names: set[str] = set()

    def meet(chunk: int) -> None:
        both.wait()  # only passes when two threads are here
        np.divide(np.ones(2), np.zeros(2))  # would warn, and warnings are errors here
        crew.run(lambda inner: None, 3)  # the pool is taken: runs alone
        names.add(threading.current_thread().name)

    crew.run(meet, 2)
    assert len(names) == 2


def test_split_covers_the_range_in_order() -> None:
    for n, shares, chunk in [(10, 3, 2), (0, 2, 4), (7, 1, 100)]:
        ranges = work.split(n, shares, chunk)
        assert len(ranges) == shares
        flat = [k for share in ranges for first, last in share for k in range(first, last)]
        assert flat == list(range(n))
        assert all(last - first <= chunk for share in ranges for first, last in share)


@pytest.mark.parametrize("first", [0, 5, 2**32 - 3, 2**32 + 7, 2**40])
def test_a_few_random_bits_are_those_of_many(first: int) -> None:
    key = np.array([0xDEADBEEF, 0xFFFFFFFF], np.uint32)
    many = np.empty(random.FEW + 60, np.uint32)
    random.fill_bits(key, many, first)
    for size in (0, 1, 2, 33, random.FEW):
        np.testing.assert_array_equal(random.few_bits(key, size, first), many[:size])
