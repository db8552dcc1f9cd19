"""A finished recording as data: which outputs it has and what to do with each after a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracegrad.ir.graph import INPUT, Graph, Node, postorder
from tracegrad.tracer.memory.views import ViewStep
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.recording import Trace


@dataclass
class Result:
    """How one leaf of the returned structure is made after a run.

    kind   "output": graph output `index` seen through `chain`
           "number": output `index` as a Python number
           "formula": the number that follows from those read at every call
           "owner": a captured tensor's storage (input `index`) through `chain`
           "argument": the tensor given as argument `index`
           "slot": the tensor found under the name of `value`
           "grad": what gradient `index` was set to
           "same": `value` itself
           "leaf": leaf `value` of the arguments; "container": the one at this path in them
           "copy": a copy of `value`
           "object": a new object; `value` is its form (made.py) and the structure of `parts`
    parts    of an object; of an "output" its `.grad`, if the function gave it one
    tracked  whether gradients flow into it from outside
    unwritable  why writes with gradients through it are refused, if they are
    detached  "owner" and "output": seen without the history of the owner, of what the output holds
    leaf     whether the function made a leaf of it (`requires_grad_()`), or a view of one
    freed    whether its graph has been walked backwards already: as in PyTorch it still requires
             grad, and a second backward is an error
    """

    kind: str
    index: int = -1
    chain: tuple[ViewStep, ...] = ()
    value: Any = None
    tracked: bool = False
    unwritable: str = ""
    freed: bool = False
    leaf: bool = False
    detached: bool = False
    parts: list[Result] = field(default_factory=list)


@dataclass
class GradWrite:
    """What happens to one tensor's `.grad`: "set" to output `index`, "clear" to None, "drop" (kept
    in the graph).

    argument  the tensor is the one given as this argument, whichever it is; -1: `tensor` itself
    """

    tensor: Any  # None once a recorded argument is forgotten
    kind: str
    index: int = -1
    where: str = ""
    argument: int = -1


@dataclass
class Effect:
    """A Python name that every run binds anew: its value is made like a result."""

    place: Any
    results: list[Result]
    treedef: Any


@dataclass
class Recorded:
    """Outputs in order: results, state writes, gradients."""

    trace: Trace
    outputs: list[Node] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    treedef: Any = None
    writes: list[tuple[Input, int]] = field(default_factory=list)
    # Of outputs that are written: the family of the storage whose history they have.
    families: dict[int, int] = field(default_factory=dict)
    # Of those, the ones whose graph has been walked backwards already.
    freed: set[int] = field(default_factory=set)
    grads: list[GradWrite] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    # Tensors (arguments by position) that want gradients after the call, or do no more.
    switched: list[tuple[int | Tensor, bool]] = field(default_factory=list)
    objects: dict[int, Result] = field(default_factory=dict)  # that every run makes anew, by id
    # What nobody reads, but may be an error for the values of a call.
    checked: list[Node] = field(default_factory=list)
    # Answers that Python was given -> fingerprint of what it asks next, or of all outputs.
    programs: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _same_name: dict[str, int] = field(default_factory=dict)

    def note_programs(self) -> None:
        """Fill `programs`: what a second recording must reproduce, whatever path was met first."""
        answers: tuple[Any, ...] = ()
        for guard in self.trace.guards:
            self.programs[answers] = fingerprint_of([guard.node])
            answers = (*answers, guard.answer)
        self.programs[answers] = fingerprint_of(self.outputs)

    def all_results(self) -> Iterator[Result]:
        """Of the returned structure, of names bound anew, and inside new objects."""
        yield from self.results
        for effect in self.effects:
            yield from effect.results
        for made in self.objects.values():
            yield from made.parts

    def add(self, node: Node, name: Any, role: str) -> int:
        """One more output, under a name that no other has."""
        name = base = str(name)
        while name in self._same_name:
            self._same_name[base] += 1
            name = f"{base}_{self._same_name[base]}"
        self._same_name[name] = 0
        self.outputs.append(node)
        self.names.append(name)
        self.roles.append(role)
        return len(self.outputs) - 1

    def roots(self) -> list[Node]:
        """What is to be computed, for its value or because it may be an error."""
        asked = [node for guard in self.trace.guards for node in (guard.node, *guard.made)]
        return [*self.outputs, *asked, *self.trace.unread, *self.checked]

    def replace_nodes(self, new: Mapping[Node, Node]) -> None:
        """Let other nodes stand for all that `roots` are computed from."""
        self.outputs = [new[n] for n in self.outputs]
        self.checked = [new[n] for n in self.checked]
        for guard in self.trace.guards:
            guard.replace_nodes(new)
        self.trace.replace_nodes(new)

    def forget_arguments(self) -> None:
        """Let go of the tensors that this call was given: a replay brings its own."""
        for item in self.trace.inputs:
            if item.kind == "argument":
                item.source = item.tensor = None
                item.array = None  # type: ignore[assignment]
        for grad in self.grads:
            if grad.argument >= 0:
                grad.tensor = None


def fingerprint_of(outputs: list[Node]) -> str:
    """Of the graph of these values."""
    inputs = tuple(node for node in postorder(outputs) if node.op is INPUT)
    return Graph(inputs, tuple(outputs)).fingerprint()


def owner_of(item: Input) -> Any:
    """The tensor or storage that the recording found."""
    return item.source.tensor if item.kind == "slot" else item.source


def add_gradient(recorded: Recorded, slot: Any, keep_grads: bool | str) -> None:
    tensor, value = slot.tensor, slot.value
    if tensor._traced is not None or not slot.written:
        return
    if value is None:
        recorded.grads.append(GradWrite(tensor, "clear"))
    elif slot.found == "" and slot.cleared is not None and keep_grads == "auto":
        recorded.grads.append(GradWrite(tensor, "drop", where=str(slot.cleared)))
    elif keep_grads is False:
        recorded.grads.append(GradWrite(tensor, "drop", where="keep_grads=False"))
    elif value is tensor._grad:
        return  # accumulated in place: a state write
    else:
        node = recorded.trace.node_of(value)
        if recorded.trace.is_tracked(node):
            recorded.trace.refuse(
                "a .grad with a history (create_graph=True) is left for after the call",
                "return what tg.autograd.grad(..., create_graph=True) gives, or detach .grad at the end",
                "gradients from outside reach the results of a call alone",
            )
        recorded.grads.append(
            GradWrite(tensor, "set", recorded.add(node, f"grad{len(recorded.grads)}", "gradient"))
        )


def name_inputs(trace: Trace) -> None:
    """Unique names for all inputs: what the runtime knows of them, else a number."""
    seen: set[str] = set()
    known = state_names(trace)
    for k, item in enumerate(trace.inputs):
        name = base = item.name or known.get(id(item.tensor)) or f"{item.kind}{k}"
        suffix = 1
        while name in seen:
            name = f"{base}_{suffix}"
            suffix += 1
        seen.add(name)
        item.name = name


def state_names(trace: Trace) -> dict[int, str]:
    """Names of captured tensors by id: "Net.fc1.weight"; of slots: "Net.fc1.weight.exp_avg"."""
    names: dict[int, str] = {}
    for item in trace.inputs:
        attribute = trace.attribute_names.get(id(item.tensor))
        if item.kind == "state" and attribute is not None:
            scope = item.node.loc.scope
            names[id(item.tensor)] = f"{scope}.{attribute}" if scope else attribute
    owners = {
        id(slots): names.get(id(key)) for _, key, slots in trace.noted if isinstance(key, Tensor)
    }
    for holder, key, value in trace.noted:
        if isinstance(key, str) and isinstance(value, Tensor):
            owner = owners.get(id(holder))
            names[id(value)] = f"{owner}.{key}" if owner else key
    return names
