"""Which memory recordings found shared: a replay is right only where the same, and no other, is shared
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.runtime.calls.signature import Call
from tracegrad.runtime.recordings.recorded import Recorded
from tracegrad.tracer.memory.storage import Storage
from tracegrad.tracer.tensor import Tensor, metadata_changes

EFFORT = 1000  # of NumPy, to tell whether arrays meet that lie within each other


class Aliasing:
    """What the paths of one tree take for granted of memory; never changed, as threads look at it.

    Captured tensors share none with each other, nor with arguments; but an argument that the function
    also reached by itself is that very memory again.
    """

    def __init__(self, call: Call, recorded: Recorded, earlier: Aliasing | None = None):
        """`earlier`: of the tree's other paths. It all has to hold, since a call is looked at before its
        path is known.
        """
        trace = recorded.trace
        sources = [item.source for item in trace.inputs if item.kind == "state"]
        touched = {id(now(owner)) for owner in trace.touched_by_capture.values()}
        owners = map(now, call.owners)
        # By argument: the storage if the function also reached it by itself, else None.
        self._shared = [owner if id(owner) in touched else None for owner in owners]
        # Names whose tensors are read anew at every call, by place.
        self._slots = {slot.place.key: slot for slot in trace.slots.values()}
        self._place_of_argument_seen = trace.place_of_argument_seen  # see TraceBuffers
        positions = {id(tensor): k for k, tensor in reversed(list(enumerate(call.tensors)))}
        # The `.grad` that was added to, by argument.
        self._gradients = {
            positions[id(slot.tensor)]: slot.tensor._grad
            for slot in trace.grads.values()
            if slot.found == "tensor" and id(slot.tensor) in positions
        }
        if earlier is not None:
            known = {id(now(source)) for source in earlier._sources}
            sources = [s for s in sources if id(now(s)) not in known] + earlier._sources
            pairs = zip(earlier._shared, self._shared)
            self._shared = [found if before is None else before for before, found in pairs]
            self._slots |= earlier._slots
            self._place_of_argument_seen |= earlier._place_of_argument_seen
            self._gradients |= earlier._gradients
        self._sources: list[Any] = sources  # captured tensors and storages
        self._captured: set[int] = set()
        self._apart = True  # whether they share no memory with each other
        self._changes = -1  # of metadata, when these two were found
        # Whether a call is right if only its arguments are apart from what is captured.
        shared = any(owner is not None for owner in self._shared)
        self.plain = not (shared or self._gradients or self._slots)

    def fits(self, call: Call) -> bool:
        """Whether a call's arguments share memory with captured state exactly as they did when recorded."""
        self._look()
        if not self._apart:
            return False  # two captured tensors have come to share memory
        captured = self._captured
        if call.behind and (
            self._place_of_argument_seen
            or any([id(storage) in captured for storage in call.behind])
        ):
            return False
        if self.plain:
            return captured.isdisjoint(map(id, call.owners))
        for position, gradient in self._gradients.items():
            if call.tensors[position]._grad is not gradient:
                return False
        if self._slots:
            given = {id(owner) for owner in (*call.owners, *call.behind)}
            found = [slot.place.read() for slot in self._slots.values()]
            # Of a path that this call does not take, it may be no tensor.
            named = [id(now(value)) for value in found if isinstance(value, Tensor)]
            if len({*named}) < len(named) or not (captured | given).isdisjoint(named):
                return False
        return all(
            id(owner) not in captured if shared is None else owner is shared
            for shared, owner in zip(self._shared, call.owners)
        )

    def is_apart_from(self, owners: Sequence[Any]) -> bool:
        """Whether captured tensors share no memory with each other, nor with these."""
        self._look()
        return self._apart and (not self._captured or self._captured.isdisjoint(map(id, owners)))

    def _look(self) -> None:
        """Which storages are captured; a captured tensor may have got one since."""
        changes = metadata_changes[0]
        if self._changes != changes:
            self._captured = {id(now(source)) for source in self._sources}
            self._apart = len(self._captured) == len(self._sources)
            self._changes = changes  # last: other threads may be here


def now(owner: Any) -> Any:
    """The storage of what was captured as a tensor, if it has got one since."""
    return owner if isinstance(owner, Storage) or owner._storage is None else owner._storage


def meet(arrays: dict[int, np.ndarray], written: set[int]) -> bool:
    """Whether one of the arrays, none with negative strides, shares memory with one of those `written`."""
    spans = []
    for key, array in arrays.items():
        start = array.__array_interface__["data"][0]
        reach = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides))
        spans.append((start, start + reach + array.itemsize, key))
    near: list[tuple[int, int]] = []  # (end, key) of those that may reach as far as the next
    for start, end, key in sorted(spans):
        near = [(last, other) for last, other in near if last > start]
        for _, other in near:
            one, two = arrays[key], arrays[other]
            if (key in written or other in written) and np.may_share_memory(one, two, EFFORT):  # type: ignore[arg-type]
                return True
        near.append((end, key))
    return False
