"""Reverse-mode differentiation stage by stage: turns of a loop that are alike get gradients alike.

Before: x1 = f(x0, w);  x2 = f(x1, w);  y = g(x2)
After:  stage 2: d_x2 = vjp(g)(ct), then d_x1, d_w2 = vjp(f)(d_x2)
        stage 1: d_x0, d_w1 = vjp(f)(d_x1), d_w = d_w2 + d_w1

What one stage emits reads nothing that an earlier stage will emit, and the values that cross from
stage to stage are told, so that the gradient can be cut there and each piece compiled once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.ir.loc import at
from tracegrad.passes.autodiff import leading_nodes, plus_found, walk


def reverse_in_stages(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    active: Collection[Node] | None,
    stages: Sequence[Sequence[Node]],
) -> tuple[list[Node | None], list[tuple[Node, ...]]]:
    """`reverse`, and the gradients that are known and still needed when each stage is done, the
    last one first.

    stages  what is computed in each, in order, each from itself and those before; all that is in
            none of them belongs to one more, the last

    Raises what `reverse` raises.
    """
    order = postorder(outputs)
    leads = leading_nodes(order, wrt, active)
    wanted = set(wrt)
    found: dict[Node, Node] = {}  # cotangents of what the stages to come are to differentiate
    done: dict[Node, Node] = {}  # those of nodes in `wrt` inside a stage
    crossing: list[tuple[Node, ...]] = []
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output in leads:
            with at(output.loc.through("vjp(output)")):
                found[output] = plus_found(found.get(output), cotangent)
    for own in reversed(by_stage(order, stages)):
        inside = set(own)
        ends = [node for node in own if node in found]
        outside = {operand for node in own for operand in node.inputs if operand not in inside}
        starts = [
            node for node in dict.fromkeys(o for n in own for o in n.inputs)
            if node in outside and node in leads
        ]  # fmt: skip
        starts += [node for node in own if node in wanted]
        gradients = walk(ends, [found.pop(node) for node in ends], starts, active, stop=outside)
        for node, gradient in zip(starts, gradients):
            if gradient is None:
                continue
            if node in inside:
                done[node] = gradient
            else:
                with at(gradient.loc):
                    found[node] = plus_found(found.get(node), gradient)
        if ends:
            crossing.append((*done.values(), *found.values()))
    return [done.get(node, found.get(node)) for node in wrt], crossing


def by_stage(order: Sequence[Node], stages: Sequence[Sequence[Node]]) -> list[list[Node]]:
    """The nodes of `order` that compute something, by stage; the parts of a value beside it."""
    stage_of = {node: k for k, stage in enumerate(stages) for node in stage}
    groups: list[list[Node]] = [[] for _ in range(len(stages) + 1)]
    for node in order:
        if node.inputs:
            home = node.inputs[0] if node.op is ops.proj else node
            groups[stage_of.get(home, len(stages))].append(node)
    return groups
