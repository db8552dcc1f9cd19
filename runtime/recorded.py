"""A finished recording as data: which outputs it has and what to do with each after a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracegrad.ir.graph import Node
from tracegrad.runtime.effects import holds_traced
from tracegrad.runtime.sightings import is_user_class
from tracegrad.tracer.numbers import TracedNumber
from tracegrad.tracer.recording import Input, Trace
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trees import flatten_in_order
from tracegrad.tracer.views import ViewStep


@dataclass
class Result:
    """How one leaf of the returned structure is made after a run.

    kind   "output": graph output `index` seen through `chain`
           "number": output `index` as a Python number
           "owner": a captured tensor's storage (input `index`) through `chain`
           "argument": the tensor given as argument `index`
           "slot": the tensor found under the name of `value`
           "grad": what gradient `index` was set to
           "object": a new object; `value` is its class and how `parts` are its fields
           "same": `value` itself
    tracked  whether gradients flow into it from outside
    detached  "owner": seen without the owner's history
    freed    whether its graph has been walked backwards already: as in PyTorch it still requires
             grad, and a second backward is an error
    """

    kind: str
    index: int = -1
    chain: tuple[ViewStep, ...] = ()
    value: Any = None
    tracked: bool = False
    freed: bool = False
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
    outside: Mapping[int, Any]
    outputs: list[Node] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    treedef: Any = None
    writes: list[tuple[Input, int]] = field(default_factory=list)
    grads: list[GradWrite] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    # Arguments that want gradients after the call, or do no more, by position.
    switched: list[tuple[int, bool]] = field(default_factory=list)
    objects: dict[int, Result] = field(default_factory=dict)  # new objects that hold results, by id
    _same_name: dict[str, int] = field(default_factory=dict)

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

    def forget_arguments(self) -> None:
        """Let go of the tensors that this call was given: a replay brings its own."""
        for item in self.trace.inputs:
            if item.kind == "argument":
                item.source = item.tensor = None
                item.array = None  # type: ignore[assignment]
        for grad in self.grads:
            if grad.argument >= 0:
                grad.tensor = None


def finish(
    trace: Trace, returned: Any, keep_grads: bool | str, arguments: list[Tensor], effects: list[tuple[Any, Any]],
    outside: Mapping[int, Any],
) -> Recorded:  # fmt: skip
    """Read the trace after the function has returned; `effects` are (place, value) pairs.

    `outside`: objects that were there before, by id. Changes nothing.
    """
    recorded = Recorded(trace, outside)
    name_inputs(trace)
    leaves, recorded.treedef = flatten_in_order(returned)
    cells: dict[int, int] = {}
    inputs = {
        id(owner_of(item)): k
        for k, item in enumerate(trace.inputs)
        if item.kind in ("argument", "state", "slot")
    }
    handed_out: dict[int, list[Result]] = {}
    given = {id(tensor): k for k, tensor in reversed(list(enumerate(arguments)))}
    for position, leaf in enumerate(leaves):
        name = f"result{position}" if position else "result"
        recorded.results.append(result_of(recorded, leaf, name, cells, inputs, given))
        handed_out.setdefault(id(leaf), []).append(recorded.results[-1])
    for place, value in effects:
        leaves, treedef = flatten_in_order(value)
        results = [result_of(recorded, leaf, place.name, cells, inputs, given) for leaf in leaves]
        recorded.effects.append(Effect(place, results, treedef))
    for item in trace.inputs:
        cell = trace.cells.get(id(owner_of(item)))
        if cell is not None and cell.written and item.kind in ("argument", "state", "slot"):
            index = recorded.add(cell.value, f"new_{item.name}", f"state:{item.name}")
            recorded.writes.append((item, index))
    recorded.switched = [
        (given[id(tensor)], tensor._entry is not None) for tensor, _ in trace.switched.values()
    ]
    for slot in trace.grads.values():
        before = len(recorded.grads)
        add_gradient(recorded, slot, keep_grads)
        for grad in recorded.grads[before:]:
            grad.argument = given.get(id(grad.tensor), -1)
            if grad.kind == "set":  # a gradient that is itself returned is the one in `.grad`
                for made in handed_out.get(id(slot.value), ()):
                    made.kind, made.index, made.chain = "grad", before, ()
    return recorded


def owner_of(item: Input) -> Any:
    """The tensor or storage that the recording found."""
    return item.source.tensor if item.kind == "slot" else item.source


def result_of(
    recorded: Recorded, leaf: Any, name: str, cells: dict[int, int], inputs: dict[int, int], given: dict[int, int]
) -> Result:  # fmt: skip
    trace = recorded.trace
    if isinstance(leaf, TracedNumber):
        if leaf.trace is not trace:
            leaf.leaked()
        return Result("number", recorded.add(leaf.node, name, "result"), value=leaf.category)
    if not isinstance(leaf, Tensor):
        made = recorded.objects.get(id(leaf))
        if made is not None:
            return made
        if id(leaf) in recorded.outside or not holds_results(recorded, leaf, set()):
            return Result("same", value=leaf)
        if type(leaf).__new__ is not object.__new__:
            trace.refuse(
                f"a new {type(leaf).__name__} that holds tensors is returned or kept",
                "return its tensors, or let it be a dataclass or a plain class",
                "every call would have to make one, and only __new__ knows how",
            )
        made = recorded.objects[id(leaf)] = Result("object")
        parts, treedef = flatten_in_order(fields_of(leaf))
        made.value = (type(leaf), treedef)
        made.parts = [
            result_of(recorded, part, f"{name}.{k}", cells, inputs, given)
            for k, part in enumerate(parts)
        ]
        return made
    traced = leaf._traced
    if traced is None:
        if id(leaf) in trace.slots:
            return Result("slot", value=trace.slots[id(leaf)])
        position = given.get(id(leaf))
        return Result("same", value=leaf) if position is None else Result("argument", position)
    if traced.trace is not trace:
        traced.trace.leaked(leaf)
    if type(leaf) is not Tensor:
        trace.refuse(
            f"a new {type(leaf).__name__} is returned or kept",
            "make it outside the compiled function, and write it in place: with tg.no_grad(): "
            "model.weight.copy_(value)",
            "every call would have to make one, and optimizers and modules hold the one from before",
        )
    tracked = traced.tracked
    cell = traced.cell
    owner = inputs.get(id(cell.owner)) if cell.owner is not None else None
    if owner is not None:
        trace.place_seen(cell.owner)
        own = trace.inputs[owner].tensor
        return Result(
            "owner",
            owner,
            traced.chain,
            tracked=tracked,
            detached=own is not None and own._family != traced.family,
        )
    index = cells.get(id(cell))
    base = cell.nodes[traced.family]
    if index is None or recorded.outputs[index] is not base:
        index = cells[id(cell)] = recorded.add(base, name, "result")
    return Result(
        "output",
        index,
        traced.chain,
        tracked=tracked,
        freed=tracked and trace.is_freed(traced.node),
    )


def holds_results(recorded: Recorded, value: Any, met: set[int]) -> bool:
    """Whether a new object has traced values among its fields, or in new objects that they hold."""
    if id(value) in met or id(value) in recorded.outside:
        return False
    met.add(id(value))
    fields = fields_of(value)
    return holds_traced(fields) or any(
        holds_results(recorded, part, met) for part in flatten_in_order(fields)[0]
    )


def fields_of(value: Any) -> dict[str, Any]:
    """The attributes of an instance of the user's; none of other things."""
    if not is_user_class(type(value)):
        return {}
    fields = getattr(value, "__dict__", None)
    return fields if type(fields) is dict else {}


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
