"""The pipeline, its observers, and the passes that are not rewrite rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.op_samples import SAMPLES
from tracegrad.backends.base import KernelError
from tracegrad.backends.numpy import KERNELS, interpret
from tracegrad.ir import (
    Graph,
    IRTypeError,
    Loc,
    Node,
    TensorType,
    VerifyError,
    at,
    f32,
    i64,
    ops,
    placeholder,
    u32,
    verify,
)
from tracegrad.ir.ops.traits import COMPOSITE
from tracegrad.passes.base import Pass, Pipeline
from tracegrad.passes.cleanup import DropFences, DropMarkers
from tracegrad.passes.cse import CSE
from tracegrad.passes.decompose import Decompose
from tracegrad.passes.fold import BYTE_LIMIT, Fold
from tracegrad.passes.observers import Check, History, Timing, check_level, difference
from tracegrad.passes.pipeline import standard_passes, standard_pipeline
from tracegrad.passes.rules.selftest import value_sets
from tracegrad.passes.sampling import generate_inputs
from tracegrad.passes.simplify import Simplify


def leaf(*shape: int) -> Node:
    return placeholder(TensorType(shape, f32), Loc("net.py", 1))


def make_inputs(graph: Graph, seed: int) -> Sequence[Any]:
    return next(iter(value_sets(graph, special=False, seed=seed)))


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


# ---------------------------------------------------------------- the standard pipeline


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_pipeline_keeps_the_values_of_every_op(name: str) -> None:
    for sample in SAMPLES[name]:
        graph = sample.graph(name)
        check = Check(2, interpret, lambda graph, seed, sample=sample: sample.arrays())
        after = standard_pipeline(evaluate=interpret, observers=(check,)).run(graph)
        verify(after)
        for old, new in zip(interpret(graph, sample.arrays()), interpret(after, sample.arrays())):
            assert difference(old, new) == ""
        kinds = {node.op.name for node in after.nodes if node.op.has(COMPOSITE)}
        assert not kinds, f"{kinds} were not decomposed"


def test_every_node_keeps_a_line() -> None:
    with at(Loc("net.py", 3, "forward", "head")):
        x, w = leaf(2, 3, 4), leaf(4, 4)
        y = ops.matmul(x, ops.broadcast_to(w, shape=(2, 4, 4), dims=(1, 2)))
        bias = ops.broadcast_to(ops.literal(np.float32([1, 2, 3, 4])), shape=y.shape, dims=(2,))
        z = ops.softmax(y * 1.0 + ops.exp(bias), axis=2)
    after = standard_pipeline(evaluate=interpret).run(Graph((x, w), (z,)))
    verify(after, require_loc=True)
    assert {node.loc.file for node in after.nodes} == {"net.py"}


def test_claimed_composites_stay_whole() -> None:
    x = leaf(2, 3)
    graph = Graph((x,), (ops.softmax(x, axis=1),))
    kept = Pipeline(standard_passes(frozenset({"softmax"}))).run(graph)
    assert names(kept) == ["input", "softmax"]
    assert "softmax" not in names(Pipeline(standard_passes()).run(graph))


# ---------------------------------------------------------------- observers


@dataclass(frozen=True)
class Doubles(Pass):
    """`y` -> `y * factor`: wrong on purpose."""

    name: ClassVar[str] = "doubles"
    factor: float = 2.0

    def run(self, graph: Graph) -> Graph:
        return graph.with_outputs(node * self.factor for node in graph.outputs)


@dataclass(frozen=True)
class Drops(Pass):
    name: ClassVar[str] = "drops"

    def run(self, graph: Graph) -> Graph:
        return graph.with_outputs(ops.sum_(node, axes=(0,)) for node in graph.outputs)


@dataclass(frozen=True)
class Fails(Pass):
    name: ClassVar[str] = "fails"

    def run(self, graph: Graph) -> Graph:
        raise IRTypeError("no")


def one_op() -> Graph:
    x = leaf(2, 3)
    with at(Loc("net.py", 9)):
        return Graph((x,), (ops.exp(x),), name="step")


def test_level_2_names_the_pass_that_changed_a_value() -> None:
    check = Check(2, interpret, make_inputs)
    pipeline = Pipeline((CSE(), Doubles(), Simplify()), (check,))
    with pytest.raises(
        VerifyError, match=r"after doubles: output 'out0' of graph 'step'"
    ) as caught:
        pipeline.run(one_op())
    assert "6 of 6 elements differ" in str(caught.value)


def test_inputs_that_a_program_refuses_show_nothing() -> None:
    a = leaf(3, 3)
    graph = Graph((a,), (ops.cholesky(a * 1.0),))
    with pytest.raises(RuntimeError, match="cholesky"):
        interpret(graph, [np.full((3, 3), -1, np.float32)])
    check = Check(2, interpret, lambda graph, seed: [np.full((3, 3), -1, np.float32)])
    after = Pipeline((Simplify(),), (check,)).run(graph)
    assert names(after) == ["input", "cholesky"]


def test_a_kernel_that_is_wrong_is_not_taken_for_a_program_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exp(x: Any) -> Any:
        raise TypeError("wrong in itself")

    monkeypatch.setitem(KERNELS, "exp", exp)
    with pytest.raises(KernelError, match="wrong in itself"):
        Pipeline((CSE(), Doubles()), (Check(2, interpret, make_inputs),)).run(one_op())
    with pytest.raises(KernelError, match="wrong in itself"):
        Fold(interpret).run(Graph((), (ops.exp(ops.splat(1, TensorType((2,), f32))),)))


def test_generated_inputs_suit_their_roles() -> None:
    types = [TensorType((50,), dtype) for dtype in (f32, f32, i64, u32)]
    nodes = tuple(placeholder(type_) for type_ in types)
    graph = Graph(nodes, nodes[:1], input_roles=("argument", "state", "argument", "host"))
    x, weight, index, key = generate_inputs(graph, 3)
    assert [a.dtype for a in (x, weight, index, key)] == [t.dtype.np for t in types]
    assert x.min() < 0 < weight.min() and set(index) == {0, 1} and key.max() > 1 << 16
    np.testing.assert_array_equal(generate_inputs(graph, 3)[0], x)
    assert (generate_inputs(graph, 4)[0] != x).any()


def test_level_1_checks_form_and_not_values() -> None:
    Pipeline((Doubles(),), (Check(1, interpret, make_inputs),)).run(one_op())
    with pytest.raises(VerifyError, match="after drops: outputs changed type"):
        Pipeline((Drops(),), (Check(1),)).run(one_op())
    Pipeline((Drops(),), (Check(0, interpret, make_inputs),)).run(one_op())


def test_level_2_evaluates_once_a_pass() -> None:
    runs = []

    def counting(graph: Graph, arrays: Sequence[Any]) -> Sequence[Any]:
        runs.append(graph)
        return interpret(graph, arrays)

    x = leaf(2, 3)
    graph = Graph((x,), (ops.exp(ops.neg(-x)) + ops.exp(x),))
    Pipeline((Simplify(), CSE(), Simplify()), (Check(2, counting, make_inputs),)).run(graph)
    assert len(runs) == 3  # the trace, after simplify, after cse; the last pass changed nothing


def test_errors_of_a_pass_name_it() -> None:
    with pytest.raises(IRTypeError) as caught:
        Pipeline((CSE(), Fails())).run(one_op())
    assert caught.value.__notes__ == ["in pass 'fails' (number 1 of the pipeline)"]


def test_history_and_timing() -> None:
    history, timing = History(), Timing()
    graph = one_op()
    pipeline = Pipeline((CSE(), Doubles()), (history, timing))
    after = pipeline.run(graph)
    assert [name for name, _ in history.graphs] == ["trace", "cse", "doubles"]
    assert history.graphs[0][1] is graph and history.graphs[-1][1] is after
    assert [(row[0], row[2], row[3]) for row in timing.rows] == [("cse", 2, 2), ("doubles", 2, 4)]
    assert "doubles" in str(timing)


def test_the_check_level_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_CHECK", "2")
    assert check_level() == 2
    monkeypatch.setenv("TRACEGRAD_CHECK", "yes")
    with pytest.raises(ValueError, match="one of 0, 1, 2, 3"):
        check_level()
    monkeypatch.delenv("TRACEGRAD_CHECK")
    assert check_level() == 0


def test_difference() -> None:
    a = np.array([1.0, np.nan, np.inf], np.float32)
    assert difference(a, a + np.float32(1e-6)) == ""
    assert "1 of 3" in difference(a, np.array([1.0, 0.0, np.inf], np.float32))
    assert "1 of 3" in difference(a, np.array([1.0, np.nan, -np.inf], np.float32))
    assert "became" in difference(a, a.astype(np.float64))
    assert "1 of 2" in difference(np.array([1, 2]), np.array([1, 3]))


# ---------------------------------------------------------------- cse


def test_equal_nodes_are_computed_once_and_remember_both_lines() -> None:
    x = leaf(2)
    with at(Loc("net.py", 3)):
        a = ops.exp(x)
    with at(Loc("net.py", 4)):
        b = ops.exp(x)
    after = CSE().run(Graph((x,), (a + b, b)))
    assert names(after) == ["input", "exp", "add"]
    assert str(after.outputs[1].loc) == "net.py:3"
    assert [str(loc) for loc in after.outputs[1].loc.also] == ["net.py:4"]


def test_cse_knows_commutative_ops_and_equal_constants() -> None:
    x, y = leaf(2), leaf(2)
    assert len(CSE().run(Graph((x, y), (x + y, y + x))).nodes) == 3
    assert len(CSE().run(Graph((x, y), (x - y, y - x))).nodes) == 4
    assert len(CSE().run(Graph((x,), (x * 2.0, x * 2.0))).nodes) == 3
    assert len(CSE().run(Graph((x,), (x * 0.0, x * -0.0))).nodes) == 5


def test_cse_merges_random_bits_of_one_key_only() -> None:
    key, other = (placeholder(TensorType((2,), u32)) for _ in range(2))
    bits = [ops.random_bits(k, shape=(3,)) for k in (key, key, other)]
    after = CSE().run(Graph((key, other), tuple(bits)))
    assert after.outputs[0] is after.outputs[1] is not after.outputs[2]


def test_cse_keeps_fences_apart() -> None:
    x = leaf(2)
    kept, again = ops.exp(x), ops.exp(ops.fence(x))
    graph = Graph((x,), (kept, again, ops.exp(ops.fence(x))))
    assert CSE().run(graph) is graph
    assert names(CSE().run(DropFences().run(graph))) == ["input", "exp"]


def test_cse_merges_equal_subgraphs_and_works_inside_them() -> None:
    x = leaf(2)

    def body() -> Graph:
        inner = leaf(2)
        return Graph((inner,), (ops.exp(inner) + ops.exp(inner),))

    calls = [ops.proj(ops.call(x, graph=body()), index=0) for _ in range(2)]
    after = CSE().run(Graph((x,), tuple(calls)))
    assert after.outputs[0] is after.outputs[1]
    assert names(after.outputs[0].inputs[0].attrs["graph"]) == ["input", "exp", "add"]


# ---------------------------------------------------------------- fold


def folded(node: Node, *inputs: Node) -> Node:
    return Fold(interpret).run(Graph(inputs, (node,))).outputs[0]


def test_small_constants_fold() -> None:
    out = folded(ops.exp(ops.literal(np.float32([0, 1]))) * 2.0)
    assert out.op is ops.constant
    np.testing.assert_allclose(out.attrs["value"].array, 2 * np.exp(np.float32([0, 1])))


def test_splats_fold_at_any_size() -> None:
    huge = ops.splat(3.0, TensorType((1 << 20, 1 << 10), f32))
    out = folded(ops.cast(huge * huge, dtype=i64))
    assert out.attrs["value"].splat == 9 and out.shape == huge.shape


def test_large_results_and_views_that_grow_do_not_fold() -> None:
    count = BYTE_LIMIT // 4 + 1
    long = ops.literal(np.arange(count, dtype=np.float32))
    assert folded(ops.exp(long)).op is ops.exp
    short = ops.literal(np.float32([1, 2]))
    wide = ops.broadcast_to(short, shape=(5, 2), dims=(1,))
    assert folded(wide).op is ops.broadcast_to


def test_fold_never_looks_through_a_fence() -> None:
    assert folded(ops.exp(ops.fence(ops.literal(np.float32([1, 2]))))).op is ops.exp


def test_what_fails_is_left_to_fail() -> None:
    zero = ops.literal(np.array([0, 1]))
    assert folded(ops.floor_div(zero, zero)).op is ops.floor_div


# ---------------------------------------------------------------- decompose, markers


def test_decompose_takes_several_results_apart() -> None:
    x, key = leaf(4, 6), placeholder(TensorType((2,), u32))
    stats = ops.layer_norm_stats(x, leaf(6), leaf(6), ndim=1, eps=1e-5)
    inputs = (x, *stats.inputs[1:])
    graph = Graph(inputs, tuple(ops.proj(stats, index=k) for k in range(3)))
    after = Decompose().run(graph)
    assert "layer_norm_stats" not in names(after) and "proj" not in names(after)
    arrays = make_inputs(graph, 0)
    for old, new in zip(interpret(graph, arrays), interpret(after, arrays)):
        assert difference(old, new) == ""
    drop = Graph((x, key), (ops.dropout(x, key, rate=0.5),))
    assert "dropout" not in names(Decompose().run(drop))


def test_decomposed_nodes_keep_the_line() -> None:
    x = leaf(2, 3)
    with at(Loc("net.py", 5, "forward")):
        graph = Graph((x,), (ops.softmax(x, axis=1),))
    after = Decompose().run(graph)
    assert all(str(node.loc) == "net.py:5 in forward <- decompose(softmax)"
               for node in after.nodes if node is not x)  # fmt: skip


def test_decompose_enters_subgraphs_and_leaves_the_rest() -> None:
    x, inner = leaf(2, 3), leaf(2, 3)
    body = Graph((inner,), (ops.softmax(inner, axis=1),))
    after = Decompose().run(Graph((x,), (ops.proj(ops.call(x, graph=body), index=0),)))
    assert "softmax" not in names(after.outputs[0].inputs[0].attrs["graph"])
    plain = one_op()
    assert Decompose().run(plain) is plain


def test_markers_fall_away_after_autodiff() -> None:
    old, new = leaf(2), leaf(2)
    graph = Graph((old, new), (ops.exp(ops.detach(ops.rebind(old, new))), ops.fence(old)))
    after = DropMarkers().run(graph)
    assert names(after) == ["input", "input", "exp", "fence"]
    assert after.outputs[0].inputs == (new,)
