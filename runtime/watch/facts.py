"""Facts: where a Python value was found while recording, and what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir.loc import Loc
from tracegrad.runtime.watch.pictures import ABSENT, PLAIN, unchanged
from tracegrad.tracer.observed import ItemRead, has_key, has_keys
from tracegrad.tracer.trace.host import HostFormula, HostGuard
from tracegrad.tracer.trace.numbers import is_a


class Place:
    """A name that can be read and bound: a dict's item, a closure cell, an attribute, a class's own."""

    __slots__ = ("kind", "holder", "name")

    def __init__(self, kind: str, holder: Any, name: str):
        # "item": holder[name]; "cell": holder's content; "attribute": getattr(holder, name);
        # "class": what the class `holder` itself has under name, descriptors not run
        self.kind = kind
        self.holder = holder
        self.name = name

    @property
    def key(self) -> tuple:
        return (self.kind, id(self.holder), self.name)

    def read(self) -> Any:
        if self.kind == "item":
            return self.holder.get(self.name, ABSENT)
        if self.kind == "cell":
            try:
                return self.holder.cell_contents
            except ValueError:
                return ABSENT
        if self.kind == "class":
            return self.holder.__dict__.get(self.name, ABSENT)
        return getattr(self.holder, self.name, ABSENT)

    def bind(self, value: Any) -> None:
        if self.kind == "cell":
            if value is ABSENT:
                del self.holder.cell_contents
            else:
                self.holder.cell_contents = value
        elif self.kind == "item":
            if value is ABSENT:
                self.holder.pop(self.name, None)
            else:
                self.holder[self.name] = value
        elif value is ABSENT:
            if hasattr(self.holder, self.name):
                delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, value)


class PartOf(Place):
    """An element of the tuple of `count` that a place holds; it is bound with the whole tuple."""

    __slots__ = ("index", "count")

    def __init__(self, whole: Place, index: int, count: int):
        super().__init__("part", whole, f"{whole.name}[{index}]")
        self.index, self.count = index, count

    @property
    def key(self) -> tuple:
        return ("part", *self.holder.key, self.index)

    def read(self) -> Any:
        whole = self.holder.read()
        return whole[self.index] if type(whole) is tuple and len(whole) == self.count else ABSENT


class Fact:
    """`place` held `value`, with this content.

    of_metadata   whether it can only change together with `metadata_changes` (see tracer/tensor.py)
    of_attribute  whether a hook told of the read, of an attribute
    """

    __slots__ = ("place", "value", "snapshot", "loc", "of_metadata", "of_attribute")

    def __init__(
        self, place: Place, value: Any, snapshot: tuple, loc: Loc, of_metadata: bool = False,
        of_attribute: bool = False,
    ):  # fmt: skip
        self.place = place
        self.value = value
        self.snapshot = snapshot
        self.loc = loc
        self.of_metadata = of_metadata
        self.of_attribute = of_attribute

    @property
    def key(self) -> tuple:
        return self.place.key

    def is_number(self) -> bool:
        """Of an attribute that held a number of Python's, and does."""
        kind = type(self.value)
        return self.of_attribute and kind in (int, float) and type(self.place.read()) is kind

    def holds(self) -> bool:
        return unchanged(self.snapshot, self.place.read())

    def describe(self) -> str:
        now = self.place.read()
        was = shown_snapshot(self.snapshot)
        became = "deleted" if now is ABSENT else shown(now)
        if was == became or self.snapshot[0] not in ("value", "same"):
            became = "changed" if now is not ABSENT else became
        where = self.loc if self.loc.line else self.loc.file
        return f"{self.place.name}: {was} -> {became} (read at {where})"


class CallFact:
    """A fact that is asked of a function."""

    __slots__ = ("test", "text", "key")

    def __init__(self, test: Callable[[], bool], text: Callable[[], str], key: Any = None):
        self.test, self.text = test, text
        self.key = key

    @property
    def of_metadata(self) -> bool:
        """Whether it can only change together with `metadata_changes` (see tracer/tensor.py)."""
        return type(self.key) is tuple and self.key[0] == "captured"

    def holds(self) -> bool:
        return self.test()

    def describe(self) -> str:
        return self.text()


class ItemFact:
    """`holder[key]` is this very object (an optimiser's slot)."""

    __slots__ = ("holder", "name", "value")
    of_metadata = False

    def __init__(self, holder: dict, name: Any, value: Any):
        self.holder, self.name, self.value = holder, name, value

    @property
    def key(self) -> tuple:
        return ("item", id(self.holder), id(self.name))

    def holds(self) -> bool:
        return dict.get(self.holder, self.name) is self.value

    def describe(self) -> str:
        return f"{self.name if isinstance(self.name, str) else 'an entry'} of captured state was replaced"


class HostFact:
    """A comparison of a hyper-parameter has the answer it had."""

    __slots__ = ("guard",)
    of_metadata = False

    def __init__(self, guard: HostGuard):
        self.guard = guard

    @property
    def key(self) -> tuple:
        return ("host", str(self.guard.loc))

    def holds(self) -> bool:
        return self.guard.holds({})

    def describe(self) -> str:
        guard = self.guard
        where = f"{guard.loc.file}:{guard.loc.line}"
        if guard.phase:  # what it was is gone: the actions before it have been undone
            return f"what the function set itself: another answer than before at {where}"
        if guard.compare in (has_key, has_keys):
            holder = guard.read()
            names = [*dict.keys(holder)]
            has = names if all(isinstance(name, str) for name in names) else f"{len(names)} entries"
            return f"{holder.shown_as}: now has {has} (asked at {where})"
        try:
            now = repr(guard.read())
        except LookupError:
            now = "deleted"
        if guard.compare is is_a:
            return (
                f"{read_from(guard.read)}: now {now}, no Python {guard.constant} (read at {where})"
            )
        return f"{read_from(guard.read)}: now {now} (compared with {guard.constant!r} at {where})"


def read_from(read: Any) -> str:
    """What a number is, in words, that is read at every call."""
    owner = getattr(read, "__self__", None)
    if isinstance(owner, HostFormula):
        return "what follows from " + ", ".join(sorted({read_from(r.read) for r in owner.reads}))
    return str(read.key) if isinstance(read, ItemRead) else "a hyper-parameter"


def shown(value: Any) -> str:
    text = repr(value) if isinstance(value, PLAIN) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def shown_snapshot(taken: tuple) -> str:
    if taken[0] in ("value", "same"):
        return "absent" if taken[1] is ABSENT else shown(taken[1])
    return f"the {taken[1].__name__} as it was"
