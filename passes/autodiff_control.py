"""Differentiation of the ops that hold graphs: each becomes the same op over gradient graphs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, Op, inline, placeholder
from tracegrad.ir.ops.shape import reverse_axes
from tracegrad.ir.types import TensorType
from tracegrad.passes.autodiff import (
    ControlRule,
    Cotangents,
    gradient_graph,
    leading_nodes,
    missing,
    through,
)


def _parts(node: Node, count: int) -> list[Node]:
    return [ops.proj(node, index=k) for k in range(count)]


def _spread(count: int, indices: Sequence[int], gradients: Sequence[Node]) -> Cotangents:
    """One entry per input: the gradients at `indices`, None elsewhere."""
    at = dict(zip(indices, gradients, strict=True))
    return [at.get(k) for k in range(count)]


def _present(cotangents: Cotangents) -> tuple[list[int], list[Node]]:
    given = [(k, ct) for k, ct in enumerate(cotangents) if ct is not None]
    return [k for k, _ in given], [ct for _, ct in given]


# ---------------------------------------------------------------- call, cond


def _call_rule(node: Node, cotangents: Cotangents, leads: Collection[Node]) -> Cotangents:
    wrt = [k for k, operand in enumerate(node.inputs) if operand in leads]
    outputs, given = _present(cotangents)
    graph = gradient_graph(node.attrs.graph, wrt, outputs)
    called = ops.call(*node.inputs, *given, graph=graph)
    return _spread(len(node.inputs), wrt, _parts(called, len(wrt)))


def _cond_rule(node: Node, cotangents: Cotangents, leads: Collection[Node]) -> Cotangents:
    pred, *xs = node.inputs
    wrt = [k for k, operand in enumerate(xs) if operand in leads]
    outputs, given = _present(cotangents)
    chosen = ops.cond(
        pred,
        *xs,
        *given,
        then=gradient_graph(node.attrs.then, wrt, outputs),
        orelse=gradient_graph(node.attrs.orelse, wrt, outputs),
    )
    return [None, *_spread(len(xs), wrt, _parts(chosen, len(wrt)))]


# ---------------------------------------------------------------- scan


def _scan_rule(node: Node, cotangents: Cotangents, leads: Collection[Node]) -> Cotangents:
    """Runs forward once more to know the carries of every step, then backward over the steps.

    With c' , y = body(c, x) and their cotangents, a backward step yields those of c and x.
    """
    body, carries, length = node.attrs.body, node.attrs.carries, node.attrs.length
    moving = _moving_carries(node, leads)
    swept = [k for k in range(carries, len(node.inputs)) if node.inputs[k] in leads]
    stacked, row_cts = _present([*(None for _ in range(carries)), *cotangents[carries:]])
    # A carry that no step changes (weights) is not kept for every step, it is carried along again.
    constant = [k for k in range(carries) if body.outputs[k] is body.inputs[k]]
    varying = [k for k in range(carries) if k not in constant]

    replay = body.replace(
        outputs=(*body.outputs[:carries], *(body.inputs[k] for k in varying)),
        output_names=(
            *body.output_names[:carries],
            *(f"before.{body.input_names[k]}" for k in varying),
        ),
        output_roles=("result",) * (carries + len(varying)),
        name=f"{body.name}.replay",
    )
    replayed = ops.scan(*node.inputs, body=replay, carries=carries, length=length)
    before = _parts(replayed, carries + len(varying))[carries:]

    gradients = gradient_graph(body, [*moving, *swept], [*moving, *stacked])
    n, m = len(body.inputs), len(moving)
    order = [*range(n, n + m), *constant, *varying, *range(carries, n),
             *range(n + m, len(gradients.inputs))]  # fmt: skip
    kept = [gradients.inputs[k] for k in constant]
    step = gradients.replace(
        inputs=tuple(gradients.inputs[k] for k in order),
        input_names=tuple(gradients.input_names[k] for k in order),
        input_roles=tuple(gradients.input_roles[k] for k in order),
        outputs=(*gradients.outputs[:m], *kept, *gradients.outputs[m:]),
        output_names=(
            *gradients.output_names[:m],
            *(gradients.input_names[k] for k in constant),
            *gradients.output_names[m:],
        ),
        output_roles=("gradient",) * (m + len(kept) + len(swept)),
    )
    final = [cotangents[k] or ops.zeros_like(body.outputs[k]) for k in moving]
    rows = [*before, *node.inputs[carries:], *row_cts]
    backward = ops.scan(
        *final,
        *(node.inputs[k] for k in constant),
        *(reverse_axes(row, (0,)) for row in rows),
        body=step,
        carries=m + len(constant),
        length=length,
    )
    found = _parts(backward, m + len(constant) + len(swept))
    to_rows = [reverse_axes(row, (0,)) for row in found[m + len(constant) :]]
    return _spread(len(node.inputs), [*moving, *swept], [*found[:m], *to_rows])


def _moving_carries(node: Node, leads: Collection[Node]) -> list[int]:
    """The carries that at some step depend on an input that leads: a fixed point over the body."""
    body, carries = node.attrs.body, node.attrs.carries
    moving = {k for k in range(carries) if node.inputs[k] in leads}
    fixed = [k for k in range(carries, len(node.inputs)) if node.inputs[k] in leads]
    while True:
        reached = leading_nodes(body.nodes, [body.inputs[k] for k in (*moving, *fixed)])
        more = {k for k in range(carries) if body.outputs[k] in reached} - moving
        if not more:
            return sorted(moving)
        moving |= more


def _while_rule(node: Node, cotangents: Cotangents, leads: Collection[Node]) -> Cotangents:
    """As a scan over max_trips steps, those after the loop's end doing nothing."""
    if node.attrs.max_trips is None:
        raise missing(
            node,
            "backward has to know how many trips to remember; give while_loop a bound, max_trips=",
        )
    carry = [placeholder(_tensor(operand), node.loc) for operand in node.inputs]
    (going,) = inline(node.attrs.cond, carry)
    idle_inputs = [placeholder(_tensor(operand), node.loc) for operand in node.inputs]
    idle = Graph(tuple(idle_inputs), tuple(idle_inputs), name="idle")
    # cond, not where: the body must not run on the final carry, where it may divide by zero.
    after = ops.cond(going, *carry, then=node.attrs.body, orelse=idle)
    step = Graph(tuple(carry), tuple(_parts(after, len(carry))), name="trip")
    loop = ops.scan(*node.inputs, body=step, carries=len(carry), length=node.attrs.max_trips)
    return through(_parts(loop, len(carry)), node, cotangents, leads)


def _tensor(node: Node) -> TensorType:
    assert isinstance(node.type, TensorType)  # the type rule of while_loop refuses anything else
    return node.type


CONTROL_RULES: dict[Op, ControlRule] = {
    ops.call: _call_rule,
    ops.cond: _cond_rule,
    ops.scan: _scan_rule,
    ops.while_loop: _while_rule,
}
