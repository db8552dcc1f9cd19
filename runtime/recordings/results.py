"""How each value that a function returns or keeps is found, or made anew, after every run."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, NoReturn

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.passes.hazards import hazards
from tracegrad.runtime.recordings import made
from tracegrad.runtime.recordings.origins import CONTAINERS, Origins
from tracegrad.runtime.recordings.recorded import (
    Effect,
    Recorded,
    Result,
    add_gradient,
    name_inputs,
    owner_of,
)
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.numbers import TracedNumber
from tracegrad.tracer.trace.recording import Trace
from tracegrad.tracer.trace.traced import Cell
from tracegrad.tracer.trees import flatten_in_order


class ResultReader:
    """Reads what one recording leaves.

    cells       results that see a cell through one output, by the cell's id
    handed_out  results by the id of their tensor
    keeping     whether what is read is bound to a name, not returned
    """

    def __init__(self, recorded: Recorded, origins: Origins, arguments: list[Tensor]):
        self.recorded, self.origins = recorded, origins
        self.trace = recorded.trace
        self.cells: dict[int, list[Result]] = {}
        self.handed_out: dict[int, Result] = {}
        self.keeping = False
        self._inputs = {
            id(owner_of(item)): k
            for k, item in enumerate(self.trace.inputs)
            if item.kind in ("argument", "state", "slot")
        }
        self.given = {id(tensor): k for k, tensor in reversed(list(enumerate(arguments)))}
        self._by_themselves: set[int] = set()  # containers that are no part of a structure
        self._met: dict[int, Any] = {}
        self._begun: set[int] = set()  # of what is made at once
        self._copied: set[int] = set()  # arrays that own the memory of a copied one

    # -- structures ------------------------------------------------------------------------------

    def survey(self, tree: Any) -> None:
        """Before any `read`: which containers were there before, or are found twice, and so keep
        their identity. All others become parts of one structure.
        """
        rest = [tree]
        while rest:
            value = rest.pop()
            kind = type(value)
            if isinstance(value, (Tensor, TracedNumber)) or value is None:
                continue
            if id(value) in self._met:
                self._by_themselves.add(id(value))
                continue
            if kind not in CONTAINERS and not isinstance(value, tuple):
                if made.is_immutable(value):
                    continue
                self._met[id(value)] = value
                if not self._found(value) and (apart := made.take_apart(value)):
                    rest += apart[1]
                continue
            self._met[id(value)] = value
            if kind in CONTAINERS and self._found(value):
                self._by_themselves.add(id(value))
                continue
            apart = made.take_apart(value) if kind in CONTAINERS else None
            if apart is not None and self._has_new_keys(value, apart[0]):
                self._by_themselves.add(id(value))
            rest += apart[1] if apart is not None else tuple.__iter__(value)

    def _found(self, value: Any) -> bool:
        """Whether it was there before the call. A list that holds the trace's values was not."""
        if type(value) in (list, deque) and any(map(is_traced, value)):
            return False
        return self.origins.argument(value) is not None or self.origins.is_outside(value)

    @staticmethod
    def _has_new_keys(value: Any, form: made.Form) -> bool:
        """Whether a container has what no structure takes from one call to the next: keys that a
        call has made, a factory, attributes.
        """
        return bool(
            form.names
            or (isinstance(value, dict) and not all(map(made.is_immutable, value)))
            or (isinstance(value, defaultdict) and not made.is_immutable(value.default_factory))
        )

    def read(self, tree: Any, name: str) -> tuple[list[Result], Any]:
        """Results of the leaves, and the structure around them."""
        leaves, treedef = flatten_in_order(tree, lambda value: id(value) in self._by_themselves)
        names = [name] + [f"{name}{k}" for k in range(1, len(leaves))]
        return list(map(self.of, leaves, names)), treedef

    # -- leaves ----------------------------------------------------------------------------------

    def of(self, leaf: Any, name: str) -> Result:
        if isinstance(leaf, TracedNumber):
            if leaf.trace is not self.trace:
                leaf.leaked()
            formula = self.trace.host_formula(leaf.node)
            if formula is not None:
                return Result("formula", value=formula)
            index = self.recorded.add(leaf.node, name, "result")
            return Result("number", index, value=leaf.category)
        if isinstance(leaf, Tensor):
            if id(leaf) not in self.handed_out:
                self.handed_out[id(leaf)] = self._of_tensor(leaf, name)
            return self.handed_out[id(leaf)]
        return self._of_object(leaf, name)

    def _of_tensor(self, leaf: Tensor, name: str) -> Result:
        trace = self.trace
        traced = leaf._traced
        if traced is None:
            if id(leaf) in trace.slots:
                return Result("slot", value=trace.slots[id(leaf)])
            position = self.given.get(id(leaf))
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
        if own := [attribute for attribute in leaf.__dict__ if attribute[0] != "_"]:
            trace.refuse(
                f"a new tensor with an attribute of the user's own ({own[0]}) is returned or kept",
                "return the attribute beside the tensor",
                "results of the graph are plain tensors",
            )
        tracked = traced.tracked
        cell = traced.cell
        owner = self._inputs.get(id(cell.owner)) if cell.owner is not None else None
        if owner is not None:
            trace.place_seen(cell.owner)
            own = trace.inputs[owner].tensor
            return Result(
                "owner",
                owner,
                traced.chain,
                tracked=tracked,
                unwritable=leaf._unwritable,
                detached=own is not None and own._family != traced.family,
            )
        base = cell.nodes[traced.family]
        slot = trace.grads.get(id(traced))
        gradient = slot.value if slot is not None else None
        result = Result(
            "output",
            -1,
            traced.chain,
            tracked=tracked,
            unwritable=leaf._unwritable,
            freed=tracked and trace.is_freed(traced.node),
            leaf=base in trace.leaf_of,
            parts=[] if gradient is None else [self.of(gradient, f"{name}.grad")],
        )
        if tracked and not result.freed and trace.retains_grad(leaf):
            trace.refuse(
                "a tensor whose gradient is retained is returned or kept, beside its graph",
                "call backward() or autograd.grad() inside the function too",
                "gradients from outside reach the call's inputs, not the values between",
            )
        self._place(result, cell, base, name)
        return result

    def _place(self, result: Result, cell: Cell, base: Node, name: str) -> None:
        """The output that holds a cell's value: one for all families that are returned, as they
        share memory, but for several with a history.

        What is kept under a name has an output of its own: only a tensor that shares memory with
        no other is read by its name at the next call (effects.Slot).
        """
        is_tracked, outputs = self.trace.is_tracked, self.recorded.outputs
        others = self.cells.get(id(cell), [])
        there = outputs[others[0].index] if others else None
        if there is not base and (
            there is None or self.keeping or (is_tracked(base) and is_tracked(there))
        ):
            others = self.cells[id(cell)] = []
            result.index = self.recorded.add(base, name, "result")
        else:
            result.index = others[0].index
        if others and there is not base and is_tracked(base):
            outputs[result.index] = base
            for other in others:
                other.detached = True
                other.leaf, other.freed, other.parts = result.leaf, result.freed, result.parts
        elif others:
            result.detached = there is not base
        others.append(result)

    def _of_object(self, leaf: Any, name: str) -> Result:
        known = self.recorded.objects.get(id(leaf))
        if known is not None:
            return known
        if made.is_immutable(leaf):
            return Result("same", value=leaf)
        if id(leaf) in self._begun:
            self._refuse(
                f"a new {type(leaf).__name__} that holds itself",
                "let what it holds be found by its name instead",
                "it can only be made when its parts are there",
            )
        if type(leaf) not in CONTAINERS or id(leaf) in self._by_themselves:
            position = self.origins.argument(leaf)
            if position is not None:
                found = "container" if isinstance(position, tuple) else "leaf"
                return Result(found, value=position)
            if self._found(leaf):
                return Result("same", value=leaf)
        if made.is_copied(leaf) and self._owns_memory(leaf):
            result = self.recorded.objects[id(leaf)] = Result("copy", value=made.copied(leaf))
            return result
        apart = made.take_apart(leaf)
        if apart is None:
            self._refuse(*made.why_not(leaf))
        kind = type(leaf)
        if not (self.origins.is_outside(kind) or made.is_immutable(kind)):
            self._refuse(
                f"an object of a class ({kind.__qualname__}) whose methods hold values of the call",
                "make the class outside the compiled function",
                "they would be the values of this call at every call",
            )
        form, parts = apart
        result = Result("object")
        if form.at_once:
            self._begun.add(id(leaf))
        else:
            self.recorded.objects[id(leaf)] = result
        result.parts, treedef = self.read(parts, f"{name}.")
        result.value = (form, treedef)
        self.recorded.objects[id(leaf)] = result
        self._begun.discard(id(leaf))
        return result

    def _owns_memory(self, leaf: Any) -> bool:
        """Whether nothing else that is returned, or was there before, sees an array's memory."""
        while isinstance(leaf, np.ndarray) and leaf.base is not None:
            leaf = leaf.base
        if self.origins.argument(leaf) is not None or self.origins.is_outside(leaf):
            return False
        again = id(leaf) in self._copied
        self._copied.add(id(leaf))
        return not again

    def _refuse(self, what: str, fix: str, why: str) -> NoReturn:
        self.origins.refuse(f"{what} is returned or kept", fix, why)


def is_traced(value: Any) -> bool:
    return isinstance(value, TracedNumber) or (
        isinstance(value, Tensor) and value._traced is not None
    )


def written_family(trace: Trace, cell: Cell) -> int:
    """Whose history the new value of captured memory is: all families have the same elements."""
    rebased = [family for family in cell.rebased if family >= 0]  # others end with the recording
    if len(rebased) > 1:
        trace.refuse(
            "a tensor and its detached alias, both from outside, are written with gradients",
            "write one of them, or write under tg.no_grad()",
            "they have one value and two histories",
        )
    return rebased[0] if rebased else next(iter(cell.nodes))


def finish(
    trace: Trace, returned: Any, keep_grads: bool | str, arguments: list[Tensor], effects: list[tuple[Any, Any]],
    origins: Origins,
) -> Recorded:  # fmt: skip
    """Read the trace after the function has returned; `effects` are (place, value) pairs."""
    trace.check_taken_over()
    recorded = Recorded(trace)
    name_inputs(trace)
    reader = ResultReader(recorded, origins, arguments)
    reader.survey((returned, *(value for _, value in effects)))
    recorded.results, recorded.treedef = reader.read(returned, "result")
    reader.keeping = True
    for place, value in effects:
        recorded.effects.append(Effect(place, *reader.read(value, place.name)))
    for item in trace.inputs:
        cell = trace.cells.get(id(owner_of(item)))
        if cell is not None and cell.written and item.kind in ("argument", "state", "slot"):
            family = written_family(trace, cell)
            index = recorded.add(cell.nodes[family], f"new_{item.name}", f"state:{item.name}")
            recorded.writes.append((item, index))
            recorded.families[index] = family
            if cell.nodes[family] in trace.active and trace.is_freed(cell.nodes[family]):
                recorded.freed.add(index)
    recorded.switched = [
        (tensor if (k := reader.given.get(id(tensor))) is None else k, tensor._entry is not None)
        for tensor, before in trace.switched.values()
        if (tensor._entry is None) is not (before is None)
    ]
    for slot in trace.grads.values():
        before = len(recorded.grads)
        add_gradient(recorded, slot, keep_grads)
        for grad in recorded.grads[before:]:
            grad.argument = reader.given.get(id(grad.tensor), -1)
            if grad.kind == "set":  # a gradient that is itself returned is the one in `.grad`
                if made_of := reader.handed_out.get(id(slot.value)):
                    made_of.kind, made_of.index, made_of.chain = "grad", before, ()
    recorded.checked = unread_hazards(trace, recorded.outputs)
    return recorded


def unread_hazards(trace: Trace, outputs: list[Node]) -> list[Node]:
    """What may be an error at run time (a matrix that is not positive definite, an index out of range)
    though nobody reads it: eager mode raises. Of an op with several results, one of them.
    """
    read = set(postorder((*outputs, *(guard.node for guard in trace.guards))))
    made = [node for guard in trace.guards for node in guard.made] + trace.made
    unread = [n for n in postorder(made, stop=read.__contains__) if n not in read]
    part_of = {n.inputs[0]: n for n in unread if n.op is ops.proj}
    return [part_of.get(n, n) for n in unread if hazards(n)]
