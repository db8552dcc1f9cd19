"""The path tree: a recording split at its guards into segments, each computing only what its guard
needs.

Segment k is the backward slice of guard k minus what earlier segments exported (slices.py). It is
sealed when compiled: a later path through it takes its exports as they are and recomputes what it
lacks. Executables are shared by fingerprint, so a loop compiles once, not once an iteration; what
comes after its last turn, its gradient above all, runs in pieces that are shared, too (pieces.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any
from weakref import ref

import numpy as np

from tracegrad.ir.graph import Graph, Node
from tracegrad.runtime.paths.lowering import Compiler, Lowered
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
from tracegrad.runtime.recordings.recorded import Recorded
from tracegrad.runtime.watch.checks import checker
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.guards import Guard, begun_with, line_of, turns
from tracegrad.tracer.trace.host import HostRead
from tracegrad.tracer.trace.recording import NumberAt


class Sources:
    """Where a segment's inputs come from, grouped: a call fetches them without asking each.

    order    where each input stands among the groups in turn; None: they are in that order
    updated  the tensors among them that the segment updates, if it updates nothing else (execution/state.py)
    """

    __slots__ = (
        "arguments", "tensors", "fields", "storages", "outside", "imports", "order", "updated", "__weakref__",
    )  # fmt: skip

    def __init__(self, sources: list[Any]):
        self.updated: Any = None
        grouped = sorted(range(len(sources)), key=lambda k: place(sources[k]))
        moved = any(k != position for position, k in enumerate(grouped))
        self.order = sorted(range(len(sources)), key=grouped.__getitem__) if moved else None
        state = [s.source for s in sources if isinstance(s, Input) and s.kind == "state"]
        self.arguments = [
            s.position for s in sources if isinstance(s, Input) and s.kind == "argument"
        ]
        self.tensors = [s for s in state if not isinstance(s, Storage)]
        self.fields = [tensor.__dict__ for tensor in self.tensors]
        self.storages = [s for s in state if isinstance(s, Storage)]
        self.outside = [
            outside(s)
            for s in sources
            if isinstance(s, Input) and s.kind in ("host", "random", "slot")
        ]
        self.imports = [s for s in sources if not isinstance(s, Input)]


def place(source: Any) -> int:
    """The order of the groups of inputs."""
    if not isinstance(source, Input):
        return 4
    if source.kind == "state":
        return 2 if isinstance(source.source, Storage) else 1
    return 0 if source.kind == "argument" else 3


def outside(item: Input) -> tuple[str, Any]:
    """("number", HostRead), ("slot", Slot), or ("array", what makes it)."""
    if item.kind == "slot":
        return "slot", item.source
    if item.kind == "random":
        return "array", item.source.snapshot
    return (
        ("number", item.source)
        if isinstance(item.source, HostRead)
        else ("array", item.source.array)
    )


@dataclass(eq=False)
class Segment:
    """One compiled piece.

    A final one has a `plan`; another has a guard and children by its answers.
    """

    lowered: Lowered
    sources: list[Any]  # Inputs, and (depth, position) of imports
    slice: list[Node] = field(default_factory=list)
    exports: list[Node] = field(default_factory=list)
    # Where the slice's outer operands come from.
    outside: dict[Node, Any] = field(default_factory=dict)
    along: list[int] = field(default_factory=list)  # see `slice_of`
    # Where it exports what turns begin with, see `begun_with`, by name.
    begins: dict[Any, int] = field(default_factory=dict)
    guard_kind: str = ""
    guard_line: str = ""  # of the user's, where Python asked
    children: dict[Any, Segment] = field(default_factory=dict)
    exclusive: bool = False  # of a first one with children: whether a path from it writes or draws
    tried: bool = False  # of a first one: whether a path from it is, see Plan
    final: bool = False
    plan: Any = None
    depth: int = 0  # of a final one: how many others are before it
    pieces: list[Segment] = field(default_factory=list)  # that run before a final one
    constants: list[Node] = field(default_factory=list)  # that these import
    given: list[Any] = field(default_factory=list)  # their arrays
    saved: list[tuple[int, int]] = field(default_factory=list)  # where it finds what `saved` names
    parent: Callable[[], Segment | None] = lambda: None  # the tree holds it
    path: Any = None  # see reports/path.py

    def __post_init__(self) -> None:
        self.fetch = Sources(self.sources)

    def fingerprint(self) -> tuple[str, ...]:
        """The same for final segments that run the same executables, each however often."""
        parts = {piece.lowered.graph.fingerprint() for piece in self.pieces}
        return (self.lowered.graph.fingerprint(), *sorted(parts))

    def values_asked(self) -> int:
        """How many exact values of its guard have been recorded; one may be known by two roundings."""
        return len({*map(id, self.children.values())}) if self.guard_kind == "bits" else 0


class Specialisation:
    """One path tree: all paths that share a signature and the facts of the first recording.

    numbers, varying  of its recordings, see `Trace`
    """

    def __init__(self, facts: list[Any], varying: frozenset[NumberAt]):
        self.facts = facts
        self.varying = varying
        self.numbers: dict[NumberAt, str] = {}
        self.check = checker(facts)
        self.root: Segment | None = None
        self.aliasing: Any = None  # an Aliasing, like `root` from the first path on
        self.fingerprints: set[tuple[str, ...]] = set()  # of the paths taken
        self.ways = 0
        self.programs: dict[tuple[Any, ...], str] = {}  # see Recorded.programs; for rechecks alone

    def agrees_with(self, other: Specialisation) -> bool:
        """Whether all that both have met is the same."""
        return all(other.programs.get(met, p) == p for met, p in self.programs.items())


def new_path(segment: Segment, value: Any, count: int) -> str:
    """Why a call whose guard number `count` has this value needs a recording, in words."""
    value = np.asarray(value)
    which = f"at {segment.guard_line} (question {count} of this call)"
    if segment.guard_kind == "bool":
        holds = bool(value)
        return f"a new path: the condition {which} is {holds}, so far {not holds}"
    answer = f"{value.item():.6g}" if value.size == 1 else f"an array of {value.size} values"
    return f"a new path: the value {which} is {answer}, not met before"


class NotDeterministic(Exception):
    """A second run of the Python function did not reproduce the recorded prefix."""


def answer_key(kind: str, array: Any) -> Any:
    """What a guard's value is looked up by."""
    if kind == "bool":
        return bool(array)
    array = np.asarray(array)
    return (array.shape, array.tobytes())


def build(
    root: Segment | None, recorded: Recorded, compiler: Compiler, saved: tuple[Node, ...],
    prepare: Callable[[Segment], None],
) -> list[Segment]:  # fmt: skip
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
    path: list[Segment] = []
    parent: Segment | None = None
    parent_answer: Any = None
    for depth, guard in enumerate(guards):
        existing = root if parent is None else parent.children.get(parent_answer)
        begins = begun.get(depth, {})
        if existing is not None:
            match(existing, guard, by_node, parts, depth)
            segment = existing
        else:
            refuse_late_numbers(guard, by_node)
            along = [k for k in carried[depth] if not reads_late(guard.made[k], by_node)]
            new = slice_of(guard, along, by_node)
            exports = readers.needed(new, depth, by_node, parts, alike[depth], spared)
            segment = seal(
                new, guard.node, exports, [*begins.values()], by_node, compiler, f"segment{depth}"
            )
            segment.along = along
            segment.begins = {name: len(exports) + k for k, name in enumerate(begins, 1)}
            segment.guard_kind = guard.kind
            segment.guard_line = "{}:{}".format(*line_of(guard))
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
    new: list[Node], guard: Node, exports: list[Node], begins: list[Node], by_node: dict[Node, Any],
    compiler: Compiler, name: str,
) -> Segment:  # fmt: skip
    outputs = [guard, *exports, *begins]
    graph, sources = graph_between(
        by_node, outputs, name, ["guard"] + ["export"] * (len(outputs) - 1)
    )
    own = set(new)
    outside = {o: origin(by_node[o]) for n in new for o in n.inputs if o not in own}
    if guard not in own:
        outside[guard] = origin(by_node[guard])
    return Segment(compiler(graph), sources, new, exports, outside)


def make_final(
    recorded: Recorded, saved: tuple[Node, ...], by_node: dict[Node, Any], compiler: Compiler, depth: int
) -> Segment:  # fmt: skip
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
    final = Segment(compiler(graph, donated), sources, final=True, depth=depth)
    final.constants, final.given = given, arrays_of(given, compiler)
    final.pieces = [Segment(compiler(piece.graph), piece.sources) for piece in pieces]
    after = len(recorded.outputs)
    final.saved = [
        by_node[node] if node in by_node else (begin + len(pieces), after + kept.index(node))
        for node in saved
    ]
    return final


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
    sealed: Segment, guard: Guard, by_node: dict[Node, Any], parts: Parts, depth: int
) -> None:
    """Check that this path computes what the sealed segment does, and take over its exports."""
    if sealed.guard_kind != guard.kind or len(guard.made) <= max(sealed.along, default=-1):
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
