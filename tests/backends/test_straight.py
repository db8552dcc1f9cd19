"""Straight-line programs give the kernels' values, dtypes and memory layouts, bit for bit."""

import re

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tracegrad.backends.base import IndexOutOfRange
from tracegrad.backends.numpy import KERNELS, interpret
from tracegrad.backends.numpy.straight import straight
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, placeholder
from tracegrad.ir.types import TensorType, f16, f32, f64, i64, u32
from tracegrad.passes.decompose import Decompose

CASES = [(name, k) for name in SAMPLES for k in range(len(SAMPLES[name]))]


def flipped(a):
    """Equal, but laid out column by column."""
    return np.asfortranarray(a) if a.ndim > 1 else a


def check(graph, arrays):
    graph = Decompose(frozenset(KERNELS)).run(graph)
    run = straight(graph)
    for given in (arrays, [flipped(a) for a in arrays]):
        kept = [a.copy() for a in given]
        expected = interpret(graph, given)
        found = run(given)
        for before, after in zip(kept, given):
            assert before.tobytes() == after.tobytes()
        for mine, theirs in zip(found, expected, strict=True):
            assert type(mine) is np.ndarray
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
            assert mine.tobytes() == np.asarray(theirs).tobytes()
            owned = not any(np.may_share_memory(theirs, a) for a in given)
            if owned and theirs.flags.writeable and theirs.size > 1:
                assert mine.flags.c_contiguous or mine.strides == theirs.strides
            assert not any(np.may_share_memory(mine, a) for a in given if a.size)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "k"), CASES)
def test_samples(name, k):
    sample = SAMPLES[name][k]
    check(sample.graph(name), sample.arrays())


def test_a_product_takes_what_is_added_to_it():
    x, y = (placeholder(TensorType(s, f32)) for s in ((2, 3, 4), (2, 4, 3)))
    row, whole = (placeholder(TensorType(s, f32)) for s in ((9,), (2, 9)))
    product = ops.matmul(x, y)
    flat = ops.reshape(product, shape=(2, 9))
    wide = ops.broadcast_to(row, shape=(2, 9), dims=(1,))
    rng = np.random.default_rng(0)
    for outputs in (
        (ops.add(flat, wide),),
        (ops.sub(flat, wide), flat),  # the product is a result itself
        (ops.mul(flat, wide), ops.neg(flat)),
        (ops.add(flat, wide), ops.div(wide, flat)),
        (ops.add(flat, whole),),
        (ops.add(flat, flat),),
        (ops.add(ops.add(flat, wide), wide), product),
    ):
        graph = Graph((x, y, row, whole), outputs)
        check(graph, [rng.standard_normal(n.shape).astype("f4") for n in graph.inputs])


def test_broadcasts_before_elementwise_ops_are_left_to_numpy():
    x = placeholder(TensorType((2, 3, 4), f64))
    channel, number = placeholder(TensorType((3,), f64)), placeholder(TensorType((), f64))
    middle = ops.broadcast_to(channel, shape=x.shape, dims=(1,))
    every = ops.broadcast_to(number, shape=x.shape, dims=())
    half = ops.splat(0.5, x.type)
    where = ops.where(ops.lt(x, middle), every, ops.maximum(x, half))
    alone = ops.add(middle, every)  # nothing here has the full shape
    graph = Graph((x, channel, number), (where, alone, every, middle, half))
    check(graph, [np.random.default_rng(1).standard_normal(n.shape) for n in graph.inputs])


def row_index(source, index):
    """Rows at an index whose negative places count from the end: what x[index] records."""
    size, below = source.shape[0], ops.lt(index, ops.zeros_like(index))
    counted = ops.where(below, index + size, index)
    return ops.gather(source, counted, axes=(0,)), counted, below


@pytest.mark.parametrize("places", [[0, -1, 2, -5], [[4, -2], [1, 1]]])
def test_rows_at_an_index_of_either_sign(places):
    source, index = placeholder(TensorType((5, 3), f32)), np.array(places, np.int64)
    at = placeholder(TensorType(index.shape, i64))
    rows, counted, below = row_index(source, at)
    array = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    for outputs in ((rows,), (rows, counted), (below, rows), (ops.neg(rows), ops.neg(counted))):
        check(Graph((source, at), outputs), [array, index])


@pytest.mark.parametrize("place", [5, -6, 2**40])
def test_a_row_out_of_range_is_named(place):
    source, at = placeholder(TensorType((5, 3), f32)), placeholder(TensorType((2,), i64))
    graph = Graph((source, at), (row_index(source, at)[0],))
    arrays = [np.ones((5, 3), np.float32), np.array([0, place])]
    with pytest.raises(IndexOutOfRange) as expected:
        interpret(graph, arrays)
    with pytest.raises(IndexOutOfRange, match=re.escape(str(expected.value))):
        straight(graph)(arrays)


def test_only_that_index_is_left_to_numpy():
    source, at = placeholder(TensorType((5, 3), f32)), placeholder(TensorType((2,), i64))
    shifted = ops.where(ops.lt(at, ops.zeros_like(at)), at + 4, at)  # not from the end
    array = np.arange(15, dtype=np.float32).reshape(5, 3)
    check(
        Graph((source, at), (ops.gather(source, shifted, axes=(0,)),)), [array, np.array([-1, 3])]
    )


@pytest.mark.parametrize("descending", [False, True])
def test_the_first_of_a_sorted_order(descending):
    x = placeholder(TensorType((3, 6), f32))
    order = ops.argsort(x, axis=1, descending=descending)
    first = ops.slice_(order, start=(0, 0), stop=(3, 2), step=(1, 1))
    array = np.random.default_rng(8).normal(size=(3, 6)).astype(np.float32)
    check(Graph((x,), (ops.take_along(x, first, axis=1), first)), [array])
    values, places = straight(Graph((x,), (ops.take_along(x, first, axis=1), first)))([array])
    assert places.base is None and values.base is None  # they keep nothing larger alive


def test_an_order_of_another_axis_is_checked():
    x, y = placeholder(TensorType((3, 6), f32)), placeholder(TensorType((2, 6), f32))
    order = ops.argsort(x, axis=0, descending=False)
    graph = Graph((x, y), (ops.take_along(y, order, axis=0),))
    arrays = [np.ones((3, 6), np.float32), np.ones((2, 6), np.float32)]
    with pytest.raises(IndexOutOfRange):
        straight(graph)(arrays)


@pytest.mark.parametrize("rate", [0.0, 2.0**-34, 2.0**-33, 2.0**-32, 0.3, 1.0])
def test_dropout_at_every_rate(rate):
    x, key = placeholder(TensorType((4, 5), f32)), placeholder(TensorType((2,), u32))
    array = np.random.default_rng(8).normal(size=(4, 5)).astype(np.float32)
    check(Graph((x, key), (ops.dropout(x, key, rate=rate),)), [array, np.array([1, 2], np.uint32)])


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"])
@pytest.mark.parametrize("dtype", [f16, f32, f64])
def test_scans(name, dtype):
    x = placeholder(TensorType((4, 5), dtype))
    array = np.random.default_rng(8).normal(size=(4, 5)).astype(dtype.np)
    for axis in (0, 1):
        check(Graph((x,), (getattr(ops, name)(x, axis=axis),)), [array])


@pytest.mark.parametrize("ignore_index", [-100, 1, 7])
@pytest.mark.parametrize("target", [[0, 2, 1], [1, 1, 1], [0, -100, 7], [3, 0, 0], [0, -1, 1]])
def test_cross_entropy_with_and_without_ignored_rows(target, ignore_index):
    x, y = placeholder(TensorType((3, 3), f32)), placeholder(TensorType((3,), i64))
    graph = Graph((x, y), (ops.cross_entropy(x, y, ignore_index=ignore_index),))
    arrays = [np.random.default_rng(8).normal(size=(3, 3)).astype(np.float32), np.array(target)]
    arrays[0][0] = np.inf, 1, 2
    if all(0 <= place < 3 or place == ignore_index for place in target):
        check(graph, arrays)
        return
    with pytest.raises(IndexOutOfRange):
        straight(graph)(arrays)
