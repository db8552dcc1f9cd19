"""Running a path: fetch inputs, walk the segments, commit everything or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from tracegrad.runtime.guards import checker
from tracegrad.runtime.segments import Segment, answer_key
from tracegrad.runtime.signature import Call
from tracegrad.tracer.recording import HostAction, HostRead, Input
from tracegrad.tracer.state import EAGER_NO_GRAD, reset_mode, set_mode
from tracegrad.tracer.tape import FREED, Entry
from tracegrad.tracer.storage import Storage, protect_saved, writable
from tracegrad.tracer.tensor import Tensor, _new, wrap
from tracegrad.tracer.views import make_view


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


class Runner:
    """Fetches arrays for a backend, runs segments, commits."""

    def __init__(self, backend: str):
        self.jax = backend == "jax"

    def plan(self, final: Segment, recorded: Any, program: Any, facts: list[Any]) -> Plan:
        results = recorded.results
        single = None
        if len(results) == 1 and results[0].kind == "output" and not results[0].chain and program is None:
            if not results[0].freed and recorded.treedef == optree.tree_structure(0, none_is_leaf=True):
                single = results[0].index
        trace = recorded.trace
        return Plan(
            checker(facts), list(trace.host), trace.random_draws, recorded.writes, results, recorded.treedef,
            recorded.grads, list(trace.inputs), program, len(recorded.outputs), single,
        )  # fmt: skip

    def walk(self, root: Segment | None, call: Call) -> tuple[Segment | None, Any]:
        """(final segment, result), or (None, why) when the path is not recorded yet."""
        segment = root
        exports: list[list[Any]] = []
        while segment is not None and segment.recorded is None:
            outputs = segment.lowered.executable(self.fetch(segment.sources, call, exports))
            exports.append(outputs)
            segment = segment.children.get(answer_key(segment.guard_kind, outputs[0]))
        if segment is None:
            return None, f"a new path: guard {len(exports)} gave an answer not seen before"
        failed = segment.plan.check()
        if failed is not None:
            return None, segment.plan.check.facts[failed].describe()
        return segment, self.finish(segment, call, exports)

    # -- inputs -------------------------------------------------------------------------------------------------

    def fetch(self, sources: list[Any], call: Call, exports: list[list[Any]]) -> list[Any]:
        arrays = []
        jax = self.jax
        for source in sources:
            if source.__class__ is tuple:
                arrays.append(exports[source[0]][source[1]])
                continue
            kind = source.kind
            if kind == "state":
                owner = source.source
                if owner.__class__ is not Storage and owner._storage is not None:
                    owner = owner._storage  # an alias appeared since it was captured
            elif kind == "argument":
                owner = call.owners[int(source.name[3:])]
            elif kind == "host":
                arrays.append(source.source.array())
                continue
            else:
                arrays.append(source.source.snapshot())
                continue
            if owner.__class__ is Storage:
                arrays.append(owner.array if not jax else storage_resident(owner))
            elif jax:
                array = owner._jax
                arrays.append(resident(owner) if array is None else array)
            else:
                arrays.append(owner._data)
        return arrays

    # -- outputs ------------------------------------------------------------------------------------------------

    def finish(self, segment: Segment, call: Call, exports: list[list[Any]]) -> Any:
        plan: Plan = segment.plan
        if plan.host:
            return self.finish_with_host(segment, plan, call, exports)
        arrays = self.fetch(segment.sources, call, exports)
        return self.commit(plan, self.execute(segment, plan, arrays, call), call, arrays)

    def finish_with_host(self, segment: Segment, plan: Plan, call: Call, exports: list[list[Any]]) -> Any:
        """Host reads and actions in the order of the Python code; actions are undone if the run fails."""
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
            arrays = self.fetch(segment.sources, call, exports)
            for k, source in enumerate(segment.sources):
                if source.__class__ is Input and source.kind == "host":
                    arrays[k] = values.get(id(source.source), arrays[k])
            outputs = self.execute(segment, plan, arrays, call)
        except BaseException:
            for item in reversed(done):
                item.undo()
            raise
        return self.commit(plan, outputs, call, arrays)

    def execute(self, segment: Segment, plan: Plan, arrays: list[Any], call: Call) -> list[Any]:
        executable = segment.lowered.executable
        if not plan.writes:
            return executable(arrays)  # type: ignore[no-any-return]
        if not self.jax:
            # Updated state is written in its own array: values that a tape still needs move out first.
            for item, _ in plan.writes:
                owner = self.owner_of(item, call)
                if owner.__class__ is Storage:
                    for member in owner.members():
                        protect_saved(member)
                        writable(member)
                        break
                    for k, source in enumerate(segment.sources):
                        if source is item:
                            arrays[k] = owner.array
                elif owner._entry is not None or owner._const is not None:
                    protect_saved(owner)
                if owner.__class__ is not Storage and not owner._data.flags.writeable:
                    array = writable(owner)
                    for k, source in enumerate(segment.sources):
                        if source is item:
                            arrays[k] = array
            return executable(arrays)  # type: ignore[no-any-return]
        donate = self.can_donate(plan, arrays, segment, call)
        return executable(arrays, donate=donate)  # type: ignore[no-any-return]

    def can_donate(self, plan: Plan, arrays: list[Any], segment: Segment, call: Call) -> bool:
        """Whether every buffer to be donated is held by its tensor and by us alone."""
        from tracegrad.backends.jax import may_donate

        positions = {id(source): k for k, source in enumerate(segment.sources)}
        for item, _ in plan.writes:
            owner = self.owner_of(item, call)
            k = positions.get(id(item))
            if k is None:
                continue
            if owner.__class__ is Storage or owner._jax is None:
                return False
            if "_data" in owner.__dict__:
                protect_saved(owner)
                del owner._data  # a look at the buffer, which is about to be replaced
            if not may_donate(arrays[k], 2):
                return False
        return True

    def owner_of(self, item: Input, call: Call) -> Any:
        if item.kind == "argument":
            return call.owners[int(item.name[3:])]
        owner = item.source
        if owner.__class__ is not Storage and owner._storage is not None:
            return owner._storage
        return owner

    def commit(self, plan: Plan, outputs: list[Any], call: Call, arrays: list[Any]) -> Any:
        """State, gradients, random position, results."""
        for item, index in plan.writes:
            self.store(self.owner_of(item, call), outputs[index])
        for generator, count in plan.draws:
            generator._count += count
        for grad in plan.grads:
            tensor = grad.tensor
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
        entries = plan.program.record(self, plan, outputs, call, arrays) if plan.program is not None else {}
        made: dict[int, Tensor] = {}
        leaves = []
        token = set_mode(EAGER_NO_GRAD) if not entries else None
        try:
            for result in plan.results:
                leaves.append(self.one_result(plan, result, outputs, call, made, entries))
        finally:
            if token is not None:
                reset_mode(token)
        return optree.tree_unflatten(plan.treedef, leaves)

    def one_result(
        self, plan: Plan, result: Any, outputs: list[Any], call: Call, made: dict[int, Tensor], entries: dict[int, Any]
    ) -> Any:  # fmt: skip
        if result.kind == "same":
            return result.value
        if result.kind == "number":
            return self.wrap(outputs[result.index])._data.item()
        if result.kind == "owner":
            item = plan.inputs[result.index]
            owner = self.owner_of(item, call)
            base = next((m for m in owner.members() if not m._chain), None) if isinstance(owner, Storage) else owner
            if base is None:
                base = wrap(owner.array)
        else:
            base = made.get(result.index)
            if base is None:
                base = made[result.index] = self.wrap(outputs[result.index])
                entry = entries.get(result.index)
                if entry is not None:
                    base._entry = entry
                elif result.freed:
                    base._entry = Entry(FREED, (), tuple(base.shape), base.dtype.np)
        for step in result.chain:
            base = make_view(base, step)
        return base


def storage_resident(storage: Storage) -> Any:
    """A shared buffer's value for XLA; copied at every call while NumPy code outside may write it."""
    from tracegrad.backends.jax import from_numpy

    if storage.exported:
        return from_numpy(storage.array)
    if storage.jax is None:
        storage.jax = from_numpy(storage.array)
    return storage.jax


def resident(owner: Any) -> Any:
    """The tensor's value as a jax array: cached on the tensor while nobody else can write the NumPy one."""
    from tracegrad.backends.jax import from_numpy

    array = owner._jax = from_numpy(owner._data)
    return array
