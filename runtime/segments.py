"""The path tree: a recording split at its guards into segments, each computing only what its guard
needs.

Segment k is the backward slice of guard k minus what earlier segments exported. It is sealed when
compiled: a later path through it takes its exports as they are and recomputes what it lacks.
Executables are shared by fingerprint, so a loop compiles once, not once an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder, postorder, substitute
from tracegrad.ir.types import TensorType
from tracegrad.runtime.lowering import Compiler, Lowered
from tracegrad.runtime.recorded import Recorded
from tracegrad.tracer.errors import UnsupportedError
from tracegrad.tracer.storage import Storage
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.host import HostRead
from tracegrad.tracer.trace.recording import Guard


class Sources:
    """Where a segment's inputs come from, grouped: a call fetches them without asking each.

    updated  the tensors among them that the segment updates, if it updates nothing else (state.py)
    """

    __slots__ = (
        "arguments", "tensors", "fields", "storages", "outside", "imports", "updated", "__weakref__",
    )  # fmt: skip

    def __init__(self, sources: list[Any]):
        self.updated: Any = None
        state = [s.source for s in sources if isinstance(s, Input) and s.kind == "state"]
        self.arguments = [
            int(s.name[3:]) for s in sources if isinstance(s, Input) and s.kind == "argument"
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
    guard_kind: str = ""
    guard_line: str = ""  # of the user's, where Python asked
    children: dict[Any, Segment] = field(default_factory=dict)
    final: bool = False
    plan: Any = None

    def __post_init__(self) -> None:
        self.fetch = Sources(self.sources)

    def values_asked(self) -> int:
        """How many exact values of its guard have been recorded; one may be known by two roundings."""
        return len({*map(id, self.children.values())}) if self.guard_kind == "bits" else 0


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

    saved: forward values that a later backward reads; extra outputs of the final segment.
    prepare: called with the final segment before calls in other threads can reach it.
    Raises NotDeterministic when the path does not begin as the sealed one did.
    """
    trace = recorded.trace
    by_node: dict[Node, Any] = {item.node: item for item in trace.inputs}
    finals = [*recorded.outputs, *saved]
    parts = parts_of([*(guard.node for guard in trace.guards), *finals])
    path: list[Segment] = []
    parent: Segment | None = None
    parent_answer: Any = None
    seen_guards: dict[tuple[Node, str], Any] = {}
    depth = 0
    for k, guard in enumerate(trace.guards):
        if (guard.node, guard.kind) in seen_guards:
            continue
        seen_guards[guard.node, guard.kind] = guard.answer
        existing = root if parent is None else parent.children.get(parent_answer)
        new = [n for n in postorder((guard.node,), stop=by_node.__contains__) if n not in by_node]
        if existing is not None:
            match(existing, new, guard, by_node, parts, depth)
            segment = existing
        else:
            rest = [g.node for g in trace.guards[k + 1 :]] + finals
            exports = needed_later(new, rest, by_node, parts)
            refuse_late_numbers(guard, by_node)
            segment = seal(new, guard.node, exports, by_node, compiler, f"segment{depth}")
            segment.guard_kind = guard.kind
            segment.guard_line = f"{guard.loc.file}:{guard.loc.line}"
            if parent is None:
                root = segment
            else:
                parent.children[parent_answer] = segment
            for position, node in enumerate(exports):
                for same in parts.get(part_key(node), [node]):
                    by_node[same] = (depth, position + 1)
        path.append(segment)
        parent, parent_answer = segment, guard.answer
        depth += 1
    final = make_final(recorded, saved, by_node, compiler)
    prepare(final)
    if parent is not None:
        parent.children[parent_answer] = final
    return [*path, final]


# The `proj` nodes that are one part of a several-result node.
Parts = dict[tuple[Node, int] | None, list[Node]]


def part_key(node: Node) -> tuple[Node, int] | None:
    return (node.inputs[0], node.attrs["index"]) if node.op is ops.proj else None


def parts_of(roots: list[Node]) -> Parts:
    parts: Parts = {}
    for node in postorder(roots):
        if node.op is ops.proj:
            parts.setdefault(part_key(node), []).append(node)
    return parts


def refuse_late_numbers(guard: Guard, by_node: dict[Node, Any]) -> None:
    """Segments run before Python's actions, so none can read what an action has set."""
    for node in postorder((guard.node,), stop=by_node.__contains__):
        source = getattr(by_node.get(node), "source", None)
        if isinstance(source, HostRead) and source.phase:
            raise UnsupportedError(
                "a branch on a tensor's value and on a hyper-parameter that this call has changed",
                where=guard.loc,
                why="it is decided before a schedule is stepped or param_groups are written",
                fix="read the hyper-parameter before it is changed, or change it outside the compiled "
                "function",
            )


def needed_later(
    new: list[Node], rest: list[Node], known: dict[Node, Any], parts: Parts
) -> list[Node]:
    """Values of this segment that something after it reads; of a several-result node, its parts."""
    own = set(new)
    needed = {n for n in rest if n in own}
    for node in postorder(rest, stop=lambda n: n in own or n in known):
        if node not in own:
            needed.update(operand for operand in node.inputs if operand in own)
    values = [n for n in new if n in needed and isinstance(n.type, TensorType)]
    present = {part_key(n) for n in values}
    wholes = {n for n in needed if not isinstance(n.type, TensorType)}
    return values + [
        same[0] for key, same in parts.items() if key not in present and key and key[0] in wholes
    ]


def seal(
    new: list[Node], guard: Node, exports: list[Node], by_node: dict[Node, Any], compiler: Compiler, name: str
) -> Segment:  # fmt: skip
    graph, sources = cut([guard, *exports], by_node, name, ["guard"] + ["export"] * len(exports))
    own = set(new)
    outside = {o: origin(by_node[o]) for n in new for o in n.inputs if o not in own}
    if guard not in own:
        outside[guard] = origin(by_node[guard])
    return Segment(compiler(graph), sources, new, exports, outside)


def cut(
    outputs: list[Node], by_node: dict[Node, Any], name: str, roles: list[str]
) -> tuple[Graph, list[Any]]:
    """The graph of `outputs`, with inputs for what is known already; and where these come from."""
    reached = [n for n in postorder(outputs, stop=by_node.__contains__) if n in by_node]
    reached.sort(key=lambda n: place(by_node[n]))
    inputs: list[Node] = []
    mapping: dict[Node, Node] = {}
    names: list[str] = []
    input_roles: list[str] = []
    for node in reached:
        source = by_node[node]
        if isinstance(source, Input):
            inputs.append(node)
            mapping[node] = node
            names.append(source.name)
            input_roles.append(source.kind)
        else:
            stand_in = placeholder(node.type, node.loc)
            inputs.append(stand_in)
            mapping[node] = stand_in
            names.append(f"import{source[0]}_{source[1]}")
            input_roles.append("import")
    graph = Graph(
        tuple(inputs), substitute(outputs, mapping), tuple(names), tuple(f"{r}{k}" for k, r in enumerate(roles)),
        tuple(input_roles), tuple(roles), name,
    )  # fmt: skip
    return graph, [by_node[n] for n in reached]


def place(source: Any) -> int:
    """The order of inputs that `Sources` relies on."""
    if not isinstance(source, Input):
        return 4
    if source.kind == "state":
        return 2 if isinstance(source.source, Storage) else 1
    return 0 if source.kind == "argument" else 3


def make_final(
    recorded: Recorded, saved: tuple[Node, ...], by_node: dict[Node, Any], compiler: Compiler
) -> Segment:
    outputs = [*recorded.outputs, *saved]
    graph, sources = cut(
        outputs, by_node, "final" if recorded.trace.guards else "step", ["result"] * len(outputs)
    )
    names = [*recorded.names, *(f"saved{k}" for k in range(len(saved)))]
    graph = graph.replace(
        output_names=tuple(names), output_roles=(*recorded.roles, *("saved",) * len(saved))
    )
    donate = tuple(sorted(graph.updates.values()))
    return Segment(compiler(graph, donate), sources, final=True)


def origin(source: Any) -> Any:
    """Identity of an input across recordings."""
    return source.key if isinstance(source, Input) else source


def match(
    sealed: Segment, new: list[Node], guard: Any, by_node: dict[Node, Any], parts: Parts, depth: int
) -> None:
    """Check that this path computes what the sealed segment does, and take over its exports."""
    if len(sealed.slice) != len(new) or sealed.guard_kind != guard.kind:
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
