"""A compiled function under an outer tape: one entry for the path taken (one for each of its results
that have nothing in common), its gradient a graph of its own.

The forward's extra outputs are the values that the backward reads; the backward is compiled at its
first use. The entry behaves like any program on the tape, so gradients of gradients nest.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, postorder, rebuild
from tracegrad.ir.types import TensorType
from tracegrad.passes.autodiff import carries_gradient, leading_nodes
from tracegrad.passes.autodiff_stages import Cuts, Stage, reverse_in_stages
from tracegrad.runtime.execution.run import on_numpy
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.runtime.paths.pieces import InPieces
from tracegrad.runtime.recordings.recorded import Recorded
from tracegrad.tracer.eager.program import VJP, GraphOp, Program
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.memory.views import IDENTITY, view_entry
from tracegrad.tracer.tape.compiled import OPAQUE_KINDS
from tracegrad.tracer.tape.entries import Constant, Entry, Part
from tracegrad.tracer.trace.guards import turns


class CallProgram(Program):
    """A compiled call as the tape sees it: the trace's inputs, the tracked results."""

    def __init__(
        self, graph: Graph, indices: list[int], wanted: tuple[bool, ...], families: dict[Node, int],
        loop: list[Stage], compiler: Compiler,
    ):  # fmt: skip
        specs = tuple(node.type for node in graph.inputs)
        super().__init__(GraphOp(graph), graph, specs, graph.inputs)
        self.indices = indices  # positions of the tracked results among the recording's outputs
        self.families = families  # of the leaf that an input's gradient belongs to, where it is not the input's own
        self._turns = loop
        self._compiler = compiler
        flags = (True,) * len(self.types)
        with _loc.at(graph.outputs[0].loc):
            self.joint = self.vjp(wanted, flags)
        # An input that no gradient reaches is a constant here: what it was computed from is not ours.
        self.wanted = tuple(k in self.joint.gradients for k in range(len(wanted)))
        with _loc.at(graph.outputs[0].loc):
            self.joint = self.vjp(self.wanted, flags)
        self.saved = self.joint.saved
        self.reads = frozenset(self.joint.needs_in)

    def _derive(
        self, wanted: tuple[bool, ...], with_cotangent: tuple[bool, ...], save: bool
    ) -> VJP:
        """Every gradient program runs where the call does."""
        if not save and wanted == self.wanted and all(with_cotangent) and not self.saved:
            return self.joint  # reads no intermediates either
        vjp = super()._derive(wanted, with_cotangent, save)
        vjp.run = BackendRunner(vjp, self._compiler)
        return vjp

    def _reverse(
        self, outputs: list[Node], cotangents: list[Node], wrt: list[Node]
    ) -> tuple[list[Node | None], Cuts]:
        if not self._turns:
            return super()._reverse(outputs, cotangents, wrt)
        return reverse_in_stages(outputs, cotangents, wrt, None, self._turns)

    @cached_property
    def dependents(self) -> dict[int, set[int]]:
        """Results that gradients could reach others from, and those: numbers among the tracked."""
        outputs = self.graph.outputs
        found = {}
        for k, node in enumerate(outputs):
            leads = leading_nodes(postorder(outputs), [node])
            found[k] = {
                j for j, other in enumerate(outputs) if other in leads and other is not node
            }
        return found

    def record(
        self, runner: Any, plan: Any, places: list[tuple[int, int]], outputs: list[Any], run: Any
    ) -> dict[int, Any]:
        """The tape entry of one call; returns output index -> entry.

        places  where the run has the values that the gradient reads, see Plan.programs
        """
        parents = []
        reads = self.reads
        call, before = run.call, run.before
        for k, item in enumerate(plan.inputs):
            held = item.kind in ("state", "argument", "slot")
            owner = runner.owner_of(item, run) if held else None
            entry = None
            if owner is not None:
                if owner.__class__ is Storage:
                    seen_through = (
                        call.tensors[item.position] if item.kind == "argument" else item.tensor
                    )
                    family = self.families.get(item.node, seen_through._family)
                    entry = owner.entries.get(family)
                else:
                    entry = owner._entry
            if entry is None or not self.wanted[k]:
                entry = self.constant(item, owner, plan, run)
            if id(item) in before:
                # The run has overwritten what the gradient reads: an entry of its own keeps the old
                # value. A view of a constant would be an operand that wants a gradient.
                old = before[id(item)]
                entry = view_entry(IDENTITY, entry) if self.wanted[k] else Constant(old)
                entry.value = old
            elif owner is None:
                entry.value = self.outside_value(item, plan, run)
            elif k in reads:
                entry.value = on_numpy(owner)
            parents.append(entry)
        ran = (*run.exports, outputs)
        saved = self.kept([ran[depth][position] for depth, position in places])
        found: dict[int, Any] = {}
        if len(self.types) == 1:
            entry = Entry(self, tuple(parents), self.types[0].shape, self.types[0].dtype.np)
            entry.saved = saved
            if self.joint.needs_out:
                entry.value = np.asarray(outputs[self.indices[0]])
            found[self.indices[0]] = entry
            return found
        whole = Entry(self, tuple(parents), (), self.types[0].dtype.np)
        whole.saved = saved
        whole.value = [
            np.asarray(outputs[index]) if k in self.joint.needs_out else None
            for k, index in enumerate(self.indices)
        ]
        for k, index in enumerate(self.indices):
            found[index] = Part(whole, k, self.types[k].shape, self.types[k].dtype.np)
        return found

    def constant(self, item: Any, owner: Any, plan: Any, run: Any) -> Constant:
        """An operand without gradient, known to its owner: a write moves the value out first."""
        if owner is None or owner.__class__ is Storage:
            value = self.outside_value(item, plan, run) if owner is None else owner.array
            entry = Constant(value)
            if owner is not None:
                owner.watch(entry)
            return entry
        entry = owner._const or owner._constant()
        if item.kind == "argument":
            storage = run.call.tensors[item.position]._storage
            if storage is not None:  # a view given by value
                storage.watch(entry)
        return entry

    def before(self, runner: Any, plan: Any, run: Any) -> dict[int, np.ndarray]:
        """Copies of the inputs that the gradient reads and the run is about to overwrite, by input."""
        written = {id(item) for item, _ in plan.writes}
        return {
            id(item): on_numpy(runner.owner_of(item, run)).copy()
            for k, item in enumerate(plan.inputs) if k in self.reads and id(item) in written
        }  # fmt: skip

    @staticmethod
    def outside_value(item: Any, plan: Any, run: Any) -> np.ndarray:
        """A host number or a random state as the run got it; the state has moved on since."""
        if item.kind == "host":
            numbers, source = run.numbers, item.source
            return (
                np.asarray(numbers[id(source)], source.dtype)
                if id(source) in numbers
                else source.array()
            )
        state = item.source.snapshot()
        if item.kind == "random":
            drawn = sum(count for generator, count in plan.draws if generator is item.source)
            state[2] = (int(state[2]) - drawn) & 0xFFFFFFFF
        return state

    @staticmethod
    def kept(arrays: list[Any]) -> list[Any]:
        """Forward values that the gradient reads, as the tape keeps them."""
        return [np.asarray(array) for array in arrays]


class XlaCallProgram(CallProgram):
    """A call whose gradient runs on XLA too, never as a part of a backward compiled for NumPy."""

    @staticmethod
    def kept(arrays: list[Any]) -> list[Any]:
        """As they are: on XLA's device, and perhaps still being computed."""
        return arrays


OPAQUE_KINDS.add(XlaCallProgram)


class LoopCallProgram(CallProgram):
    """A call whose gradient runs turn by turn, never as a part of a larger one."""


OPAQUE_KINDS.add(LoopCallProgram)


class BackendRunner:
    """The gradient graph, compiled by the function's own backend at its first use."""

    def __init__(self, vjp: VJP, compiler: Compiler):
        self.vjp, self.compiler = vjp, compiler
        self.executable: Any = None

    def __call__(self, arrays: list[Any]) -> list[Any]:
        if self.executable is None:
            graph, cuts = self.vjp.graph, self.vjp.cuts
            self.executable = (
                InPieces(graph, cuts, self.compiler)
                if any(cuts.crossing)
                else self.compiler(graph).executable
            )
        return [np.asarray(array) for array in self.executable(arrays)]


def call_programs(recorded: Recorded, grad: bool, compiler: Compiler) -> list[CallProgram]:
    """The programs of the recording's results, as far as gradients flow into them from outside.

    The recording's outputs then say themselves where gradients stop (`make_stops_explicit`).
    """
    made = list(recorded.all_results())
    trace = recorded.trace
    reached = {r.index for r in made if r.kind == "output" and r.tracked and not r.freed}
    # State written with gradients has a history afterwards, as in eager.
    reached |= {
        index for _, index in recorded.writes
        if recorded.outputs[index] in trace.active and index not in recorded.freed
    }  # fmt: skip
    leaves = {r.index for r in made if r.kind == "output" and r.leaf}
    indices = sorted(reached - leaves)
    # A path whose results carry no gradients may begin with the segments of one whose results do.
    alike = grad and trace.guards
    if not indices and not alike:
        return []
    refuse_leaves_between(recorded, leaves, indices)
    refuse_hooks_between(recorded, indices)
    homes, families = leaf_homes(trace, [recorded.outputs[k] for k in indices])
    make_stops_explicit(recorded, homes)
    kept = set(homes.values())
    inputs = tuple(item.node for item in trace.inputs)
    wanted = tuple(node in trace.leaf_of or node in kept for node in inputs)
    loop = list(turns(trace.guards).values())
    kind = LoopCallProgram if loop else CallProgram
    kind = XlaCallProgram if compiler.backend == "jax" else kind
    programs = []
    for group in apart(indices, recorded.outputs, [n for n, want in zip(inputs, wanted) if want]):
        graph = Graph(
            inputs, tuple(recorded.outputs[k] for k in group),
            tuple(item.name for item in trace.inputs), name="forward",
        )  # fmt: skip
        programs.append(kind(graph, group, wanted, families, loop, compiler))
    return programs


def apart(indices: list[int], outputs: list[Node], wrt: list[Node]) -> list[list[int]]:
    """The results in groups that are not computed from each other's values, as far as gradients go:
    each can be walked backwards for itself, as in eager.
    """
    order = postorder([outputs[k] for k in indices])
    leads = leading_nodes(order, wrt)
    other: dict[Node, Node] = {}  # towards the one node that stands for all it is connected to

    def standing_for(node: Node) -> Node:
        while node in other:
            node = other[node]
        return node

    for node in order:
        for operand in node.inputs if node in leads else ():
            if operand in leads and operand.inputs:
                stands = standing_for(operand)
                if stands is not node:
                    other[stands] = node
    groups: dict[Node, list[int]] = {}
    for k in indices:
        groups.setdefault(standing_for(outputs[k]), []).append(k)
    return list(groups.values())


def refuse_leaves_between(recorded: Recorded, leaves: set[int], indices: list[int]) -> None:
    """A result's gradient would have to reach another result, which is a leaf only once it is made."""
    made_here = {recorded.outputs[k] for k in leaves}
    for node in postorder([recorded.outputs[k] for k in indices]):
        if node in made_here:
            recorded.trace.refuse(
                "a tensor on which the function called requires_grad_() is returned, beside a result "
                "computed from it",
                "call backward() or autograd.grad() inside the function too, or make the leaf outside",
                "gradients of the result from outside could not reach it",
            )


def refuse_hooks_between(recorded: Recorded, indices: list[int]) -> None:
    """A hook is Python, called by every backward; the gradient of a call is a graph."""
    trace = recorded.trace
    results = [recorded.outputs[k] for k in indices]
    for node in postorder(results, stop=lambda n: n not in trace.active):
        if trace.hooks.get(node):
            trace.refuse(
                "a hook registered inside a compiled function, where backward() is called outside",
                "call backward() inside the function too, or give the gradient by an autograd.Function",
                "the gradient of the call would be computed without it",
            )


def leaf_homes(trace: Any, results: list[Node]) -> tuple[dict[Node, Node], dict[Node, int]]:
    """Later values of captured leaves (written under no_grad) -> the inputs that their gradients
    belong to.

    Second: those inputs -> the family of the leaf.
    """
    inputs = {id(item.source): item.node for item in trace.inputs}
    reading = [node for node in postorder(results) if node in trace.active]
    used = {operand for node in reading for operand in node.inputs}
    homes: dict[Node, Node] = {}
    families: dict[Node, int] = {}
    for node, record in trace.leaf_of.items():
        tensor = record.tensor
        if tensor._traced is None:
            tensor = trace.stand_in_of(tensor)
            home = inputs.get(id(tensor)) or inputs.get(id(tensor._storage))
            if home is None or home is node:
                continue
            if node not in used:
                # Nothing flows here; but paths that begin alike say the same of it.
                if trace.leaf_of.get(home, record) is record:
                    homes[node] = home
                continue
            # One input stands for one family.
            other = home in used and trace.leaf_of.get(home, record) is not record
            if not other and families.setdefault(home, tensor._family) == tensor._family:
                homes[node] = home
            else:
                trace.refuse(
                    "two tensors that share memory each want a gradient of their own",
                    "give one of them as a .clone()",
                    "their memory is one input of the graph, which has one gradient",
                )
    return homes, families


def make_stops_explicit(recorded: Recorded, homes: dict[Node, Node]) -> None:
    """The graph alone says where gradients stop and go: `detach` before what ran under no_grad,
    `rebind` at leaves.
    """
    trace = recorded.trace
    # Inputs whose gradient is that of an alias alone: as themselves they have none.
    aliased = {home for home in homes.values() if not trace.is_tracked(home)}
    new: dict[Node, Node] = {}
    stopped: dict[Node, Node] = {}
    for node in postorder(recorded.roots()):
        operands = []
        stops = node not in trace.active and carries_gradient(node) and node.op is not ops.proj
        for old in node.inputs:
            operand = new[old]
            ends = old in aliased or (stops and trace.is_tracked(old))
            if ends and node.op is not ops.detach and isinstance(old.type, TensorType):
                if operand not in stopped:
                    with _loc.at(node.loc):
                        stopped[operand] = ops.detach(operand)
                operand = stopped[operand]
            operands.append(operand)
        new[node] = rebuild(node, tuple(operands)) if operands else node
        if node in homes:
            with _loc.at(node.loc):
                new[node] = ops.rebind(homes[node], new[node])
    recorded.replace_nodes(new)
