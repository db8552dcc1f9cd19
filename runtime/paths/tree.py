"""The path tree as data: executables, where their inputs come from, and which follows on which answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad.ir.graph import Node
from tracegrad.runtime.paths.lowering import Lowered
from tracegrad.runtime.watch.checks import checker
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.host import HostRead
from tracegrad.tracer.trace.recording import NumberAt

if TYPE_CHECKING:
    from tracegrad.runtime.execution.plan import Plan


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


@dataclass(eq=False, repr=False)
class Segment:
    """An executable, and where its inputs come from: Inputs, and (depth, position) of imports, which
    are outputs of the segments that ran before it.
    """

    lowered: Lowered
    sources: list[Any]

    def __post_init__(self) -> None:
        self.fetch = Sources(self.sources)


@dataclass(eq=False, repr=False)
class Question(Segment):
    """A segment that computes what Python asked for, its first output.

    slice    what it computes; `outside`: where the operands of that which it does not compute come from
    exports  what it hands on, its next outputs
    along    see `slice_of`
    begins   its last outputs: what turns of a loop begin with, see `begun_with`, by name
    kind     of its guard; `line`: the user's, where Python asked
    children  what follows, by the answer; `parent`: what was before, which the tree holds
    """

    slice: list[Node]
    exports: list[Node]
    outside: dict[Node, Any]
    along: list[int]
    begins: dict[Any, int]
    kind: str
    line: str
    children: dict[Any, Question | Final] = field(default_factory=dict)
    parent: Callable[[], Question | None] = lambda: None

    def key_of(self, answer: Any) -> Any:
        """What `children` has the answer under."""
        if self.kind == "bool":
            return bool(answer)
        array = np.asarray(answer)
        return (array.shape, array.tobytes())

    def not_met(self, answer: Any, count: int) -> str:
        """Why a call whose question number `count` has this answer needs a recording, in words."""
        value = np.asarray(answer)
        which = f"at {self.line} (question {count} of this call)"
        if self.kind == "bool":
            holds = bool(value)
            return f"a new path: the condition {which} is {holds}, so far {not holds}"
        text = f"{value.item():.6g}" if value.size == 1 else f"an array of {value.size} values"
        return f"a new path: the value {which} is {text}, not met before"

    def values_asked(self) -> int:
        """How many exact values have been recorded; one may be known by two roundings."""
        return len({*map(id, self.children.values())}) if self.kind == "bits" else 0


@dataclass(eq=False, repr=False)
class Final(Segment):
    """The last segment of a path.

    depth      how many questions are before it
    pieces     that run before it
    constants  that these import; `given`: their arrays
    saved      where it finds what `saved` of `build` names
    plan       what to do around it, made before any call can reach it
    path       see reports/path.py
    """

    depth: int
    pieces: list[Segment]
    constants: list[Node]
    given: list[Any]
    saved: list[tuple[int, int]]
    plan: Plan = field(init=False)
    parent: Callable[[], Question | None] = lambda: None
    path: Any = None

    def fingerprint(self) -> tuple[str, ...]:
        """The same for those that run the same executables, each however often."""
        parts = {piece.lowered.graph.fingerprint() for piece in self.pieces}
        return (self.lowered.graph.fingerprint(), *sorted(parts))


class Specialisation:
    """One path tree: all paths that share a signature and the facts of the first recording.

    numbers, varying  of its recordings, see `Trace`
    exclusive  whether a path with questions writes or draws
    tried      whether a path is, see Plan
    """

    def __init__(self, facts: list[Any], varying: frozenset[NumberAt]):
        self.facts = facts
        self.varying = varying
        self.numbers: dict[NumberAt, str] = {}
        self.check = checker(facts)
        self.root: Question | Final | None = None
        self.aliasing: Any = None  # an Aliasing, like `root` from the first path on
        self.fingerprints: set[tuple[str, ...]] = set()  # of the paths taken
        self.ways = 0
        self.exclusive = self.tried = False
        self.programs: dict[tuple[Any, ...], str] = {}  # see Recorded.programs; for rechecks alone

    def agrees_with(self, other: Specialisation) -> bool:
        """Whether all that both have met is the same."""
        return all(other.programs.get(met, p) == p for met, p in self.programs.items())
