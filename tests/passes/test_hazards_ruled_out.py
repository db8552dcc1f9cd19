"""What a graph may raise for: every op says it once, and what can be ruled out is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tracegrad.ir import hazards as kind
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, Op, placeholder, postorder
from tracegrad.ir.hazards import Hazard
from tracegrad.ir.ops import OPS
from tracegrad.ir.types import TensorType, bool_, f32, i32, i64
from tracegrad.passes.hazards import hazards, kinds, may_raise


def tensor(*shape: int, dtype=f32) -> Node:
    return placeholder(TensorType(shape, dtype))


def literal(values, dtype=np.int64) -> Node:
    return ops.literal(np.array(values, dtype))


def test_an_index_that_came_from_outside_may_be_out_of_range():
    x, i = tensor(5, 3), tensor(2, dtype=i64)
    rows = ops.gather(x, i, axes=(0,))
    columns = ops.gather(x, i, axes=(1,))
    assert hazards(rows) == [Hazard(kind.INDEX, i, 5)]
    assert hazards(columns) == [Hazard(kind.INDEX, i, 3)]
    assert hazards(ops.scatter(x, i, rows, axes=(0,), mode="add")) == hazards(rows)  # told once
    along = tensor(2, 3, dtype=i64)
    picked = ops.take_along(x, along, axis=0)
    assert hazards(picked) == [Hazard(kind.INDEX, along, 5)]
    assert hazards(ops.scatter_along(x, along, picked, axis=0, mode="set")) == hazards(picked)


@pytest.mark.parametrize(
    "index, safe",
    [
        (lambda: literal([0, 4]), True),
        (lambda: literal([0, 5]), False),
        (lambda: literal([-1, 0]), False),
        (lambda: tensor(0, dtype=i64), True),
        (lambda: ops.iota(shape=(5,), axis=0, dtype=i64), True),
        (lambda: ops.iota(shape=(6,), axis=0, dtype=i64), False),
        (lambda: ops.argmax(tensor(2, 5), axis=1), True),
        (lambda: ops.argmin(tensor(2, 6), axis=1), False),
        (lambda: ops.argsort(tensor(5), axis=0, descending=True), True),
        (lambda: ops.reshape(ops.iota(shape=(4,), axis=0, dtype=i64), shape=(2, 2)), True),
        (lambda: ops.broadcast_to(literal(4), shape=(3,), dims=()), True),
        (lambda: ops.fence(ops.detach(literal([1, 2]))), True),
    ],
)
def test_an_index_that_its_op_keeps_in_range_raises_nothing(index, safe):
    node = ops.gather(tensor(5), index(), axes=(0,))
    assert (hazards(node) == []) is safe


def test_only_a_divisor_of_integers_that_may_be_zero_is_a_hazard():
    for op in (ops.floor_div, ops.rem):
        x, y = tensor(3, dtype=i32), tensor(3, dtype=i32)
        assert hazards(op(x, y)) == [Hazard(kind.ZERO, y)]
        assert hazards(op(tensor(3), tensor(3))) == []
        assert hazards(op(x, literal([1, -2, 3], np.int32))) == []
        assert hazards(op(x, literal([1, 0, 3], np.int32)))
        seven = ops.broadcast_to(literal(7, np.int32), shape=(3,), dims=())
        assert hazards(op(x, seven)) == []


def test_checks_and_factorisations():
    ok = tensor(dtype=bool_)
    for name in (kind.CHECK, kind.VALUE, kind.LINALG):
        assert hazards(ops.check(ok, message="no", kind=name)) == [Hazard(name, ok)]
    x = tensor(3, 3)
    assert hazards(ops.cholesky(x)) == [Hazard(kind.DEFINITE, x)]
    assert hazards(ops.eigh(x)) == [Hazard(kind.FINITE_LOWER, x)]
    assert hazards(ops.svd(x)) == [Hazard(kind.FINITE, x)]
    assert hazards(ops.qr(x)) == hazards(ops.lu(x)) == []


def loop(divide: bool, bound: int | None) -> Node:
    c, n = tensor(dtype=i64), literal(9)
    test = Graph((c,), (ops.lt(ops.floor_div(n, c) if divide else c, n),))
    c = tensor(dtype=i64)
    return ops.while_loop(tensor(dtype=i64), cond=test, body=Graph((c,), (c + 1,)), max_trips=bound)


def test_a_loop_may_raise_in_its_condition_and_at_its_bound():
    assert hazards(loop(False, None)) == []
    free, bounded, both = loop(True, None), loop(False, 4), loop(True, 4)
    assert hazards(free) == [Hazard(kind.INSIDE, free)]
    assert hazards(bounded) == [Hazard(kind.TRIPS, bounded)]
    assert hazards(both) == [Hazard(kind.TRIPS, both), Hazard(kind.INSIDE, both)]
    graph = Graph(both.inputs, (ops.proj(both, index=0),))
    assert may_raise(graph) and kinds(graph) == {kind.TRIPS, kind.ZERO}
    outer = ops.call(tensor(dtype=i64), graph=graph)
    assert hazards(outer) == [Hazard(kind.INSIDE, outer)]


def samples_of(op: Op) -> list[Node]:
    """The nodes of `op` in its samples."""
    graphs = [sample.graph(op.name) for sample in SAMPLES.get(op.name, [])]
    return [node for graph in graphs for node in graph.nodes if node.op is op]


COMPOSITES = [op for op in OPS.values() if op.decompose is not None]


@pytest.mark.parametrize("op", COMPOSITES, ids=[op.name for op in COMPOSITES])
def test_a_composite_may_raise_where_its_parts_may(op):
    for node in samples_of(op):
        result = op.decompose(*node.inputs, **node.attrs)
        parts = postorder(result if isinstance(result, tuple) else (result,))
        inside = any(hazards(part) for part in parts if part is not node)
        assert bool(hazards(node)) == inside, f"give {op.name} hazards= in its paragraph"


@pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
def test_the_hazards_of_an_op_are_of_known_kinds_and_about_its_operands(op):
    for node in samples_of(op):
        for hazard in hazards(node):
            assert hazard.kind in kind.KINDS
            assert hazard.subject is node or hazard.subject in node.inputs
