"""Running a path: fetch inputs, walk the segments, commit everything or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.jax.arrays import from_numpy, may_donate, raise_pending
from tracegrad.runtime.calls.aliasing import meet
from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.execution.commit import Committer, Run
from tracegrad.runtime.execution.plan import Plan
from tracegrad.runtime.execution.state import on_jax, state_of
from tracegrad.runtime.execution.steady import steady_step
from tracegrad.runtime.paths.tree import Final, Question, Sources, Specialisation
from tracegrad.runtime.watch.facts import HostFact
from tracegrad.tracer.memory.bundle import STATE_LOCK, Bundled, value_in_xla
from tracegrad.tracer.memory.storage import Storage, protect_saved, settle, writable
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trace.host import HostAction, HostRead

_NUMBERS = frozenset({float, int, bool})


class AnotherAnswer(Exception):
    """What was asked after a host action has another answer than the recording had; all is undone."""

    def __init__(self, fact: HostFact):
        self.fact = fact


class OnlyTheFunction(Exception):
    """No recording is right for this call, only the function itself. Nothing has been written yet."""


class SharedOutside(OnlyTheFunction):
    """A step writes memory that NumPy code outside has, and another of its inputs lies there, too: a graph
    has one value for each input.
    """


class Runner(Committer):
    """Fetches arrays for a backend, runs segments, commits."""

    def prepare(self, final: Final) -> None:
        """A path's last segment has its plan."""
        if self.jax:
            final.plan.steady = steady_step(final, final.plan, for_xla, self.from_outside)

    def walk(
        self, tree: Specialisation, call: Call, path: list[Question | Final] | None = None
    ) -> tuple[Final | None, Any]:
        """(final segment, result), or (None, why) when the path is not recorded yet.

        Or (None, fact) when Python's state is not what the path was recorded for: what this path alone
        has met, or what the call itself has set.
        path: the segments to go along, just recorded for this very call. What Python was told there
        comes from other kernels: a float may differ in its last bits (and is known by both from now
        on), a condition on one, which stands on the edge, be the other way round.
        """
        if tree.tried and self.jax:
            raise_pending()  # of earlier calls, which no `try` of this function is around
        try:
            if not tree.exclusive:
                return self._walk(tree, call, path)
            with STATE_LOCK:  # what segments read or draw, no other thread moves before the end
                return self._walk(tree, call, path)
        except Exception as error:
            if not tree.tried or isinstance(error, OnlyTheFunction):
                raise
            raise OnlyTheFunction from error  # one that a `try` of the user's may catch

    def _walk(
        self, tree: Specialisation, call: Call, path: list[Question | Final] | None
    ) -> tuple[Final | None, Any]:
        segment, run = tree.root, Run(call)
        assert segment is not None, "a tree is walked once it has a path"
        while isinstance(segment, Question):
            outputs = segment.lowered.executable(self.fetch(segment.fetch, run))
            run.exports.append(outputs)
            answer = segment.key_of(outputs[0])
            if self.jax:
                raise_pending()  # the answer would be none
            following = segment.children.get(answer)
            if path is not None and following is not path[len(run.exports)]:
                following = path[len(run.exports)]
                if segment.kind == "bits":
                    segment.children[answer] = following
            if following is None:
                return None, segment.not_met(outputs[0], len(run.exports))
            segment = following
        check = segment.plan.check
        if check is not None and (failed := check()) is not None:
            return None, check.facts[failed]
        try:
            return segment, self.finish(segment, run)
        except AnotherAnswer as other:
            return None, other.fact

    # -- inputs ----------------------------------------------------------------------------------

    def fetch(self, sources: Sources, run: Run) -> list[Any]:
        """One array per input of a segment, in the order arguments, state, host numbers, random
        state, imports.
        """
        owners = run.call.owners
        if self.jax:
            with STATE_LOCK:  # what we hold from here on, a step in another thread does not donate
                arrays = [for_xla(owners[k]) for k in sources.arguments]
                updated = sources.updated
                run.only_in_jax = updated is not None and updated.bundle.values is not None
                arrays += updated.state() if run.only_in_jax else state_of(sources)
                arrays += map(on_jax, sources.storages)
        else:
            arrays = [on_numpy(owners[k]) for k in sources.arguments]
            arrays += [tensor._data for tensor in sources.tensors]
            arrays += [storage.array for storage in sources.storages]
        if sources.outside:
            arrays += [self.from_outside(*source, run.numbers) for source in sources.outside]
        for depth, position in sources.imports:
            arrays.append(run.exports[depth][position])
        if self.jax:
            end = len(arrays) - len(sources.imports)
            given = arrays[: len(sources.arguments)] + arrays[end - len(sources.outside) : end]
            run.resident = np.ndarray not in map(type, given)
        return arrays if sources.order is None else [arrays[k] for k in sources.order]

    def fetch_final(self, segment: Final, run: Run) -> list[Any]:
        """The inputs of a final segment, once its pieces have run."""
        if segment.given:
            run.exports.append(segment.given)
        for piece in segment.pieces:
            run.exports.append(piece.lowered.executable(self.fetch(piece.fetch, run)))
        if self.jax and segment.pieces:
            raise_pending()  # the final one keeps the state for what fails in itself only
        return self.fetch(segment.fetch, run)

    def from_outside(self, kind: str, source: Any, numbers: dict[int, Any] = Run.numbers) -> Any:
        """A number of Python's, the tensor found under a name, a random state or an array."""
        if kind == "number":
            value = numbers[id(source)] if id(source) in numbers else source.read()
            return self.number(source, value)
        if kind == "slot":
            tensor = source.place.read()
            if not self.jax:
                return tensor._data
            with STATE_LOCK:
                return on_jax(tensor)
        return source()

    def number(self, source: HostRead, value: Any) -> Any:
        """A Python number as an array; one that stays the same, as XLA's own array."""
        if not self.jax:
            return np.asarray(value, source.dtype)
        last, array = source.sent
        if value is not last or value.__class__ not in _NUMBERS:
            source.sent = (value, None)
            return np.asarray(value, source.dtype)
        if array is None:
            array = from_numpy(np.asarray(value, source.dtype))
            source.sent = (value, array)
        return array

    # -- outputs ---------------------------------------------------------------------------------

    def finish(self, segment: Final, run: Run) -> Any:
        plan: Plan = segment.plan
        if plan.writes or plan.reads or plan.draws or plan.host:
            with STATE_LOCK:
                if plan.steady is not None and (result := plan.steady(run.call.owners)) is not None:
                    return result
                if plan.host:
                    return self.finish_with_actions(segment, plan, run)
                if plan.reads:
                    run.numbers = {id(item): item.read() for item in plan.reads}
                return self.finish_plainly(segment, plan, run)
        return self.finish_plainly(segment, plan, run)

    def finish_plainly(self, segment: Final, plan: Plan, run: Run) -> Any:
        # Names that are bound, gradients that are made and state that is written unread cannot be
        # put back later.
        late = self.jax and (plan.effects or plan.kept or plan.unread or plan.tried)
        if late:
            raise_pending()  # of earlier calls
        arrays = self.fetch_final(segment, run)
        outputs = self.execute(segment, plan, arrays, run)
        if late:
            self.raise_now(plan, outputs, run)
        return self.commit(plan, outputs, run)

    def raise_now(self, plan: Plan, outputs: list[Any], run: Run) -> None:
        """XLA tells of an index out of range late: it is waited for, as long as undoing is possible."""
        try:
            raise_pending()
        except BaseException:
            self.commit_state(plan, outputs, run, plan.unread)  # as it was: only XLA has it now
            raise

    def finish_with_actions(self, segment: Final, plan: Plan, run: Run) -> Any:
        """Host reads and actions in Python's order; actions are undone if the run fails."""
        if self.jax:
            raise_pending()  # of earlier calls
        done: list[HostAction] = []
        run.numbers = {}
        try:
            for item in plan.host:
                if isinstance(item, HostRead):
                    run.numbers[id(item)] = item.read()
                elif isinstance(item, HostAction):
                    item.remember()
                    done.append(item)
                    item.run(run.numbers)
                elif not item.holds(run.numbers):
                    raise AnotherAnswer(HostFact(item))
            arrays = self.fetch_final(segment, run)
            outputs = self.execute(segment, plan, arrays, run)
            if self.jax:
                self.raise_now(plan, outputs, run)
            result = self.commit(plan, outputs, run)
        except BaseException:
            for action in reversed(done):
                action.undo()
            raise
        return result

    def execute(self, segment: Final, plan: Plan, arrays: list[Any], run: Run) -> list[Any]:
        executable = segment.lowered.executable
        if plan.slots:
            run.found = {id(slot): slot.place.read() for slot in plan.slots}
        if plan.writes and plan.programs:
            run.before = {
                key: old
                for program, _ in plan.programs
                for key, old in program.before(self, plan, run).items()
            }
        if not plan.writes:
            return executable(arrays)
        updated = plan.updated
        if updated is None or (
            updated.bundle.values is None if self.jax else not all(map(is_free, updated.tensors))
        ):
            self.clear_the_way(segment, plan, arrays, run)
        if self.jax:
            donate = self.can_donate(plan, arrays, run)
            return executable(arrays, donate, run.resident)
        return executable(arrays)

    def clear_the_way(self, segment: Final, plan: Plan, arrays: list[Any], run: Run) -> None:
        """Updated state is written in its own array: values that a tape still needs move out first.

        Raises SharedOutside.
        """
        owners = [self.owner_of(item, run) for item, _ in plan.writes]
        written = [o for o in owners if o.__class__ is Storage and o.exported]
        if written:
            self.check_apart(segment, plan, arrays, written, run)
        if self.jax:
            return  # new values are arrays of their own
        for position, owner in zip(plan.places, owners):
            protect_saved(owner)
            for member in owner.members()[:1] if owner.__class__ is Storage else [owner]:
                writable(member)
            if position >= 0:
                arrays[position] = owner.array if owner.__class__ is Storage else owner._data

    def check_apart(
        self, segment: Final, plan: Plan, arrays: list[Any], written: list[Storage], run: Run
    ) -> None:
        """Raises SharedOutside if one of the `written` lies where another input of the path does: no
        view of it, but brought in by another `from_numpy`.
        """
        seen = {id(owner): owner.array for owner in written}  # and all else that code outside has
        for source in plan.inputs:  # of all segments: one before may have read it
            if source.kind in ("argument", "state", "slot"):
                owner = self.owner_of(source, run)
                if owner.__class__ is Storage and owner.exported:
                    seen[id(owner)] = owner.array
        for source, array in zip(segment.sources, arrays):
            if isinstance(source, Input) and source.kind not in ("argument", "state", "slot"):
                if isinstance(array, np.ndarray):
                    seen[id(array)] = array
        if meet(seen, set(map(id, written))):
            raise SharedOutside

    def can_donate(self, plan: Plan, arrays: list[Any], run: Run) -> bool:
        """Whether every buffer to be donated is held by its tensor and by us alone."""
        updated = plan.updated
        if updated is None:
            return False
        if updated.bundle.values is not None:
            return True
        run.only_in_jax = updated.only_in_jax() or (updated.let_go() and updated.only_in_jax())
        # References: of the tensor, of `arrays`, of the sequence given here.
        return run.only_in_jax and may_donate(updated.inputs(arrays), 3)


def is_free(tensor: Tensor) -> bool:
    """Whether the tensor's array can be overwritten: nobody looks at it or has saved it."""
    if tensor._storage is not None:
        settle(tensor)
    entry = tensor._entry
    return (
        (entry is None or entry.value is None) and tensor._const is None and tensor._storage is None
        and tensor._jax is None and tensor._data.flags.writeable
    )  # fmt: skip


def on_numpy(owner: Any) -> np.ndarray:
    return owner.array if owner.__class__ is Storage else owner._data


def for_xla(owner: Any) -> Any:
    """The value of an argument: as it is when it is met first, since a batch is seldom met again and
    XLA's call takes NumPy arrays faster than it makes arrays of its own.
    """
    if owner.__class__ is Storage or owner._storage is not None:
        return on_jax(owner)
    fields = owner.__dict__
    array = fields.get("_jax")
    if array is not None:
        return array if array.__class__ is not Bundled else value_in_xla(owner)
    if "_given" not in fields:
        fields["_given"] = True
        return owner._data
    return on_jax(owner)
