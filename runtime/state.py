"""The captured tensors that a step updates: looked at and written together, a hundred in microseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from operator import itemgetter, setitem
from typing import Any

from tracegrad.runtime.segments import Segment, Sources
from tracegrad.tracer.storage import protect_saved
from tracegrad.tracer.tensor import Tensor

# Fields of a tensor by which more than its own `_jax` may hold or want its value.
_OTHER_HOLDERS = frozenset({"_data", "_storage", "_const"})
_JAX = repeat("_jax")


class UpdatedTensors:
    """Captured tensors with their places among a program's inputs and outputs.

    Works on the tensors' field dicts with iterators written in C: attribute by attribute, a step of
    100 parameters would spend more time here than XLA does around its own call.
    """

    def __init__(self, sources: Sources, places: list[tuple[Tensor, int, int]], inputs: int):
        """`places`: tensor, input, output; `inputs`: how many the program has in all."""
        self.sources = sources
        self.tensors = [tensor for tensor, _, _ in places]
        self._fields = [tensor.__dict__ for tensor in self.tensors]
        self.inputs = picker([position for _, position, _ in places])
        self.outputs = picker([index for _, _, index in places])
        # Of all captured tensors, in the order of the inputs, out of inputs and outputs together.
        first = len(sources.arguments)
        after = {position: inputs + index for _, position, index in places}
        state = range(first, first + len(sources.tensors))
        self.in_order = [position for _, position, _ in places] == list(state)
        self._after = picker([after.get(position, position) for position in state])

    def only_in_jax(self) -> bool:
        """Whether each value is a jax array that nothing of the tensor's own holds a look at."""
        return _OTHER_HOLDERS.isdisjoint(chain.from_iterable(self._fields))

    def let_go(self) -> bool:
        """Drop looks at the values that can be dropped; whether that was all of them."""
        for tensor, fields in zip(self.tensors, self._fields):
            if tensor._storage is not None or tensor._jax is None:
                return False
            if "_data" in fields:
                protect_saved(tensor)
                del tensor._data
            if tensor._const is None:
                fields.pop("_const", None)
        return True

    def put(self, arrays: list[Any], outputs: list[Any]) -> Sequence[Any]:
        """Store the new values, where `only_in_jax` held before the run and the state lock since.

        Returns the values of all captured tensors, the new ones and those only read, for the next run.
        """
        values = self.put_values(self.outputs(outputs))
        return values if self.in_order else self._after([*arrays, *outputs])

    def put_values(self, values: Sequence[Any]) -> Sequence[Any]:
        deque(map(setitem, self._fields, _JAX, values), 0)
        return values


def picker(positions: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """The items at these positions of a list."""
    if not positions:
        return lambda items: ()
    first, end = positions[0], positions[0] + len(positions)
    if positions == list(range(first, end)):
        return itemgetter(slice(first, end))
    return itemgetter(*positions)


def updated_tensors(final: Segment, recorded: Any) -> UpdatedTensors | None:
    """What a recording updates, if all of it is captured tensors."""
    positions = {id(source): k for k, source in enumerate(final.sources)}
    places = []
    for item, index in recorded.writes:
        if item.kind != "state" or not isinstance(item.source, Tensor) or id(item) not in positions:
            return None
        places.append((item.source, positions[id(item)], index))
    places.sort(key=lambda place: place[1])  # as they are read: then nothing has to be put in order
    return UpdatedTensors(final.fetch, places, len(final.sources))
