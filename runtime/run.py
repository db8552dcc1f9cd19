"""Running a path: fetch inputs, walk the segments, commit everything or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from operator import getitem
from typing import Any

import numpy as np

from tracegrad.runtime.facts import checker
from tracegrad.runtime.segments import Segment, Sources, answer_key
from tracegrad.runtime.signature import Call
from tracegrad.runtime.state import UpdatedTensors, updated_tensors
from tracegrad.tracer.inplace import rebase_family
from tracegrad.tracer.recording import HostAction, HostRead, Input
from tracegrad.tracer.state import EAGER_GRAD, EAGER_NO_GRAD, reset_mode, set_mode
from tracegrad.tracer.storage import STATE_LOCK, UNTOUCHED, Storage, protect_saved, writable
from tracegrad.tracer.tape import FREED, Entry
from tracegrad.tracer.tensor import Tensor, _new, metadata_changes, wrap
from tracegrad.tracer.views import detach, make_view

_JAX = repeat("_jax")


@dataclass
class Plan:
    """What to do around the final executable."""

    check: Any
    host: list[Any]
    draws: list[tuple[Any, int]]
    writes: list[tuple[Any, int]]  # (Input, output index)
    results: list[Any]
    treedef: Any
    grads: list[Any]
    inputs: list[Input]
    program: Any
    outputs: int
    single: Any  # output index of a plain one-tensor result, else None
    effects: list[Any]
    switched: list[tuple[int, bool]]  # see Recorded
    updated: UpdatedTensors | None  # if every write is to a captured tensor


class Runner:
    """Fetches arrays for a backend, runs segments, commits."""

    def __init__(self, backend: str):
        self.jax = backend == "jax"

    def plan(self, final: Segment, recorded: Any, program: Any, facts: list[Any]) -> Plan:
        results = recorded.results
        single = None
        if (
            len(results) == 1
            and not recorded.effects
            and results[0].kind == "output"
            and not results[0].chain
            and program is None
        ):
            if not results[0].freed and recorded.treedef.is_leaf():
                single = results[0].index
        trace = recorded.trace
        return Plan(
            checker(facts), list(trace.host), trace.random_draws, recorded.writes, results, recorded.treedef,
            recorded.grads, list(trace.inputs), program, len(recorded.outputs), single, recorded.effects,
            recorded.switched, updated_tensors(final, recorded),
        )  # fmt: skip

    def walk(self, root: Segment | None, call: Call) -> tuple[Segment | None, Any]:
        """(final segment, result), or (None, why) when the path is not recorded yet."""
        segment = root
        exports: list[list[Any]] = []
        while segment is not None and segment.recorded is None:
            outputs = segment.lowered.executable(self.fetch(segment.fetch, call, exports))
            exports.append(outputs)
            segment = segment.children.get(answer_key(segment.guard_kind, outputs[0]))
        if segment is None:
            return None, f"a new path: guard {len(exports)} gave an answer not seen before"
        failed = segment.plan.check()
        if failed is not None:
            return None, segment.plan.check.facts[failed].describe()
        return segment, self.finish(segment, call, exports)

    # -- inputs ----------------------------------------------------------------------------------

    def fetch(self, sources: Sources, call: Call, exports: list[list[Any]]) -> list[Any]:
        """One array per input of a segment, in the order arguments, state, host numbers, random
        state, imports.
        """
        owners = call.owners
        if self.jax:
            arrays = [on_jax(owners[k]) for k in sources.arguments]
            state = UNTOUCHED.pop(sources, None)
            call.in_jax = call.only_in_jax = state is not None
            if state is not None:
                arrays += state
            else:
                try:
                    arrays += list(map(getitem, sources.fields, _JAX))
                    call.in_jax = True
                except KeyError:  # one is not there yet, or under a storage
                    arrays += map(on_jax, sources.tensors)
            arrays += map(on_jax, sources.storages)
        else:
            arrays = [on_numpy(owners[k]) for k in sources.arguments]
            arrays += [tensor._data for tensor in sources.tensors]
            arrays += [storage.array for storage in sources.storages]
        if sources.rest:
            for source in sources.rest:
                if source.__class__ is tuple:
                    arrays.append(exports[source[0]][source[1]])
                elif source.kind == "host":
                    arrays.append(source.source.array())
                elif source.kind == "slot":
                    tensor = source.source.place.read()
                    arrays.append(on_jax(tensor) if self.jax else tensor._data)
                else:
                    arrays.append(source.source.snapshot())
        return arrays

    # -- outputs ---------------------------------------------------------------------------------

    def finish(self, segment: Segment, call: Call, exports: list[list[Any]]) -> Any:
        plan: Plan = segment.plan
        if plan.host or plan.writes or plan.draws:
            with STATE_LOCK:
                return self.finish_with_state(segment, plan, call, exports)
        arrays = self.fetch(segment.fetch, call, exports)
        return self.commit(plan, self.execute(segment, plan, arrays, call), call, arrays)

    def finish_with_state(
        self, segment: Segment, plan: Plan, call: Call, exports: list[list[Any]]
    ) -> Any:
        if plan.host:
            return self.finish_with_host(segment, plan, call, exports)
        arrays = self.fetch(segment.fetch, call, exports)
        return self.commit(plan, self.execute(segment, plan, arrays, call), call, arrays)

    def finish_with_host(
        self, segment: Segment, plan: Plan, call: Call, exports: list[list[Any]]
    ) -> Any:
        """Host reads and actions in Python's order; actions are undone if the run fails."""
        values: dict[int, Any] = {}
        done: list[HostAction] = []
        try:
            for item in plan.host:
                if item.__class__ is HostRead:
                    values[id(item)] = item.array()
                else:
                    item.remember()
                    done.append(item)
                    item.run()
            arrays = self.fetch(segment.fetch, call, exports)
            for k, source in enumerate(segment.sources):
                if source.__class__ is Input and source.kind == "host":
                    arrays[k] = values.get(id(source.source), arrays[k])
            call.host = values
            outputs = self.execute(segment, plan, arrays, call)
        except BaseException:
            for item in reversed(done):
                item.undo()
            raise
        return self.commit(plan, outputs, call, arrays)

    def execute(self, segment: Segment, plan: Plan, arrays: list[Any], call: Call) -> list[Any]:
        executable = segment.lowered.executable
        if plan.writes and plan.program is not None:
            call.before = plan.program.before(self, plan, call)
        if not plan.writes:
            return executable(arrays)  # type: ignore[no-any-return]
        if self.jax:
            return executable(arrays, donate=self.can_donate(plan, arrays, call))  # type: ignore[no-any-return]
        if plan.updated is None or not all(map(is_free, plan.updated.tensors)):
            self.clear_the_way(segment, plan, arrays, call)
        return executable(arrays)  # type: ignore[no-any-return]

    def clear_the_way(self, segment: Segment, plan: Plan, arrays: list[Any], call: Call) -> None:
        """Updated state is written in its own array: values that a tape still needs move out first."""
        for item, _ in plan.writes:
            owner = self.owner_of(item, call)
            members = owner.members()[:1] if owner.__class__ is Storage else [owner]
            for member in members:
                protect_saved(member)
                writable(member)
            array = owner.array if owner.__class__ is Storage else owner._data
            for k, source in enumerate(segment.sources):
                if source is item:
                    arrays[k] = array

    def can_donate(self, plan: Plan, arrays: list[Any], call: Call) -> bool:
        """Whether every buffer to be donated is held by its tensor and by us alone."""
        from tracegrad.backends.jax import may_donate

        updated = plan.updated
        if updated is None:
            return False
        if not call.only_in_jax:
            call.only_in_jax = updated.only_in_jax() or (updated.let_go() and updated.only_in_jax())
            if not call.only_in_jax:
                return False
        return may_donate(updated.inputs(arrays), 3)  # one in the tensor, two in lists of ours

    def owner_of(self, item: Input, call: Call) -> Any:
        if item.kind == "argument":
            return call.owners[int(item.name[3:])]
        owner = item.source if item.kind != "slot" else item.source.place.read()
        if owner.__class__ is not Storage and owner._storage is not None:
            return owner._storage
        return owner

    def commit(self, plan: Plan, outputs: list[Any], call: Call, arrays: list[Any]) -> Any:
        """State, gradients, random position, results."""
        updated = plan.updated
        if updated is None:
            for item, index in plan.writes:
                self.store(self.owner_of(item, call), outputs[index])
        elif call.only_in_jax:
            UNTOUCHED.clear()
            state = updated.put(arrays, outputs)
            if call.in_jax:
                UNTOUCHED[updated.sources] = state
        else:
            for tensor, value in zip(updated.tensors, updated.outputs(outputs)):
                self.store(tensor if tensor._storage is None else tensor._storage, value)
        for generator, count in plan.draws:
            generator._count += count
        for k, wanted in plan.switched:
            tensor, owner = call.tensors[k], call.owners[k]
            tensor.requires_grad_(wanted)
            if isinstance(owner, Tensor):
                owner._entry = tensor._entry
        for grad in plan.grads:
            tensor = grad.tensor if grad.argument < 0 else call.tensors[grad.argument]
            if grad.kind == "set":
                tensor._grad = self.wrap(outputs[grad.index])
                tensor._dropped_grad = None
            elif grad.kind == "clear":
                tensor._grad = tensor._dropped_grad = None
            else:
                tensor._grad = None
                tensor._dropped_grad = grad.where
        if plan.single is not None:
            return self.wrap(outputs[plan.single])
        return self.results(plan, outputs, call, arrays)

    def store(self, owner: Any, value: Any) -> None:
        """The new value of a captured storage."""
        UNTOUCHED.clear()
        if owner.__class__ is Storage:
            if self.jax:
                owner.take_jax(value)
            elif value is not owner.array:
                np.copyto(owner.array, value)
        elif self.jax:
            owner._jax = value
            owner.__dict__.pop("_data", None)
            if owner._const is not None:
                owner._const = None
        elif value is not owner._data:
            if owner._data.flags.writeable:
                np.copyto(owner._data, value)
            else:
                owner._data = value
            owner.__dict__.pop("_jax", None)

    def wrap(self, array: Any) -> Tensor:
        if not self.jax:
            return wrap(array)
        tensor = _new(Tensor)
        tensor._jax = array
        return tensor

    def results(self, plan: Plan, outputs: list[Any], call: Call, arrays: list[Any]) -> Any:
        entries = (
            plan.program.record(self, plan, outputs, call, arrays)
            if plan.program is not None
            else {}
        )
        for item, index in plan.writes:
            if index in entries:
                self.rebase(self.owner_of(item, call), entries[index])
        made: dict[int, Any] = {}  # by output, and new objects by what makes them
        leaves = []
        for result in plan.results:
            leaves.append(self.one_result(plan, result, outputs, call, made, entries))
        bound = []
        # All values before the first name: one may be the old value of another.
        for effect in plan.effects:
            values = [
                self.one_result(plan, result, outputs, call, made, entries)
                for result in effect.results
            ]
            bound.append((effect.place, effect.treedef.unflatten(values)))
        for place, value in bound:
            place.bind(value)
        return plan.treedef.unflatten(leaves)

    @staticmethod
    def rebase(owner: Any, entry: Entry) -> None:
        """State written with gradients: its history is now the call's."""
        if owner.__class__ is Storage:
            rebase_family(owner, 0, entry)
        else:
            owner._entry = entry
            metadata_changes[0] += 1

    def one_result(
        self, plan: Plan, result: Any, outputs: list[Any], call: Call, made: dict[int, Any], entries: dict[int, Any]
    ) -> Any:  # fmt: skip
        if result.kind == "same":
            return result.value
        if result.kind == "argument":
            return call.tensors[result.index]
        if result.kind == "slot":
            return result.value.place.read()
        if result.kind == "grad":
            grad = plan.grads[result.index]
            return (grad.tensor if grad.argument < 0 else call.tensors[grad.argument])._grad
        if result.kind == "object":
            new = made.get(id(result))
            if new is None:
                kind, treedef = result.value
                new = made[id(result)] = object.__new__(kind)
                parts = [
                    self.one_result(plan, p, outputs, call, made, entries) for p in result.parts
                ]
                new.__dict__.update(treedef.unflatten(parts))
            return new
        if result.kind == "number":
            return self.wrap(outputs[result.index])._data.item()
        if result.kind == "owner":
            item = plan.inputs[result.index]
            owner = self.owner_of(item, call)
            base = (
                next((m for m in owner.members() if not m._chain), None)
                if isinstance(owner, Storage)
                else owner
            )
            if base is None:
                base = wrap(owner.array)
            if result.detached:
                base = detach(base)
        else:
            base = made.get(result.index)
            if base is None:
                base = made[result.index] = self.wrap(outputs[result.index])
                entry = entries.get(result.index)
                if entry is not None:
                    base._entry = entry
                elif result.freed:
                    base._entry = Entry(FREED, (), tuple(base.shape), base.dtype.np)
        if not result.chain:
            return base
        token = set_mode(EAGER_GRAD if result.tracked else EAGER_NO_GRAD)
        try:
            for step in result.chain:
                base = make_view(base, step)
            return base
        finally:
            reset_mode(token)


def is_free(tensor: Tensor) -> bool:
    """Whether the tensor's array can be overwritten: nobody looks at it or has saved it."""
    entry = tensor._entry
    return (
        (entry is None or entry.value is None) and tensor._const is None and tensor._storage is None
        and tensor._jax is None and tensor._data.flags.writeable
    )  # fmt: skip


def on_numpy(owner: Any) -> np.ndarray:
    return owner.array if owner.__class__ is Storage else owner._data  # type: ignore[no-any-return]


def on_jax(owner: Any) -> Any:
    """The value for XLA, kept on its owner; copied at every call while NumPy code outside may write
    the buffer.
    """
    from tracegrad.backends.jax import from_numpy

    if owner.__class__ is not Storage:
        if owner._storage is None:
            if owner._jax is None:
                owner._jax = from_numpy(owner._data)
            return owner._jax
        owner = owner._storage
    if owner.exported:
        return from_numpy(owner.array)
    if owner.jax is None:
        owner.jax = from_numpy(owner.array)
    return owner.jax
