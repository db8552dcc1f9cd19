"""Reverse-mode differentiation stage by stage: turns of a loop that are alike get gradients alike.

Before: x1 = f(x0, w);  x2 = f(x1, w);  y = g(x2)
After:  stage 2: d_x2 = vjp(g)(ct), then d_x1, d_w2 = vjp(f)(d_x2)
        stage 1: d_x0, d_w1 = vjp(f)(d_x1), d_w = d_w2 + d_w1

What one stage emits reads nothing that an earlier stage will emit, and the values that cross from
stage to stage are told, so that the gradient can be cut there and each piece compiled once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import INPUT, Node, postorder
from tracegrad.ir.loc import at
from tracegrad.passes.autodiff import carries_gradient, leading_nodes, plus_found, walk


def reverse_in_stages(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    active: Collection[Node] | None,
    stages: Sequence[Sequence[Node]],
) -> tuple[list[Node | None], list[tuple[Node, ...]], list[Node]]:
    """`reverse`; the gradients that are known and still needed when each stage is done, the last
    one first; and the constants from which turns start that are alike to others.

    stages  what is computed in each, in order, each from itself and those before; all that is in
            none of them belongs to one more, the last

    A turn that starts from a constant gets the gradient of that, too, if turns that are alike have
    one: it is among those known, and nothing reads it. To have equal gradients such turns must read
    the constant as they read a value.

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
    groups = by_stage(order, stages)
    unread = led_in_turns_alike(groups, leads)
    if active is not None:
        active = unread.union(active)
    for own in reversed(groups):
        inside = set(own)
        ends = [node for node in own if node in found]
        outside = operands_of(own)
        starts = [node for node in outside if node in leads or node in unread]
        starts += [node for node in own if node in wanted]
        cotangents = [found.pop(node) for node in ends]
        gradients = walk(ends, cotangents, starts, active, stop=frozenset(outside))
        alike: list[Node] = []
        for node, gradient in zip(starts, gradients):
            if gradient is None:
                continue
            if node in inside:
                done[node] = gradient
            elif node not in leads:
                alike.append(gradient)
            else:
                with at(gradient.loc):
                    found[node] = plus_found(found.get(node), gradient)
        if ends:
            crossing.append((*done.values(), *found.values(), *alike))
    read = dict.fromkeys(node for own in groups for node in operands_of(own) if node in unread)
    constants = [node for node in read if not node.inputs and node.op is not INPUT]
    return [done.get(node, found.get(node)) for node in wrt], crossing, constants


def operands_of(own: Sequence[Node]) -> list[Node]:
    """What a stage reads of those before, each once."""
    inside = set(own)
    return [o for o in dict.fromkeys(o for n in own for o in n.inputs) if o not in inside]


def pattern(own: Sequence[Node]) -> tuple[Any, ...]:
    """Equal for stages that compute the same, each from its own operands."""
    number = {node: k for k, node in enumerate((*operands_of(own), *own))}
    return tuple((n.op, n.attrs, n.type, *(number[o] for o in n.inputs)) for n in own)


def led_in_turns_alike(groups: Sequence[Sequence[Node]], leads: Collection[Node]) -> set[Node]:
    """Nodes from which nothing leads to what is differentiated for, and whose like in another turn
    does; not those where a gradient was stopped.
    """
    leading: dict[Any, set[int]] = {}  # positions among what alike stages read and compute
    stages = [[*operands_of(own), *own] for own in groups]
    kinds = list(map(pattern, groups))
    for kind, nodes in zip(kinds, stages):
        found = {k for k, node in enumerate(nodes) if node in leads}
        leading.setdefault(kind, set()).update(found)
    unread: set[Node] = set()
    for kind, nodes in zip(kinds, stages):
        unread.update(
            node for k, node in enumerate(nodes)
            if k in leading[kind] and node not in leads and carries_gradient(node)
            and not any(operand in leads for operand in node.inputs)
        )  # fmt: skip
    return unread


def by_stage(order: Sequence[Node], stages: Sequence[Sequence[Node]]) -> list[list[Node]]:
    """The nodes of `order` that compute something, by stage; the parts of a value beside it."""
    stage_of = {node: k for k, stage in enumerate(stages) for node in stage}
    groups: list[list[Node]] = [[] for _ in range(len(stages) + 1)]
    for node in order:
        if node.inputs:
            home = node.inputs[0] if node.op is ops.proj else node
            groups[stage_of.get(home, len(stages))].append(node)
    return groups
