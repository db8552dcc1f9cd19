"""Strides, placing, scheduling and the arena."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends.random_graphs import random_graph
from tracegrad.backends.numpy import Options, compile
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder
from tracegrad.ir.types import TensorType, f32
from tracegrad.passes.memory.place import Facts, separate_outputs
from tracegrad.passes.memory.plan import ALIGNMENT, assign_offsets, lifetimes
from tracegrad.passes.memory.schedule import schedule
from tracegrad.passes.memory.storage import Storage, c_strides, collapsed, reshaped_strides
from tracegrad.passes.views import base_of

ELEMENTWISE = frozenset({"add", "sub", "mul", "tanh", "neg", "exp"})
FACTS = Facts(
    overwrites=lambda node: (
        [(0, k) for k in range(len(node.inputs))] if node.op.name in ELEMENTWISE else []
    ),
    strided=lambda node: node.op.name in ELEMENTWISE | {"matmul"},
)


def tensor(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32))


# ------------------------------------------------------------------ strides


@st.composite
def factored(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A shape with `size` elements, ones here and there."""
    shape = []
    while size > 1:
        factor = draw(st.sampled_from([f for f in range(2, size + 1) if size % f == 0]))
        shape.append(factor)
        size //= factor
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


@given(st.data())
def test_reshaped_strides_are_those_of_numpy(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 2, 6, 12, 24, 36]))
    array = np.arange(size).reshape(data.draw(factored(size)))
    array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    if array.ndim and array.size > 1:
        axis = data.draw(st.integers(0, array.ndim - 1))
        step = data.draw(st.sampled_from([1, 2, -1]))
        array = array[(slice(None),) * axis + (slice(None, None, step),)]
    new = data.draw(factored(array.size))
    strides = reshaped_strides(array.shape, tuple(s // 8 for s in array.strides), new)
    try:
        expected = array.reshape(new, copy=False)
    except ValueError:
        assert strides is None
        return
    assert strides is not None
    for length, mine, theirs in zip(new, strides, expected.strides):
        assert length == 1 or mine == theirs // 8


def test_axes_merge_where_every_operand_allows() -> None:
    shape = (4, 5, 6)
    full, vector, row = c_strides(shape), (0, 0, 1), (5, 1, 0)
    assert collapsed(shape, [full, full], keep_last=False) == [[0, 1, 2]]
    assert collapsed(shape, [full, full], keep_last=True) == [[0, 1], [2]]
    assert collapsed(shape, [full, vector], keep_last=False) == [[0, 1], [2]]
    assert collapsed(shape, [full, row], keep_last=True) == [[0, 1], [2]]
    assert collapsed(shape, [full, (0, 6, 1)], keep_last=False) == [[0], [1, 2]]
    assert collapsed((4, 1, 6), [(6, 77, 1)], keep_last=False) == [[0, 1, 2]]


# ------------------------------------------------------------------ placing


def test_outputs_get_storage_of_their_own() -> None:
    x = tensor(3, 4)
    y = ops.tanh(x)
    turned = ops.transpose(y, perm=(1, 0))
    graph = separate_outputs(Graph((x,), (turned, y, x, y)), {}, frozenset())
    assert [node.op.name for node in graph.outputs] == ["copy", "tanh", "copy", "copy"]
    assert len({base_of(node) for node in graph.outputs}) == 4


def test_operands_of_a_concatenation_are_computed_in_place() -> None:
    x, y = tensor(3, 4), tensor(3, 5)
    joined = ops.concatenate(ops.tanh(x), ops.neg(y), axis=1)
    placed = schedule(Graph((x, y), (ops.exp(joined),)), {}, FACTS).placed
    target = placed.view(joined)
    left, right = (placed.view(operand) for operand in joined.inputs)
    assert left.storage is right.storage is target.storage
    assert (left.offset, right.offset, left.strides) == (0, 4, (9, 1))


def test_a_product_is_stored_as_its_transpose_reads_it() -> None:
    x, y = tensor(2, 3, 4), tensor(2, 4, 5)
    product = ops.matmul(x, y)
    flat = ops.reshape(ops.transpose(product, perm=(1, 0, 2)), shape=(3, 10))
    placed = schedule(Graph((x, y), (ops.tanh(flat),)), {}, FACTS).placed
    assert placed.view(product).strides == (5, 10, 1)
    assert not placed.copies


def test_a_reshape_without_strides_is_a_copy() -> None:
    x = tensor(3, 4)
    flat = ops.reshape(ops.transpose(ops.tanh(x), perm=(1, 0)), shape=(12,))
    graph = Graph((x,), (ops.exp(flat) + ops.reshape(ops.tanh(x), shape=(12,)),))
    placed = schedule(graph, {}, Facts()).placed
    assert placed.copies == {flat}


# ------------------------------------------------------------------ order


def position(steps: list[Node], node: Node) -> int:
    return steps.index(node)


def test_a_state_is_written_after_every_reader_of_the_old_value() -> None:
    w, g = tensor(4, 4), tensor(4, 4)
    new = w - g
    reader = ops.matmul(g, ops.transpose(w, perm=(1, 0)))
    scheduled = schedule(Graph((w, g), (new, reader)), {0: 0}, FACTS)
    steps = scheduled.steps
    assert position(steps, reader) < position(steps, new)
    assert scheduled.placed.view(new).storage is scheduled.placed.view(w).storage


def test_states_that_need_each_other_are_copied() -> None:
    a, b = tensor(3), tensor(3)
    scheduled = schedule(Graph((a, b), (b, a)), {0: 0, 1: 1}, FACTS)
    steps = [node.op.name for node in scheduled.steps]
    assert steps.count("copy") >= 3  # a swap needs a third place
    outputs = scheduled.placed.graph.outputs
    writers = [position(scheduled.steps, node) for node in outputs]
    assert max(writers) == len(steps) - 1


def test_what_frees_memory_runs_first() -> None:
    x = tensor(64, 64)
    first, second = ops.exp(x), ops.tanh(x)
    small = [ops.sum_(ops.matmul(h, h), axes=(0, 1)) for h in (first, second)]
    steps = schedule(Graph((x,), (small[0] + small[1],)), {}, Facts()).steps
    assert position(steps, small[0]) < position(steps, second)


# ------------------------------------------------------------------ the arena


@pytest.mark.parametrize("seed", range(10))
def test_no_two_living_storages_share_bytes(seed: int) -> None:
    graph = random_graph(seed, 60)
    alive = lifetimes(schedule(graph, {}, FACTS), FACTS)
    total = assign_offsets(alive.storages)
    for k, a in enumerate(alive.storages):
        assert a.offset % ALIGNMENT == 0 and a.offset + a.nbytes <= total
        for b in alive.storages[:k]:
            apart = a.end < b.start or b.end < a.start
            assert apart or a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


def test_a_gap_is_filled_by_what_fits_tightest() -> None:
    def block(nbytes: int, start: int, end: int) -> Storage:
        return Storage("arena", nbytes, start=start, end=end)

    low, gap, top, later = block(640, 0, 9), block(320, 0, 1), block(640, 0, 9), block(256, 2, 9)
    total = assign_offsets([low, gap, top, later])
    assert total == 1600
    assert later.offset == gap.offset


def test_a_dying_operand_gives_its_place() -> None:
    x = tensor(8, 8)
    graph = Graph((x,), (ops.matmul(ops.tanh(ops.neg(ops.exp(x))), x),))
    assert len(lifetimes(schedule(graph, {}, FACTS), FACTS).storages) == 1
    alive = lifetimes(schedule(graph, {}, Facts()), Facts())
    assert assign_offsets(alive.storages) == 512  # two in turn, without permission to overwrite


def test_an_operand_read_in_another_order_keeps_its_place() -> None:
    x = tensor(8, 8)
    h = ops.tanh(x)
    graph = Graph((x,), (ops.matmul(h + ops.transpose(h, perm=(1, 0)), x),))
    assert len(lifetimes(schedule(graph, {}, FACTS), FACTS).storages) == 2


def test_the_plan_says_who_lives_at_the_peak() -> None:
    x = tensor(100, 100)
    a, b = ops.exp(x), ops.tanh(x)
    graph = Graph((x,), (ops.sum_(ops.matmul(a, b), axes=(0, 1)),))
    plan = compile(graph, Options(fuse=False)).memory
    assert plan.live_bytes == 3 * 40_000 <= plan.arena_bytes
    assert sorted(entry.label for entry in plan.at_peak()) == ["exp", "matmul", "tanh"]
    assert "matmul" in str(plan)
