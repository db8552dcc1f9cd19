"""The slots of an optimiser: `state[parameter][name]`.

Ours are made by `init_slot`. Optimisers written by hand read and write them as plain dicts; while a
step is recorded, reads become facts, a number (a count of steps) is read again by every run, and a
slot that is bound anew is bound by every run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tracegrad.tracer import get_mode, note_item


def watch_now() -> Any:
    """Who is told of reads and writes: the watch of the recording in this thread, if there is one."""
    trace: Any = get_mode().trace
    while trace is not None and trace.outer is not None:
        trace = trace.outer
    return None if trace is None else trace.item_watch


def refuse_while_recording() -> None:
    """Every recorded call would have to make slots anew."""
    trace = get_mode().trace
    if trace is not None:
        trace.refuse(
            "slots of an optimizer are dropped or replaced",
            "write them in place (slot.zero_()), or change optimizer.state outside the compiled "
            "function",
            "every call would have to make new ones",
        )


class Watched(dict):
    """A dict that tells a recording what is asked of it, and drops nothing while one runs."""

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *given: Any, **named: Any) -> None:
        for key, value in dict(*given, **named).items():
            self[key] = value

    def __contains__(self, key: Any) -> bool:
        self._saw_names()
        return super().__contains__(key)

    def __len__(self) -> int:
        self._saw_names()
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        self._saw_names()
        return super().__iter__()

    def keys(self) -> Any:
        self._saw_names()
        return super().keys()

    def items(self) -> Any:
        return super().items() if watch_now() is None else {k: self[k] for k in self}.items()

    def values(self) -> Any:
        return super().values() if watch_now() is None else [self[k] for k in self]

    def __delitem__(self, key: Any) -> None:
        refuse_while_recording()
        super().__delitem__(key)

    def pop(self, *args: Any) -> Any:
        refuse_while_recording()
        return super().pop(*args)

    def popitem(self) -> Any:
        refuse_while_recording()
        return super().popitem()

    def clear(self) -> None:
        refuse_while_recording()
        super().clear()

    def _saw_names(self) -> None:
        watch = watch_now()
        if watch is not None:
            watch.saw_names(self)


class Slots(Watched):
    """The slots of one parameter."""

    def __getitem__(self, key: Any) -> Any:
        watch = watch_now()
        if watch is None or not dict.__contains__(self, key):
            self._saw_names()
            return super().__getitem__(key)
        return watch.saw_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        watch = watch_now()
        if watch is not None:
            watch.will_store_item(self, key)
        super().__setitem__(key, value)


class SlotTable(Watched, defaultdict):
    """The slots of all parameters."""

    def __missing__(self, key: Any) -> Slots:
        slots = Slots()
        dict.__setitem__(self, key, slots)
        return slots

    def __getitem__(self, key: Any) -> Any:
        slots = super().__getitem__(key)
        if slots.__class__ is Slots:  # tells of its items itself
            note_item(self, key, slots)
        elif (watch := watch_now()) is not None:
            watch.saw_item(self, key)
        return slots

    def __setitem__(self, key: Any, value: Any) -> None:
        if dict.__contains__(self, key):
            refuse_while_recording()
        elif (watch := watch_now()) is not None:
            watch.will_store_item(self, key)
        super().__setitem__(key, value)
