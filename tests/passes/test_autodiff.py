"""The reverse walk: what it adds up, where it stops, what it says, where its nodes come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gradcheck import check_orders
from tracegrad.backends.numpy import interpret
from tracegrad.ir import Graph, Loc, Node, TensorType, at, f32, f64, i64, ops, placeholder, verify
from tracegrad.ir.errors import IRError, IRTypeError, MissingVJPError
from tracegrad.ir.graph import Op
from tracegrad.ir.types import TupleType
from tracegrad.passes import autodiff_stages
from tracegrad.passes.autodiff import gradient_graph, reverse

HERE = Loc("net.py", 7, "forward", "block1")


def value(*shape: int, dtype: Any = f64) -> Node:
    return placeholder(TensorType(shape, dtype), Loc("net.py", 1))


def gradients_at(outputs: Any, wrt: Any, inputs: Any, arrays: Any) -> list[Any]:
    """Gradients of the sum of the outputs, as lists; None where none flows."""
    found = reverse(outputs, [ops.ones_like(y) for y in outputs], wrt)
    graph = Graph(tuple(inputs), tuple(g for g in found if g is not None))
    values = iter(interpret(graph, [np.asarray(a) for a in arrays]))
    return [None if g is None else next(values).tolist() for g in found]


# ---------------------------------------------------------------- what adds up, what is left out


def test_uses_of_one_value_add_up() -> None:
    x, y = value(), value()
    z = x * y
    outputs = [z * z + x, z * x]  # d/dx = 2xy^2 + 1 + 2xy, d/dy = 2x^2 y + x^2
    assert gradients_at(outputs, [x, y], [x, y], [3.0, 5.0]) == [150 + 1 + 30, 90 + 9]


def test_an_output_given_twice_counts_twice() -> None:
    x = value()
    y = x * 3
    assert gradients_at([y, y, x], [x], [x], [1.0]) == [7]


def test_no_gradient_is_none() -> None:
    x, y, n = value(), value(), value(dtype=i64)
    z = x * ops.cast(n, dtype=f64)
    assert gradients_at([z], [y, n, x], [x, y, n], [2.0, 3.0, 4]) == [None, None, 4]
    assert reverse([z], [None], [x]) == [None]
    assert reverse([], [], [x]) == [None]


def test_gradients_stop_at_integers_on_the_way() -> None:
    x = value()
    back = ops.cast(ops.cast(x, dtype=i64), dtype=f64)
    assert gradients_at([back * x], [x], [x], [2.5]) == [2]


def test_inner_nodes_and_what_lies_before_them_both_get_gradients() -> None:
    x = value()
    y = x * 2
    z = y * y
    assert gradients_at([z], [y, x, z], [x], [3.0]) == [12, 24, 1]


def test_only_what_leads_to_wrt_is_differentiated() -> None:
    seen: list[str] = []

    def probe(name: str) -> Op:
        def vjp(ct: Node, y: Node, x: Node) -> tuple[Node]:
            seen.append(name)
            return (ct,)

        return Op(name, infer=lambda x: x, vjp=vjp)

    x, y = value(), value()
    reverse([probe("wanted")(x) + probe("unwanted")(y)], [ops.ones_like(x)], [x])
    assert seen == ["wanted"]


def test_active_nodes_bound_the_flow() -> None:
    x = value()
    left, right = x * 2, x * 3
    y = left + right
    ones = ops.ones_like(x)
    (all_of_it,) = reverse([y], [ones], [x])
    (part,) = reverse([y], [ones], [x], active={left, y})
    assert all_of_it is not None and part is not None
    got = interpret(Graph((x,), (all_of_it, part)), [np.array(1.0)])
    assert [float(g) for g in got] == [5, 2]
    assert reverse([y], [ones], [x], active={y}) == [None]


# ---------------------------------------------------------------- markers


def test_detach_stops_and_fence_lets_through() -> None:
    x = value()
    assert gradients_at([ops.detach(x) * x], [x], [x], [3.0]) == [3]
    assert gradients_at([ops.detach(x * x)], [x], [x], [3.0]) == [None]
    assert gradients_at([ops.fence(x) * x], [x], [x], [3.0]) == [6]


def test_rebind_sends_the_gradient_to_the_old_value() -> None:
    old, new = value(), value()
    y = ops.rebind(old, new)
    assert gradients_at([y * y], [old, new], [old, new], [3.0, 5.0]) == [10, None]
    assert gradients_at([y * y], [new], [old, new], [3.0, 5.0]) == [None]


# ---------------------------------------------------------------- several results, composites


def test_several_results_take_a_cotangent_for_each_part_or_none() -> None:
    seen: list[tuple[bool, ...]] = []
    types = TensorType((), f64)

    def vjp(ct: tuple[Node | None, ...], out: Node, x: Node) -> tuple[Node | None]:
        seen.append(tuple(part is not None for part in ct))
        return (next(part for part in ct if part is not None),)

    split = Op("split", infer=lambda x: TupleType((types, types, types)), vjp=vjp)
    x = value()
    t = split(x)
    a, b, c = (ops.proj(t, index=k) for k in range(3))
    reverse([a, b * b], [ops.ones_like(a)] * 2, [x])
    reverse([c], [ops.ones_like(c)], [x])
    assert seen == [(True, True, False), (False, False, True)]


def test_a_composite_without_a_vjp_goes_through_its_decomposition() -> None:
    difference = Op(
        "square_difference",
        infer=lambda x, y: x,
        decompose=lambda x, y: (x - y) * (x + y),
    )
    x, y = value(), value()
    assert gradients_at([difference(x * 2, y)], [x, y], [x, y], [3.0, 5.0]) == [24, -10]
    # The same input twice: its one gradient (x - x)(x + x) = 0 must not be counted twice.
    product = Op("product", infer=lambda x, y: x, decompose=lambda x, y: x * y)
    assert gradients_at([product(x, x)], [x], [x], [3.0]) == [6]
    same = Op("same", infer=lambda x: x, decompose=lambda x: x)
    assert gradients_at([same(x)], [x], [x], [3.0]) == [1]


# ---------------------------------------------------------------- where the nodes come from


def test_every_gradient_node_says_which_line_and_which_step() -> None:
    x, w = value(2, 3), value(3, 2)
    with at(HERE):
        h = ops.tanh(ops.matmul(x, w))
    with at(Loc("net.py", 8)):
        y = h * h + h
    forward = set(Graph((x, w), (y,)).nodes)
    ct = placeholder(y.type, Loc("net.py", 8))
    found = reverse([y], [ct], [x, w])
    backward = Graph((x, w, ct), tuple(g for g in found if g is not None))
    emitted = [node for node in backward.nodes if node not in forward and node is not ct]
    assert emitted
    for node in emitted:
        assert node.loc.file == "net.py" and node.loc.line in (7, 8)
        assert len(node.loc.via) == 1 and node.loc.via[0].startswith("vjp(")
    steps = {(node.loc.line, node.loc.via[0]) for node in emitted}
    assert {(7, "vjp(tanh)"), (7, "vjp(matmul)"), (8, "vjp(mul)")} <= steps
    assert all(node.loc.scope == "block1" for node in emitted if node.loc.line == 7)
    verify(backward, require_loc=True)


def test_a_sum_is_located_at_whoever_brings_the_second_term() -> None:
    x = value()
    with at(Loc("net.py", 10)):
        first = ops.sin(x)
    with at(Loc("net.py", 11)):
        second = ops.cos(x)
    (gradient,) = reverse([first, second], [ops.ones_like(x)] * 2, [x])
    assert gradient is not None and gradient.op is ops.add
    later = gradient.inputs[1]  # the term that came second
    assert (gradient.loc.line, gradient.loc.via) == (later.loc.line, later.loc.via)


def test_nodes_of_a_decomposition_name_the_composite_first() -> None:
    squared = Op("squared", infer=lambda x: x, decompose=lambda x: x * x)
    x = value()
    with at(HERE):
        y = squared(x)
    (gradient,) = reverse([y], [ops.ones_like(y)], [x])
    assert gradient is not None
    assert gradient.loc == HERE.through("vjp(squared)").through("vjp(mul)")


# ---------------------------------------------------------------- refusals


def test_an_op_without_a_gradient_says_which_where_why_and_what_to_do() -> None:
    x, y = value(), value()
    with at(HERE):
        z = ops.nextafter(x, y)
    with pytest.raises(MissingVJPError) as error:
        reverse([z * 2], [ops.ones_like(z)], [x])
    text = str(error.value)
    for part in ("nextafter", "net.py:7", "representable numbers", ".detach()"):
        assert part in text
    assert reverse([z], [ops.ones_like(z)], [value()]) == [None]  # not on the way: no complaint


def test_wrong_types_and_counts_are_refused() -> None:
    x = value(2)
    with pytest.raises(IRTypeError, match="the cotangent given for an output must have the type"):
        reverse([x * 2], [ops.splat(1, TensorType((2,), f32))], [x])
    bad_type = Op("bad", infer=lambda x: x, vjp=lambda ct, y, x: (ops.sum_(ct, axes=(0,)),))
    with pytest.raises(IRTypeError, match=r"the result of vjp\(bad\) must have the type f64\[2\]"):
        reverse([bad_type(x)], [ops.ones_like(x)], [x])
    bad_count = Op("bad", infer=lambda x: x, vjp=lambda ct, y, x: (ct, ct))
    with pytest.raises(IRError, match=r"vjp\(bad\) gave 2 gradients for 1 inputs"):
        reverse([bad_count(x)], [ops.ones_like(x)], [x])


# ---------------------------------------------------------------- depth


def test_a_chain_of_60_000_nodes() -> None:
    x = value()
    y = x
    for _ in range(30_000):
        y = ops.neg(y) * 1.0
    (gradient,) = reverse([y], [ops.ones_like(y)], [x])
    assert gradient is not None
    assert len(Graph((x,), (y,)).nodes) > 60_000
    assert interpret(Graph((x,), (gradient,)), [np.array(2.0)])[0] == 1


# ---------------------------------------------------------------- whole graphs


def test_gradient_graph_has_named_inputs_outputs_and_roles() -> None:
    x, w, unused, n = value(2), value(2), value(3), value(dtype=i64)
    with at(HERE):
        y = x * w
    graph = Graph((x, w, unused, n), (y, n), ("x", "w", "u", "n"), ("y", "count"))
    backward = gradient_graph(graph)
    assert backward.input_names == ("x", "w", "u", "n", "ct.y")
    assert backward.input_roles[-1] == "cotangent"
    assert backward.output_names == ("grad.x", "grad.w", "grad.u")
    assert set(backward.output_roles) == {"gradient"}
    arrays = [np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.ones(3), np.array(1), np.ones(2)]
    got = [g.tolist() for g in interpret(backward, arrays)]
    assert got == [[3, 4], [1, 2], [0, 0, 0]]
    assert gradient_graph(graph) is backward
    assert gradient_graph(graph, [1]).output_names == ("grad.w",)
    verify(backward, require_loc=True)


# ---------------------------------------------------------------- sub-graphs, at two orders


def function(build: Callable[..., Any], *types: TensorType) -> Graph:
    inputs = tuple(placeholder(t, Loc("net.py", 20)) for t in types)
    with at(Loc("net.py", 21)):
        outputs = build(*inputs)
    return Graph(inputs, outputs)


VECTOR, COUNT = TensorType((3,), f64), TensorType((), i64)


def parts(node: Node) -> tuple[Node, ...]:
    return tuple(ops.proj(node, index=k) for k in range(len(node.type.parts)))


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.uniform(0.3, 1.2, shape)) for shape in shapes]


def test_call() -> None:
    inner = function(lambda x, y: (ops.sin(x) * y, x * x), VECTOR, VECTOR)
    graph = function(lambda x, y: parts(ops.call(x * y, y, graph=inner)), VECTOR, VECTOR)
    for backward in check_orders(graph, arrays((3,), (3,)), (0, 1)):
        verify(backward)


@pytest.mark.parametrize("taken", [True, False])
def test_cond_differentiates_the_branch_that_is_taken(taken: bool) -> None:
    then = function(lambda x, y: (ops.sin(x) * y,), VECTOR, VECTOR)
    orelse = function(lambda x, y: (y * y,), VECTOR, VECTOR)  # nothing flows to x here
    graph = function(
        lambda x, y: parts(
            ops.cond(ops.splat(taken, TensorType((), ops.eq(x, x).dtype)), x, y, then=then,
                     orelse=orelse)
        ),
        VECTOR,
        VECTOR,
    )  # fmt: skip
    check_orders(graph, arrays((3,), (3,)), (0, 1))


@pytest.mark.parametrize("length", [0, 1, 4])
def test_scan_with_state_weights_inputs_and_a_counter(length: int) -> None:
    rows = TensorType((length, 3), f64)
    # carries: state, weights (unchanged), a step counter; per step one row in, one row out
    body = function(
        lambda h, w, n, x: (ops.tanh(h * w + x), w, n + 1, h * x), VECTOR, VECTOR, COUNT, VECTOR
    )

    def run(h: Node, w: Node, x: Node) -> tuple[Node, ...]:
        start = ops.splat(0, COUNT)
        last, _, count, ys = parts(ops.scan(h, w, start, x, body=body, carries=3, length=length))
        return last, ys, count

    graph = function(run, VECTOR, VECTOR, rows)
    inputs = arrays((3,), (3,), (length, 3))
    assert interpret(graph, inputs)[2] == length
    for backward in check_orders(graph, inputs, (0, 1, 2)):
        verify(backward)


def test_scan_carry_that_starts_without_gradient() -> None:
    # The sum starts at a constant; it only comes to depend on w in the first step, h in the second.
    body = function(lambda total, h, w: (total + h, h * w, w), VECTOR, VECTOR, VECTOR)

    def run(w: Node) -> tuple[Node, ...]:
        zero, one = ops.zeros_like(w), ops.ones_like(w)
        return parts(ops.scan(zero, one, w, body=body, carries=3, length=4))[:1]

    check_orders(function(run, VECTOR), arrays((3,)), (0,), orders=3)


def loop(max_trips: int | None) -> Graph:
    going = function(lambda n, x: (ops.lt(n, ops.splat(3, COUNT)),), COUNT, VECTOR)
    body = function(lambda n, x: (n + 1, ops.sin(x) * x), COUNT, VECTOR)

    def run(x: Node) -> tuple[Node, ...]:
        start = ops.splat(0, COUNT)
        return parts(ops.while_loop(start, x, cond=going, body=body, max_trips=max_trips))[1:]

    return function(run, VECTOR)


@pytest.mark.parametrize("max_trips", [3, 6])
def test_while_loop_with_a_bound(max_trips: int) -> None:
    for backward in check_orders(loop(max_trips), arrays((3,)), (0,)):
        verify(backward)


def test_while_loop_without_a_bound_asks_for_one() -> None:
    with pytest.raises(MissingVJPError, match=r"while_loop at net\.py:21.*max_trips="):
        gradient_graph(loop(None))


def test_third_order_of_tanh() -> None:
    graph = function(lambda x: (ops.tanh(x),), VECTOR)
    for backward in check_orders(graph, arrays((3,)), (0,), orders=3):
        verify(backward)
        assert len(set(backward.input_names)) == len(backward.inputs)


def test_what_a_stage_computes_is_hashed_once(monkeypatch):
    """It is as long as the stage: hashed for each of its nodes, a long turn took minutes."""
    hashed = []

    class Counted(tuple):
        __slots__ = ()

        def __hash__(self):
            hashed.append(1)
            return super().__hash__()

    real = autodiff_stages.pattern
    monkeypatch.setattr(autodiff_stages, "pattern", lambda own: Counted(real(own)))
    with at(Loc("test.py", 1)):
        x = placeholder(TensorType((2,), f32))
        stages, node = [], x
        for number in range(4):
            nodes = []
            for _ in range(20):
                node = ops.tanh(node)
                nodes.append(node)
            stages.append(autodiff_stages.Stage(nodes, turn=number > 0))
        (gradient,), _ = autodiff_stages.reverse_in_stages(
            [node], [ops.splat(1, node.type)], [x], None, stages
        )
    assert gradient is not None
    assert len(hashed) <= 3 * (len(stages) + 1)
