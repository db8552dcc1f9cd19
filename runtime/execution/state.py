"""The captured tensors that a step updates: looked at and written together, a hundred in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from operator import getitem, itemgetter
from typing import Any

from tracegrad.backends.jax.arrays import from_numpy, may_donate
from tracegrad.runtime.paths.tree import Final, Sources
from tracegrad.tracer.memory.bundle import Bundle, Bundled, value_in_xla
from tracegrad.tracer.memory.storage import Storage, protect_saved, settle
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input

# Fields of a tensor by which more than its own `_jax` may hold or want its value.
_OTHER_HOLDERS = frozenset({"_data", "_storage", "_const"})
_JAX = repeat("_jax")


class UpdatedTensors:
    """Captured tensors with their places among a program's inputs and outputs.

    Works on the tensors' field dicts with iterators written in C: attribute by attribute, a step of
    100 parameters would spend more time here than XLA does around its own call.

    bundle   their values between two runs that nothing came between, on XLA
    inputs   picks them out of a program's inputs
    outputs  picks their new values out of its outputs
    """

    def __init__(self, sources: Sources, places: list[tuple[Tensor, int, int]]):
        """`places`: tensor, input, output."""
        self.tensors = [tensor for tensor, _, _ in places]
        self.bundle = Bundle(self.tensors, sources)
        self._fields = [tensor.__dict__ for tensor in self.tensors]
        self.inputs = picker([position for _, position, _ in places])
        self.outputs = picker([index for _, _, index in places])
        # All captured tensors in the order of the inputs, out of the updated ones and the others.
        known = {id(tensor): k for k, tensor in enumerate(self.tensors)}
        self.read_only = [tensor for tensor in sources.tensors if id(tensor) not in known]
        for tensor in self.read_only:
            known[id(tensor)] = len(known)
        self._arrange = picker([known[id(tensor)] for tensor in sources.tensors])

    def state(self) -> Sequence[Any]:
        """While the bundle has values: those of all captured tensors, in the order of the inputs."""
        values: Any = self.bundle.values
        if not self.read_only:
            return values
        return self._arrange([*values, *map(on_jax, self.read_only)])

    def only_in_jax(self) -> bool:
        """Whether each value is a jax array that nothing of the tensor's own holds a look at."""
        return _OTHER_HOLDERS.isdisjoint(chain.from_iterable(self._fields))

    def let_go(self) -> bool:
        """Drop looks at the values that can be dropped; whether that was all of them."""
        for tensor, fields in zip(self.tensors, self._fields):
            if tensor._storage is not None:
                settle(tensor)
            if tensor._storage is not None or tensor._jax is None:
                return False
            if "_data" in fields:
                protect_saved(tensor)
                del tensor._data
            if tensor._const is None:
                fields.pop("_const", None)
        return True

    def keep_together(self, outputs: list[Any]) -> None:
        """After a run: bundle the new values, if only their tensors and `outputs` hold them."""
        bundle = self.bundle
        if bundle.values is None and self.only_in_jax():
            values = self.outputs(outputs)
            if may_donate(values, 3):
                bundle.take(values)


def picker(positions: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """The items at these positions of a list."""
    if not positions:
        return lambda items: ()
    first, end = positions[0], positions[0] + len(positions)
    if positions == list(range(first, end)):
        return itemgetter(slice(first, end))
    return itemgetter(*positions)


def updated_tensors(
    final: Final, writes: list[tuple[Input, int]], places: list[int]
) -> UpdatedTensors | None:
    """What a recording updates, if all of it is captured tensors; see Plan for `writes` and `places`."""
    tensors = []
    for (item, index), position in zip(writes, places):
        if item.kind != "state" or not isinstance(item.source, Tensor) or position < 0:
            return None
        tensors.append((item.source, position, index))
    # As they are read: then nothing has to be put in order.
    tensors.sort(key=lambda place: place[1])
    final.fetch.updated = UpdatedTensors(final.fetch, tensors)
    return final.fetch.updated


def state_of(sources: Sources) -> Sequence[Any]:
    """The values of the captured tensors, each asked for its own."""
    try:
        state = [*map(getitem, sources.fields, _JAX)]
    except KeyError:  # one is not there yet, or under a storage
        return [*map(on_jax, sources.tensors)]
    return state if Bundled not in map(type, state) else [*map(on_jax, sources.tensors)]


def on_jax(owner: Any) -> Any:
    """The value for XLA, kept on its owner; copied at every call while NumPy code outside may write
    the buffer.
    """
    if owner.__class__ is not Storage:
        if owner._storage is None:
            array = value_in_xla(owner)
            if array is None:
                array = owner._jax = from_numpy(owner._data)
            return array
        owner = owner._storage
    if owner.exported:
        return from_numpy(owner.array)
    if owner.jax is None:
        owner.jax = from_numpy(owner.array)
    return owner.jax
