"""What a finished run leaves: state, gradients, results; all or nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.execution.plan import Plan
from tracegrad.runtime.execution.returned import Returned
from tracegrad.tracer.memory.bundle import value_in_xla
from tracegrad.tracer.memory.inplace import rebase_family
from tracegrad.tracer.memory.storage import Storage, protect_saved
from tracegrad.tracer.tape.entries import FREED, Entry
from tracegrad.tracer.tensor import Tensor, bare, metadata_changes, wrap
from tracegrad.tracer.trace.buffers import Input

_NONE: dict[int, Any] = {}  # never written


class Run:
    """One way along a path, and what was found on it.

    exports  outputs of the segments before, by depth
    numbers  Python's, as they were read, by the id of their HostRead
    found    tensors that stand under names, by the id of their Slot
    before   see autograd_call.CallProgram.before
    only_in_jax  whether the values of the tensors to be updated are jax arrays and nothing else
    resident     whether all inputs of the executable are jax arrays
    """

    numbers = found = before = _NONE
    only_in_jax = resident = False

    def __init__(self, call: Call):
        self.call = call
        self.exports: list[list[Any]] = []


class Committer:
    """The part of a Runner that writes; nothing of it can fail for what a user did."""

    def __init__(self, backend: str):
        self.jax = backend == "jax"

    def owner_of(self, item: Input, run: Run) -> Any:
        if item.kind == "argument":
            return run.call.owners[item.position]
        # What stood under a name when the run began: the commit may bind the name anew.
        owner = item.source if item.kind != "slot" else run.found[id(item.source)]
        if owner.__class__ is not Storage and owner._storage is not None:
            return owner._storage
        return owner

    def commit(self, plan: Plan, outputs: list[Any], run: Run) -> Any:
        """State, random position, gradients, results."""
        self.commit_state(plan, outputs, run)
        result = self.commit_rest(plan, outputs, run)
        if run.only_in_jax and plan.updated is not None:
            plan.updated.keep_together(outputs)
        return result

    def commit_state(
        self, plan: Plan, outputs: list[Any], run: Run, left_out: Collection[int] = ()
    ) -> None:
        """Captured tensors and storages take their new values, except from the outputs `left_out`."""
        updated = plan.updated
        if updated is None:
            for item, index in plan.writes:
                if index in left_out:
                    continue
                self.store(self.owner_of(item, run), outputs[index])
        elif run.only_in_jax:
            updated.bundle.store(updated.outputs(outputs))
        else:
            for tensor, value in zip(updated.tensors, updated.outputs(outputs)):
                self.store(tensor if tensor._storage is None else tensor._storage, value)

    def commit_rest(self, plan: Plan, outputs: list[Any], run: Run) -> Any:
        """Random position, gradients, results."""
        call = run.call
        for generator, count in plan.draws:
            generator._count += count
        for k, wanted in plan.switched:
            if isinstance(k, Tensor):
                k.requires_grad_(wanted)
                continue
            tensor, owner = call.tensors[k], call.owners[k]
            tensor.requires_grad_(wanted)
            if isinstance(owner, Tensor):
                owner._entry = tensor._entry
        for fields, dropped_at in plan.unset:
            fields["_grad"] = None
            fields["_dropped_grad"] = dropped_at
        for grad in plan.kept:
            tensor = grad.tensor if grad.argument < 0 else call.tensors[grad.argument]
            if grad.kind == "set":
                tensor._grad = self.wrap(outputs[grad.index])
                tensor._dropped_grad = None
            elif grad.kind == "clear":
                tensor._grad = tensor._dropped_grad = None
            else:
                tensor._grad = None
                tensor._dropped_grad = grad.where
        if plan.single >= 0:
            result = self.wrap(outputs[plan.single])
            if plan.freed is not None:
                result._entry = Entry(FREED, (), *plan.freed)
            return result
        return self.results(plan, outputs, run)

    def store(self, owner: Any, value: Any) -> None:
        """The new value of a tensor or a storage."""
        if self.jax:
            protect_saved(owner)  # on NumPy, this was done before the run
        if owner.__class__ is Storage:
            if self.jax:
                owner.take_jax(value)
            elif value is not owner.array:
                np.copyto(owner.array, value)
        elif self.jax:
            value_in_xla(owner)  # out of a bundle, which would write it back
            owner._jax = value
            owner.__dict__.pop("_data", None)
        elif value is not owner._data:
            if owner._data.flags.writeable:
                np.copyto(owner._data, value)
            else:
                owner._data = value
            owner.__dict__.pop("_jax", None)

    def wrap(self, array: Any) -> Tensor:
        if not self.jax:
            return wrap(array)
        tensor = bare(Tensor)
        tensor._jax = array
        return tensor

    def results(self, plan: Plan, outputs: list[Any], run: Run) -> Any:
        entries: dict[int, Entry] = {}
        for program, places in plan.programs:
            entries.update(program.record(self, plan, places, outputs, run))
        for item, index in plan.writes:
            if index in entries:
                self.rebase(self.owner_of(item, run), plan.families[index], entries[index])
        for item, index, shape, dtype in plan.ended:
            self.rebase(
                self.owner_of(item, run), plan.families[index], Entry(FREED, (), shape, dtype)
            )
        returned = Returned(self, plan, outputs, run, entries)
        leaves = returned.values(plan.results)
        # All values before the first name: one may be the old value of another.
        bound = [
            (effect.place, effect.treedef.unflatten(returned.values(effect.results)))
            for effect in plan.effects
        ]
        for place, value in bound:
            place.bind(value)
        return plan.treedef.unflatten(leaves)

    @staticmethod
    def rebase(owner: Any, family: int, entry: Entry) -> None:
        """State written with gradients: its history is now the call's."""
        if owner.__class__ is Storage:
            rebase_family(owner, family, entry)
        else:
            owner._entry = entry
            metadata_changes[0] += 1
