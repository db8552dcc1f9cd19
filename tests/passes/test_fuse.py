"""The fuse pass: who forms a group, what stays outside, and equal values."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.random_graphs import random_arrays, random_graph
from tracegrad.backends.numpy import interpret
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.ops.build import along, spread
from tracegrad.ir.types import TensorType, f32
from tracegrad.ir.verify import verify
from tracegrad.passes.fuse import Fuse, FuseRules
from tracegrad.passes.join_pads import JoinPads

RULES = FuseRules(
    elementwise=frozenset({"add", "sub", "mul", "tanh", "exp", "rsqrt", "where", "lt", "neg",
                           "sin", "abs", "maximum", "div"}),
    reductions=frozenset({"sum", "max", "min"}),
    min_size=16,
)  # fmt: skip


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


def fused(*outputs: Node, inputs: tuple[Node, ...]) -> Graph:
    return Fuse(RULES).run(Graph(inputs, outputs))


def groups(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op.name == "fused"]


def names(node: Node) -> list[str]:
    """The ops inside a group, sorted."""
    inner = node.attrs["graph"]
    return sorted(n.op.name for n in inner.nodes if n not in inner.inputs)


def test_a_chain_is_one_group() -> None:
    x, y = tensor(8, 8), tensor(8, 8)
    graph = fused(ops.tanh(x * 2.0 + y), inputs=(x, y))
    (group,) = groups(graph)
    assert names(group) == ["add", "constant", "mul", "tanh"]
    assert graph.outputs == (group,)


def test_operands_enter_before_they_are_broadcast() -> None:
    x, v = tensor(8, 8), tensor(8)
    (group,) = groups(fused(ops.tanh(x + along(v, x.shape, (1,))), inputs=(x, v)))
    assert {operand.shape for operand in group.inputs} == {(8, 8), (8,)}


def test_a_softmax_with_its_row_values_is_one_group() -> None:
    x = tensor(8, 8)
    e = ops.exp(x - spread(ops.max_(x, axes=(1,)), x.shape, (1,)))
    graph = fused(e / spread(ops.sum_(e, axes=(1,)), x.shape, (1,)), inputs=(x,))
    assert len(groups(graph)) == 1
    assert [node.op.name for node in graph.nodes] == ["input", "fused"]


def test_a_layer_norm_with_its_statistics_is_one_group_of_three_results() -> None:
    x, w = tensor(8, 8), tensor(8)
    mean = ops.sum_(x, axes=(1,)) * 0.125
    centred = x - spread(mean, x.shape, (1,))
    rstd = ops.rsqrt(ops.sum_(centred * centred, axes=(1,)) * 0.125 + 1e-5)
    y = centred * spread(rstd, x.shape, (1,)) * along(w, x.shape, (1,))
    graph = fused(y, mean, rstd, inputs=(x, w))
    (group,) = groups(graph)
    assert [part.shape for part in group.type.parts] == [(8,), (8,), (8, 8)]


def test_a_path_through_a_matmul_splits_a_group() -> None:
    # tanh(x) is read by the matmul and by the sum behind it: one group would wait for itself
    x, w = tensor(8, 8), tensor(8, 8)
    h = ops.tanh(x * 2.0)
    graph = fused(ops.tanh(ops.matmul(h, w) + h), inputs=(x, w))
    assert [names(group) for group in groups(graph)] == [["constant", "mul", "tanh"],
                                                         ["add", "tanh"]]  # fmt: skip


def test_what_only_a_later_group_reads_joins_it() -> None:
    x, w, m = tensor(8, 8), tensor(8, 8), tensor(8, 8)
    g = ops.matmul(x, w)
    graph = fused(m * 0.9 + g * 0.1, inputs=(x, w, m))
    (group,) = groups(graph)
    assert names(group) == ["add", "constant", "constant", "mul", "mul"]


def test_what_would_keep_more_alive_stays_early() -> None:
    x, w, a, b = tensor(8, 8), tensor(8, 8), tensor(8, 8), tensor(8, 8)
    early = ops.tanh(ops.tanh(a) * ops.tanh(b))  # two arrays in, one out
    graph = fused(ops.tanh(ops.matmul(x, w) + early), inputs=(x, w, a, b))
    assert [len(group.inputs) for group in groups(graph)] == [2, 2]


def test_small_and_single_nodes_are_left_alone() -> None:
    small, x = tensor(3), tensor(8, 8)
    graph = fused(ops.tanh(small * 2.0), ops.tanh(x), inputs=(small, x))
    assert groups(graph) == []


def test_a_broadcast_row_value_read_outside_is_broadcast_there() -> None:
    x, w = tensor(8, 8), tensor(8, 8)
    row = ops.sum_(ops.tanh(x), axes=(1,))
    wide = spread(row, x.shape, (1,))
    graph = fused(x * wide, ops.matmul(wide, w), inputs=(x, w))
    (group,) = groups(graph)
    assert sorted(part.shape for part in group.type.parts) == [(8,), (8, 8)]


def test_locations_are_kept() -> None:
    graph = random_graph(1, 60)
    for group in groups(Fuse(RULES).run(graph)):
        assert all(node.loc is not None for node in group.attrs["graph"].nodes)


@pytest.mark.parametrize("seed", range(30))
def test_values_stay_equal(seed: int) -> None:
    graph = random_graph(seed, 30 + seed)
    after = Fuse(RULES).run(graph)
    verify(after)
    arrays = random_arrays(graph, seed)
    for result, wanted in zip(interpret(after, arrays), interpret(graph, arrays)):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ pads that add up


def padded(x: Node, low: int, high: int, value: float = 0.0) -> Node:
    zero = ops.splat(value, TensorType((), f32))
    return ops.pad(x, zero, low=(0, low), high=(0, high), interior=(0, 0))


def joined(output: Node, *inputs: Node) -> tuple[Graph, list[str]]:
    graph = Graph(inputs, (output,))
    after = JoinPads().run(graph)
    arrays = random_arrays(graph, 0)
    np.testing.assert_array_equal(interpret(after, arrays)[0], interpret(graph, arrays)[0])
    return after, [node.op.name for node in after.nodes if node.op.name != "input"]


def test_pads_side_by_side_are_a_concatenation() -> None:
    a, b, c = tensor(2, 3), tensor(2, 4), tensor(2, 2)
    total = padded(a, 0, 6) + padded(b, 3, 2) + padded(c, 7, 0)
    assert joined(total, a, b, c)[1] == ["concatenate"]


def test_a_gap_between_pads_is_zeros() -> None:
    a, b = tensor(2, 3), tensor(2, 4)
    assert joined(padded(a, 0, 6) + padded(b, 5, 0), a, b)[1] == ["constant", "concatenate"]


@pytest.mark.parametrize("kind", ["overlap", "not zero", "read twice", "another term"])
def test_pads_that_must_stay(kind: str) -> None:
    a, b = tensor(2, 3), tensor(2, 4)
    first, second = padded(a, 0, 4), padded(b, 3, 0)
    if kind == "overlap":
        second = padded(b, 2, 1)
    elif kind == "not zero":
        second = padded(b, 3, 0, value=1.0)
    total = first + second
    if kind == "read twice":
        total = total * first
    elif kind == "another term":
        total = total + ops.tanh(first)
    assert "concatenate" not in joined(total, a, b)[1]
