"""Reverse-mode differentiation stage by stage: turns of a loop that are alike get gradients alike.

Before: x1 = f(x0, w);  x2 = f(x1, w);  y = g(x2)
After:  the rest: d_x2 = vjp(g)(ct)
        turn 2:   d_x1, d_w2 = vjp(f)(d_x2), d_w = 0 + d_w2
        turn 1:   d_x0, d_w1 = vjp(f)(d_x1), d_w' = d_w + d_w1

What one stage emits reads nothing that an earlier stage will emit, and the values that cross from
stage to stage are told, so that the gradient can be cut there and each piece compiled once, for any
number of turns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import MissingVJPError
from tracegrad.ir.graph import INPUT, Node, postorder
from tracegrad.ir.loc import at
from tracegrad.ir.ops import traits
from tracegrad.passes.autodiff import carries_gradient, leading_nodes, plus_found, walk


@dataclass
class Stage:
    """What is computed in it, from itself and the stages before.

    turn     whether it is one of a loop
    carried  of a turn: values before it of the variables that it reads and binds anew -> those
             after it
    """

    nodes: list[Node]
    turn: bool = False
    carried: Mapping[Node, Node] = field(default_factory=dict)


@dataclass
class Cuts:
    """Where the graph of gradients can be cut.

    crossing  the gradients that are known and still needed when a stage is done, the last one first
    given     constants that turns read as if they were values, to be like other turns
    unread    gradients that turns hand on, to be like other turns
    anew      forward values that only look at a value from before their stage, which alone reads them
    """

    crossing: list[tuple[Node, ...]] = field(default_factory=list)
    given: list[Node] = field(default_factory=list)
    unread: list[Node] = field(default_factory=list)
    anew: set[Node] = field(default_factory=set)

    @property
    def nodes(self) -> list[Node]:
        return [*chain.from_iterable(self.crossing), *self.given, *self.unread]

    def within(self, nodes: Collection[Node]) -> Cuts:
        """Without what is not among the nodes, as gradients that nobody reads."""
        crossing = [tuple(n for n in values if n in nodes) for values in self.crossing]
        return Cuts(crossing, [n for n in self.given if n in nodes], [], self.anew)

    def replaced(self, new: Mapping[Node, Node]) -> Cuts:
        """With others in the place of its gradients and constants."""
        return Cuts(
            [tuple(new[n] for n in values) for values in self.crossing],
            [new[n] for n in self.given], [new[n] for n in self.unread], self.anew,
        )  # fmt: skip


def reverse_in_stages(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    active: Collection[Node] | None,
    stages: Sequence[Stage],
) -> tuple[list[Node | None], Cuts]:
    """`reverse`, stage by stage, and where its result can be cut.

    stages  in order; all that is in none of them belongs to one more, the last

    A turn adds its share of a gradient, a parameter's say, to that of the turn after it, and the last
    turn to zero. A turn that starts from what has no gradient computes one all the same, if turns
    that are alike do.

    Raises what `reverse` raises.
    """
    order = postorder(outputs)
    leads = leading_nodes(order, wrt, active)
    carried = [n for stage in stages for n in stage.carried.values()]
    carrying = leading_nodes(postorder((*outputs, *carried)), wrt, active)
    *stages, rest = joined(stages, outputs, order, carrying)
    groups = by_stage(order, stages)
    alike = Alike(groups, [*stages, rest], leads, carrying)
    if active is not None:
        active = alike.unread.union(active)
    pending: dict[Node, Node] = {}  # cotangents of what the stages to come are to differentiate
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output in leads:
            with at(output.loc.through("vjp(output)")):
                pending[output] = plus_found(pending.get(output), cotangent)
    finished: dict[Node, Node] = {}  # those of nodes in `wrt` inside a stage
    wanted = set(wrt)
    cuts = Cuts()
    for own, shared in zip(reversed(groups), reversed(alike.shared)):
        inside = set(own)
        ends = {node: pending.pop(node) for node in own if node in pending}
        crossing: list[Node] = []
        for node, share in gradients_of(own, ends, wanted, leads, alike.unread, active).items():
            if node in inside:
                finished[node] = share
            elif node in leads:
                pending[node] = plus_share(pending.get(node), share, node in shared, cuts)
                crossing.append(pending[node])
            else:
                cuts.unread.append(share)
                crossing.append(share)
        cuts.crossing.append((*crossing, *finished.values(), *pending.values()) if ends else ())
    read = dict.fromkeys(o for own in groups for o in operands_of(own))
    cuts.given += [n for n in read if n in alike.unread and not n.inputs and n.op is not INPUT]
    for own in groups:
        inside = set(own)
        cuts.anew |= {n for n in own if looked_at(n) not in inside}.difference(read, outputs)
    return [finished.get(node, pending.get(node)) for node in wrt], cuts


def gradients_of(
    own: Sequence[Node], ends: Mapping[Node, Node], wanted: Collection[Node], leads: Collection[Node],
    unread: Collection[Node], active: Collection[Node] | None,
) -> dict[Node, Node]:  # fmt: skip
    """What flows back through a stage from the cotangents of its `ends`: to what it reads of the stages
    before, and to what is asked for inside of it.
    """
    outside = operands_of(own)
    starts = [node for node in outside if node in leads or node in unread]
    starts += [node for node in own if node in wanted]
    nodes, cotangents, stop = [*ends], [*ends.values()], frozenset(outside)
    try:
        gradients = walk(nodes, cotangents, starts, active, stop)
    except MissingVJPError:  # if on the way to what nobody asks for, it is none
        starts = [node for node in starts if node not in unread]
        gradients = walk(nodes, cotangents, starts, active, stop)
    return {node: g for node, g in zip(starts, gradients) if g is not None}


def plus_share(pending: Node | None, share: Node, by_turns: bool, cuts: Cuts) -> Node:
    """The sum of the shares of a gradient so far. Where every turn adds one, the last turn adds its own,
    too: to a zero.
    """
    with at(share.loc):
        if pending is None and by_turns:
            # Adding it changes nothing, not even the sign of a zero.
            cuts.given.append(ops.splat(-0.0, share.type))
            return ops.add(cuts.given[-1], share)
        return plus_found(pending, share)


def joined(
    stages: Sequence[Stage], outputs: Sequence[Node], order: Sequence[Node], leads: Collection[Node]
) -> list[Stage]:
    """The stages, and the last one. A turn that hands on what only another turn would have read is one
    with what follows it: then equal cotangents flow back into equal turns.

    leads  besides those of `order`, which leads to the outputs, those of what turns hand on
    """
    stage_of = {node: k for k, stage in enumerate(stages) for node in stage.nodes}
    last = len(stages)
    flows = set(outputs)  # back to these
    for node in order:
        if node in leads:
            own = stage_of.get(node, last)
            flows.update(o for o in node.inputs if stage_of.get(o, last) != own)
    found = [Stage([])]
    for stage in reversed(stages):
        if not any(n in leads and n not in flows for n in stage.carried.values()):
            found.append(stage)
        else:
            after = found[-1]
            nodes = [*stage.nodes, *after.nodes]
            found[-1] = replace(after, nodes=nodes, carried={**stage.carried, **after.carried})
    return found[::-1]


class Alike:
    """What turns that compute the same have to have in common for their gradients to be alike.

    unread  nodes from which nothing leads to what is differentiated for, and whose like in another
            turn does; not those where a gradient was stopped
    shared  by stage: what a turn reads as other turns do, not what the turn before hands on to it

    Stages of one kind compute the same, each from its own operands: what holds at a position of one
    (the operands, then what it computes) counts for all of that kind.
    """

    def __init__(
        self, groups: Sequence[Sequence[Node]], stages: Sequence[Stage], leads: Collection[Node],
        carrying: Collection[Node],
    ):  # fmt: skip
        kinds = kinds_of(groups)
        reached = [[*operands_of(own), *own] for own in groups]
        turned = {n for stage in stages if stage.turn for n in stage.nodes if n.inputs}
        leading: dict[int, set[int]] = {kind: set() for kind in kinds}  # positions, by kind
        handed: dict[int, set[int]] = {kind: set() for kind in kinds}
        for kind, nodes, stage in zip(kinds, reached, stages):
            starts = [n for n, after in stage.carried.items() if after in carrying]
            ahead = leading_nodes(dict.fromkeys((*starts, *nodes)), starts)
            leading[kind] |= {k for k, n in enumerate(nodes) if n in leads or n in ahead}
            handed[kind] |= {k for k, n in enumerate(nodes) if n in stage.carried or n in turned}
        self.unread: set[Node] = set()
        self.shared: list[set[Node]] = []
        for kind, nodes, stage in zip(kinds, reached, stages):
            self.unread.update(
                n for k, n in enumerate(nodes)
                if k in leading[kind] and n not in leads and carries_gradient(n)
                and not any(operand in leads for operand in n.inputs)
            )  # fmt: skip
            own = {n for k, n in enumerate(nodes) if stage.turn and k not in handed[kind]}
            self.shared.append(own)


def looked_at(node: Node) -> Node:
    """The value that a view, or a view of views, looks at; of any other node, the node itself."""
    while node.op.has(traits.VIEW) and len(node.inputs) == 1 and node.op is not ops.proj:
        (node,) = node.inputs
    return node


def operands_of(own: Sequence[Node]) -> list[Node]:
    """What a stage reads of those before, each once."""
    inside = set(own)
    return [o for o in dict.fromkeys(o for n in own for o in n.inputs) if o not in inside]


def kinds_of(groups: Sequence[Sequence[Node]]) -> list[int]:
    """Equal numbers for stages that compute the same, each from its own operands."""
    numbers: dict[Any, int] = {}  # a pattern is as long as its stage: it is hashed once
    return [numbers.setdefault(pattern(own), len(numbers)) for own in groups]


def pattern(own: Sequence[Node]) -> tuple[Any, ...]:
    """What a stage computes, whatever it computes it from."""
    number = {node: k for k, node in enumerate((*operands_of(own), *own))}
    return tuple((n.op, n.attrs, n.type, *(number[o] for o in n.inputs)) for n in own)


def by_stage(order: Sequence[Node], stages: Sequence[Stage]) -> list[list[Node]]:
    """The nodes of `order` that compute something, by stage; the parts of a value beside it."""
    stage_of = {node: k for k, stage in enumerate(stages) for node in stage.nodes}
    groups: list[list[Node]] = [[] for _ in range(len(stages) + 1)]
    for node in order:
        if node.inputs:
            home = node.inputs[0] if node.op is ops.proj else node
            groups[stage_of.get(home, len(stages))].append(node)
    return groups
