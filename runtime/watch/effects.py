"""What a recording changed in Python's state.

A name bound anew is an effect, repeated after every run, and so is an item of a dict (a cache is
filled, an average replaced). Other content changed in place (a list appended to) cannot be repeated:
the function is refused. All is put back once the recording is over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracegrad.ir.loc import Loc
from tracegrad.runtime.watch.attributes import AttributeWatch
from tracegrad.runtime.watch.facts import CallFact, Fact, PartOf, Place
from tracegrad.runtime.watch.pictures import (
    bound_items,
    restored,
    sightings_of,
    unchanged,
    without_item,
)
from tracegrad.tracer.locate import here
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input
from tracegrad.tracer.trees import flatten

_ONLY_NAMES = (
    "only tensors, names that are bound anew and items of dicts are updated by a compiled function"
)


class Effects:
    """The state before one recording, and how it differs after.

    found  names bound anew, with what they hold after the function
    """

    def __init__(self, watch: AttributeWatch, arguments: tuple[tuple, dict, list], begins: Loc):
        self.watch = watch
        self.begins = begins  # where the function does: what is found later has no line of its own
        self.trace = watch.trace
        self.sightings = watch.sightings
        self.arguments = arguments
        self.arguments_before: tuple | None = None  # a picture of them
        self.random_before = random_state()
        self.found: list[tuple[Place, Any]] = []

    def note_arguments(self) -> None:
        """To notice a container among the arguments that the function changes."""
        met = set(self.sightings.met)
        self.arguments_before = self.sightings.picture("an argument", self.arguments)
        self.sightings.met = met

    def find(self) -> None:
        """After the function: fill `found`. Raises UnsupportedError for what cannot be repeated."""
        changed = self.changed()
        self.found = [(place, now) for place, _, now in changed]
        for place, before, now in changed:
            self._make_slots(place, before, now)

    def changed(self) -> list[tuple[Place, Any, Any]]:
        """The places bound anew, with what they held before and hold now. Raises UnsupportedError."""
        complain = self.sightings.complain
        if random_state() != self.random_before:
            complain(
                "the function draws from random or np.random",
                "draw with tg.rand and the like, or pass the numbers in",
                "its numbers would be the same at every call",
                self.begins,
            )
        before = self.arguments_before
        if before is not None and not unchanged(before, self.arguments):
            complain(
                "an argument (a list, dict or array) is changed",
                "return the values instead",
                _ONLY_NAMES,
                self.begins,
            )
        for place, held in list(self._changed_unseen()):
            self.sightings.add(place, held, here())  # it may have been read past the hooks too
        written = set(self.watch.stored)
        bound = dict(self.watch.stored)
        for fact in self.sightings.of_values():
            now = fact.place.read()
            if unchanged(fact.snapshot, now):
                continue
            if now is fact.value:
                items = bound_items(fact.snapshot, now)
                if items is not None:
                    for holder, key, before in items:
                        place = Place("item", holder, key)
                        bound[place.key] = (place, before)
                    continue
                complain(
                    f"{fact.place.name}, a {type(now).__name__} from outside, is changed",
                    "return the values instead, and change it outside the compiled function",
                    _ONLY_NAMES,
                    fact.loc if fact.loc.line else self.begins,
                )
            bound.setdefault(fact.place.key, (fact.place, fact.value))
        self.watch.stored = bound
        changed = [(place, before, place.read()) for place, before in bound.values()]
        written -= {fact.key for fact in self.sightings.of_values()}
        for place, before, now in changed:
            if now is before and place.key in written:
                self._add_unchanged(place, before)
        return [(place, before, now) for place, before, now in changed if now is not before]

    def _add_unchanged(self, place: Place, value: Any) -> None:
        """A name was bound to what it held: no run needs to, while it holds that."""
        snapshot = self.sightings.picture(place.name, value)
        self.sightings.facts.append(Fact(place, value, snapshot, self.begins))

    def _changed_unseen(self) -> Iterator[tuple[Place, Any]]:
        """What was written past all hooks, but for what the actions of each call write anew."""
        for place, held in self.sightings.changed_unseen():
            if not self.trace.reached_by_host_action(place.holder):
                yield place, held

    def _make_slots(self, place: Place, before: Any, now: Any) -> None:
        """State kept under a name bound anew at every call (`self.h = f(self.h, x)`): read by name. Also
        in a tuple of tensors (`self.h = (h, c)`).

        Guarding the tensors' identities instead would record at every call.
        """
        pairs = list(parts_of(place, before, now))
        if not all(isinstance(tensor, Tensor) for _, tensor, _ in pairs):
            return
        # It was met there, and nowhere else: the graph cannot tell from which place it was read.
        facts = [f for f in self.sightings.of_values() if f.key != place.key]
        snapshots = [without_item(f.snapshot, place.holder, place.name) for f in facts]
        if not pairs or len({id(tensor) for _, tensor, _ in pairs}) < len(pairs):
            return
        if not all(self._may_be_slot(tensor, value, snapshots) for _, tensor, value in pairs):
            return
        for fact, snapshot in zip(facts, snapshots):
            fact.snapshot = snapshot
        replaced = {place.key, *(("captured", id(tensor)) for _, tensor, _ in pairs)}
        kept = [f for f in self.sightings.facts if f.key not in replaced]
        self.sightings.facts = kept + [
            self._slot(where, tensor).fact() for where, tensor, _ in pairs
        ]

    def _may_be_slot(self, tensor: Tensor, value: Any, elsewhere: list[tuple]) -> bool:
        """Whether any tensor like `tensor` can stand for it at a call, which binds `value` in its place.

        elsewhere: what other places held
        """
        trace = self.trace
        if not isinstance(value, Tensor) or value._traced is None:
            return False
        if tensor._entry is not None or tensor._chain or tensor._family:
            return False
        owners = (id(tensor), id(tensor._storage))
        if any(i.kind != "state" or i.tensor is not tensor for i in self._inputs_of(tensor)):
            return False
        if any(owner in trace.cells and trace.cells[owner].written for owner in owners):
            return False
        met = any(sightings_of(tensor, f.snapshot) for f in self.sightings.of_values())
        if not met or any(sightings_of(tensor, snapshot) for snapshot in elsewhere):
            return False
        if any(noted is tensor for _, _, noted in trace.noted):
            return False
        same = tuple(value.shape) == tuple(tensor.shape) and value.dtype is tensor.dtype
        return same and not value.requires_grad and type(tensor) is Tensor

    def _inputs_of(self, tensor: Tensor) -> list[Input]:
        """None: its value is not used."""
        owners = (id(tensor), id(tensor._storage))
        return [i for i in self.trace.inputs if id(i.source) in owners]

    def _slot(self, place: Place, tensor: Tensor) -> Slot:
        items = self._inputs_of(tensor)
        slot = self.trace.slots[id(tensor)] = Slot(place, tensor)
        for item in items:
            item.kind, item.source, item.key = "slot", slot, ("slot", *place.key)
        return slot

    def put_back(self) -> None:
        """Undo them."""
        for place, held in self._changed_unseen():
            self.watch.stored.setdefault(place.key, (place, held))
        facts = self.sightings.of_values()
        for fact in facts:
            now = fact.place.read()
            if now is fact.value and not unchanged(fact.snapshot, now):
                restored(fact.snapshot)
        before = self.arguments_before
        if before is not None and not unchanged(before, self.arguments):
            restored(before)
        for fact in facts:
            self.watch.stored.setdefault(fact.place.key, (fact.place, fact.value))
        for place, before in self.watch.stored.values():
            if place.read() is not before:
                place.bind(before)
        restore_random_state(self.random_before)


class Slot:
    """A name under which state is kept. `tensor` is what the recording found there."""

    def __init__(self, place: Place, tensor: Tensor):
        self.place, self.tensor = place, tensor
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def fits(self) -> bool:
        """Whether what is there now can take the recorded tensor's place."""
        now = self.place.read()
        return (
            type(now) is Tensor
            and not (now._entry is not None or now._chain or now._family)
            and now._traced is None
            and tuple(now.shape) == self.shape
            and now.dtype is self.dtype
        )

    def fact(self) -> CallFact:
        return CallFact(
            self.fits,
            lambda: f"{self.place.name}: no longer a tensor like the one recorded",
            ("slot", *self.place.key),
        )


def parts_of(place: Place, before: Any, now: Any) -> Iterator[tuple[Place, Any, Any]]:
    """What a name held and holds: itself, or element by element where both are tuples of one form."""
    if type(before) is not tuple or type(now) is not tuple or len(before) != len(now):
        yield place, before, now
        return
    for index, (old, new) in enumerate(zip(before, now)):
        yield from parts_of(PartOf(place, index, len(now)), old, new)


def is_number(value: Any) -> bool:
    """Of a trace."""
    return hasattr(value, "_traced_number")


def holds_traced(value: Any) -> bool:
    """Whether a value, or a container's content, belongs to a trace."""
    leaves, _ = flatten(value)
    return any(
        (isinstance(leaf, Tensor) and leaf._traced is not None) or is_number(leaf)
        for leaf in leaves
    )


def random_state() -> tuple:
    """The position of Python's and NumPy's own random streams."""
    numpy_state: Any = np.random.get_state(legacy=True)
    return random.getstate(), numpy_state[1].tobytes(), tuple(numpy_state[2:])


def restore_random_state(state: tuple) -> None:
    if random_state() != state:
        random.setstate(state[0])
        np.random.set_state(("MT19937", np.frombuffer(state[1], np.uint32), *state[2]))
