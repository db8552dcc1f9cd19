"""Values that a compiled step on XLA keeps together between its runs.

XLA gives the new state as one sequence and takes it back as one. To hand each value to its tensor,
only to collect them all for the next run, costs a small step a tenth of its time: so the sequence
stays whole, and in place of its value each tensor has a `Bundled`. The first look at any of the
values hands all of them out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from operator import setitem
from typing import Any
from weakref import finalize, ref

from tracegrad.tracer.errors import UnsupportedError

# Held by runs that write state, one after the other whatever thread they are called in, and by
# whoever notes a look at a value that such a run may be replacing.
STATE_LOCK = threading.RLock()
_JAX = repeat("_jax")


class Bundle:
    """The values of captured tensors while nobody looks at them.

    values  one jax array for each tensor, held by nothing else; None while the tensors have their own
    """

    __slots__ = ("_fields", "_places", "values", "__weakref__")

    def __init__(self, tensors: Sequence[Any], user: Any):
        """`user`: who runs the step; when it dies, the tensors get their values back."""
        self._fields = [tensor.__dict__ for tensor in tensors]
        self._places: list[Bundled] = []
        self.values: Sequence[Any] | None = None
        finalize(user, _hand_out, ref(self)).atexit = False

    def take(self, values: Sequence[Any]) -> None:
        """Under the state lock: the tensors' values, which each has as its `_jax` so far."""
        if not self._places:
            self._places = [Bundled(self, value) for value in values]
        self.store(self._places)
        self.values = values

    def store(self, values: Sequence[Any]) -> None:
        """Under the state lock: new values, to where the old ones are."""
        if self.values is not None:
            self.values = values
        else:
            deque(map(setitem, self._fields, _JAX, values), 0)

    def hand_out(self) -> None:
        """Every tensor gets its own value."""
        with STATE_LOCK:
            values, self.values = self.values, None
            if values is not None:
                self.store(values)


class Bundled:
    """A tensor's `_jax` while its value is in a bundle."""

    __slots__ = ("bundle", "shape", "dtype")

    def __init__(self, bundle: Bundle, value: Any):
        self.bundle, self.shape, self.dtype = bundle, value.shape, value.dtype


def value_in_xla(tensor: Any) -> Any:
    """The jax array of a tensor that has no storage; None if it has none.

    Raises UnsupportedError for a tensor whose fields were copied from another one's.
    """
    array = tensor._jax
    if array.__class__ is Bundled:
        with STATE_LOCK:  # no step takes it back before it is read
            array.bundle.hand_out()
            array = tensor._jax
        if array.__class__ is Bundled:
            raise UnsupportedError(
                "a tensor's __dict__ was copied while a compiled step kept the value",
                why="the copy is not among the tensors that get their values back",
                fix="use copy.copy(tensor), tensor.clone() or tensor.detach()",
            )
    return array


def _hand_out(bundle: ref[Bundle]) -> None:
    alive = bundle()
    if alive is not None:
        alive.hand_out()
