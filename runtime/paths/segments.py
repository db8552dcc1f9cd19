"""How a recording is added to a path tree (tree.py): split at its guards into segments, each computing
only what its guard needs.

Segment k is the backward slice of guard k minus what earlier segments exported (slices.py). It is
sealed when compiled: a later path through it takes its exports as they are and recomputes what it
lacks. Executables are shared by fingerprint, so a loop compiles once, not once an iteration; what
comes after its last turn, its gradient above all, runs in pieces that are shared, too (pieces.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any
from weakref import ref

from tracegrad.ir.graph import Graph, Node
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.paths.pieces import arrays_of, graph_between, split
from tracegrad.runtime.paths.slices import (
    Parts,
    Readers,
    computed,
    distinct,
    exported_alike,
    for_turns,
    part_key,
    parts_of,
    positions_carried,
    reads_late,
    refuse_late_numbers,
    slice_of,
)
from tracegrad.runtime.paths.tree import Final, Question, Segment, place
from tracegrad.runtime.recordings.recorded import Recorded
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.guards import Guard, begun_with, line_of, turns

Step = Question | Final


class NotDeterministic(Exception):
    """A second run of the Python function did not reproduce the recorded prefix."""


def build(
    root: Step | None, recorded: Recorded, compiler: Compiler, saved: tuple[Node, ...],
    prepare: Callable[[Final], None],
) -> list[Step]:  # fmt: skip
    """Add a recorded path to the tree. Returns its segments, from the root to the new final one.

    saved: forward values that a later backward reads; what no segment exports of them is an extra
    output of the final one.
    prepare: called with the final segment before calls in other threads can reach it.
    Raises NotDeterministic when the path does not begin as the sealed one did.
    """
    trace = recorded.trace
    by_node: dict[Node, Any] = {item.node: item for item in trace.inputs}
    guards = distinct(trace.guards)
    begun = begun_with(guards)
    finals = [*recorded.outputs, *saved, *trace.unread, *recorded.checked, *for_turns(guards)]
    roots = [*(guard.node for guard in guards), *finals]
    parts, carried = parts_of(roots), positions_carried(guards, finals)
    alike, spared = exported_alike(guards, carried, finals, by_node)
    readers = Readers(guards, finals)
    path: list[Step] = []
    parent: Question | None = None
    parent_answer: Any = None
    for depth, guard in enumerate(guards):
        existing = root if parent is None else parent.children.get(parent_answer)
        begins = begun.get(depth, {})
        if existing is not None:
            segment = match(existing, guard, by_node, parts, depth)
        else:
            refuse_late_numbers(guard, by_node)
            along = [k for k in carried[depth] if not reads_late(guard.made[k], by_node)]
            new = slice_of(guard, along, by_node)
            exports = readers.needed(new, depth, by_node, parts, alike[depth], spared)
            segment = seal(new, guard, exports, along, begins, by_node, compiler, f"segment{depth}")
            if parent is None:
                root = segment
            else:
                parent.children[parent_answer] = segment
                segment.parent = ref(parent)
            for position, node in enumerate(exports):
                for same in parts.get(part_key(node), [node]):
                    by_node[same] = (depth, position + 1)
        by_node.update(
            (begins[n], (depth, segment.begins[n])) for n in begins if n in segment.begins
        )
        path.append(segment)
        parent, parent_answer = segment, guard.answer
    for node in recorded.checked:
        if node not in by_node:
            recorded.add(node, "unread", "unread")
    final = make_final(recorded, saved, by_node, compiler, len(guards))
    prepare(final)
    if parent is not None:
        final.parent = ref(parent)
        parent.children[parent_answer] = final
    return [*path, final]


def seal(
    new: list[Node], guard: Guard, exports: list[Node], along: list[int], begins: dict[Any, Node],
    by_node: dict[Node, Any], compiler: Compiler, name: str,
) -> Question:  # fmt: skip
    """The question of `guard`, compiled; see Question for what it is made of."""
    asked = guard.node
    outputs = [asked, *exports, *begins.values()]
    graph, sources = graph_between(
        by_node, outputs, name, ["guard"] + ["export"] * (len(outputs) - 1)
    )
    own = set(new)
    outside = {o: origin(by_node[o]) for n in new for o in n.inputs if o not in own}
    if asked not in own:
        outside[asked] = origin(by_node[asked])
    positions = {name: len(exports) + k for k, name in enumerate(begins, 1)}
    return Question(
        compiler(graph), sources, new, exports, outside, along, positions, guard.kind,
        "{}:{}".format(*line_of(guard)),
    )  # fmt: skip


def make_final(
    recorded: Recorded, saved: tuple[Node, ...], by_node: dict[Node, Any], compiler: Compiler, depth: int
) -> Final:  # fmt: skip
    """The last segment of a path, with the pieces of loops that run before it."""
    kept = [node for node in dict.fromkeys(saved) if node not in by_node]
    stages = list(turns(recorded.trace.guards).items())[1:]  # what is before a loop is like no turn
    # A stage ends before its question; gradients computed between two questions stand between.
    ends: list[tuple[int, Sequence[Node]]] = [(k, computed(stage.nodes)) for k, stage in stages]
    ends += recorded.trace.crossing
    cuts = [nodes for _, nodes in sorted(ends, key=itemgetter(0))]
    given = recorded.trace.given
    known = {**by_node, **{node: (depth, k) for k, node in enumerate(given)}}
    begin = depth + 1 if given else depth
    pieces, known = split(cuts, [*recorded.outputs, *kept, *recorded.trace.unread], known, begin)
    graph, donated, sources = last(recorded, kept, known)
    lowered = compiler(graph, donated)
    before = [Segment(compiler(piece.graph), piece.sources) for piece in pieces]
    after = len(recorded.outputs)
    found = [
        by_node[node] if node in by_node else (begin + len(pieces), after + kept.index(node))
        for node in saved
    ]
    return Final(lowered, sources, depth, before, given, arrays_of(given, compiler), found)


def last(
    recorded: Recorded, saved: list[Node], by_node: dict[Node, Any]
) -> tuple[Graph, tuple[int, ...], list[Any]]:
    """The graph of the recording's outputs and of what its gradient reads; what it donates; where
    its inputs come from.
    """
    outputs = [*recorded.outputs, *saved]
    graph, sources = graph_between(
        by_node, outputs, "final" if recorded.trace.guards else "step", ["result"] * len(outputs)
    )
    # Inputs in groups: a step hands on whole groups.
    grouped = sorted(range(len(sources)), key=lambda k: place(sources[k]))
    graph = graph.replace(
        inputs=tuple(graph.inputs[k] for k in grouped),
        input_names=tuple(graph.input_names[k] for k in grouped),
        input_roles=tuple(graph.input_roles[k] for k in grouped),
        output_names=(*recorded.names, *(f"saved{k}" for k in range(len(saved)))),
        output_roles=(*recorded.roles, *("saved",) * len(saved)),
    )
    return graph, tuple(sorted(graph.updates.values())), [sources[k] for k in grouped]


def origin(source: Any) -> Any:
    """Identity of an input across recordings."""
    return source.key if isinstance(source, Input) else source


def match(
    sealed: Step, guard: Guard, by_node: dict[Node, Any], parts: Parts, depth: int
) -> Question:
    """The sealed segment, once this path is known to compute what it does; takes over its exports."""
    if (
        not isinstance(sealed, Question)
        or sealed.kind != guard.kind
        or len(guard.made) <= max(sealed.along, default=-1)
    ):
        raise NotDeterministic
    new = slice_of(guard, sealed.along, by_node)
    if len(sealed.slice) != len(new):
        raise NotDeterministic
    pairs = dict(zip(sealed.slice, new))
    for old, node in pairs.items():
        if old.op is not node.op or old.attrs != node.attrs or old.type != node.type:
            raise NotDeterministic
        for a, b in zip(old.inputs, node.inputs):
            if a in pairs:
                if pairs[a] is not b:
                    raise NotDeterministic
            elif b not in by_node or sealed.outside[a] != origin(by_node[b]):
                raise NotDeterministic
    for position, old in enumerate(sealed.exports):
        key = part_key(old)
        here = [pairs[old]] if key is None else parts.get((pairs[key[0]], key[1]), [])
        for node in here:
            by_node[node] = (depth, position + 1)
    return sealed
