"""Vectorisation of the ops that hold graphs: each becomes the same op over vectorised graphs."""

from __future__ import annotations

from collections.abc import Callable

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, Op, inline, placeholder
from tracegrad.ir.ops.source import zeros_like
from tracegrad.ir.types import u8
from tracegrad.passes.hazards import may_raise
from tracegrad.passes.vmap import Batch, Lane, Lanes, Value, vmap, whole


def _axes(lanes: Lanes) -> tuple[int | None, ...]:
    return tuple(0 if lane.batched else None for lane in lanes)


def _nodes(lanes: Lanes) -> tuple[Node, ...]:
    return tuple(lane.node for lane in lanes)


def _call(batch: Batch, node: Node, lanes: Lanes) -> Value:
    graph = vmap(node.attrs["graph"], _axes(lanes), batch.size)
    return whole(ops.call(*_nodes(lanes), graph=graph), batched=True)


def _choose(pred: Node, x: Node, y: Node) -> Node:
    """x or y per example, by pred[size]."""
    return ops.where(ops.broadcast_to(pred, shape=x.shape, dims=(0,)), x, y)


def _cond(batch: Batch, node: Node, lanes: Lanes) -> Value:
    pred, xs = lanes[0], lanes[1:]
    then, orelse = (vmap(node.attrs[name], _axes(xs), batch.size) for name in ("then", "orelse"))
    if not pred.batched:
        return whole(ops.cond(pred.node, *_nodes(xs), then=then, orelse=orelse), batched=True)
    # the examples disagree: both branches run, for all of them
    others = ops.bitwise_not(pred.node)
    results = (_results_for(pred.node, then, xs), _results_for(others, orelse, xs))
    return tuple(Lane(_choose(pred.node, x, y), True) for x, y in zip(*results))


def _results_for(chosen: Node, branch: Graph, xs: Lanes) -> tuple[Node, ...]:
    """Those of a vectorised branch; of no meaning for the examples that are not in `chosen`[size],
    for which it does not raise.
    """
    if not may_raise(branch):
        return inline(branch, _nodes(xs))
    inputs = tuple(placeholder(node.type) for node in (chosen, *_nodes(xs)))
    lanes = tuple(Lane(node, lane.batched) for node, lane in zip(inputs[1:], xs))
    results = inline(branch, _stand_in(inputs[0], lanes))
    nothing = tuple(map(zeros_like, results))
    run = ops.cond(
        _any(chosen), chosen, *_nodes(xs),
        then=Graph(inputs, results, name=branch.name), orelse=Graph(inputs, nothing),
    )  # fmt: skip
    return tuple(ops.proj(run, index=k) for k in range(len(results)))


def _any(chosen: Node) -> Node:
    return ops.max_(chosen, axes=(0,))


def _stand_in(chosen: Node, lanes: Lanes) -> tuple[Node, ...]:
    """The lanes with what the first of the `chosen` examples has in place of all others' values."""
    first = ops.argmax(ops.cast(chosen, dtype=u8), axis=0)

    def replaced(x: Node) -> Node:
        one = ops.gather(x, first, axes=(0,))
        return _choose(
            chosen, x, ops.broadcast_to(one, shape=x.shape, dims=tuple(range(1, x.ndim)))
        )

    return tuple(replaced(lane.node) if lane.batched else lane.node for lane in lanes)


def _while_loop(batch: Batch, node: Node, lanes: Lanes) -> Value:
    """Runs while any example goes on; those that have ended keep their values."""
    axes = (0,) * len(lanes)
    going = vmap(node.attrs["cond"], axes, batch.size)
    body = vmap(node.attrs["body"], axes, batch.size)
    carry = tuple(placeholder(x.type) for x in going.inputs)
    each = inline(going, carry)[0]
    any_goes_on = Graph(carry, (_any(each),), name=going.name)

    carry = tuple(placeholder(x.type) for x in going.inputs)
    each = inline(going, carry)[0]
    lanes_in = tuple(Lane(x, True) for x in carry)
    moved = inline(body, _stand_in(each, lanes_in) if may_raise(body) else carry)
    kept = tuple(_choose(each, new, old) for new, old in zip(moved, carry))
    loop = ops.while_loop(
        *(batch.spread(lane) for lane in lanes),
        cond=any_goes_on,
        body=Graph(carry, kept, name=body.name),
        max_trips=node.attrs["max_trips"],
    )
    return whole(loop, batched=True)


def _scan(batch: Batch, node: Node, lanes: Lanes) -> Value:
    carries, length = node.attrs["carries"], node.attrs["length"]
    carry, xs = lanes[:carries], lanes[carries:]
    # the steps are axis 0 of what is scanned, so the examples stand on axis 1 there
    body = vmap(node.attrs["body"], ((0,) * carries) + _axes(xs), batch.size)
    scanned = ops.scan(
        *(batch.spread(lane) for lane in carry),
        *(_swap_first(lane.node) if lane.batched else lane.node for lane in xs),
        body=body,
        carries=carries,
        length=length,
    )
    parts = [ops.proj(scanned, index=k) for k in range(len(node.type.parts))]
    return tuple(
        Lane(part if k < carries else _swap_first(part), True) for k, part in enumerate(parts)
    )


def _swap_first(x: Node) -> Node:
    return ops.transpose(x, perm=(1, 0, *range(2, x.ndim)))


CONTROL_RULES: dict[Op, Callable[[Batch, Node, Lanes], Value]] = {
    ops.call: _call,
    ops.cond: _cond,
    ops.while_loop: _while_loop,
    ops.scan: _scan,
}
