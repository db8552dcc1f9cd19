"""The slots of an optimiser: `state[parameter][name]`.

Ours are made by `init_slot`. Optimisers written by hand read and write them as plain dicts; while a
step is recorded, reads become facts, a number (a count of steps) is read again by every run, and a
slot that is bound anew is bound by every run.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tracegrad.tracer import ReportingDict, get_mode, note_item, recording_watch


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


class Watched(ReportingDict):
    """A dict of slots: it drops nothing while a recording runs."""

    def __contains__(self, key: Any) -> bool:
        self._names_read()
        return super().__contains__(key)

    def __delitem__(self, key: Any) -> None:
        refuse_while_recording()
        super().__delitem__(key)

    def _names_read(self) -> None:
        watch = recording_watch()
        if watch is not None:
            watch.saw_names(self)


class Slots(Watched):
    """The slots of one parameter."""

    shown_as = "an optimizer's slots of one parameter"

    def __getitem__(self, key: Any) -> Any:
        watch = recording_watch()
        if watch is None or not dict.__contains__(self, key):
            self._names_read()
            return super().__getitem__(key)
        return watch.saw_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        watch = recording_watch()
        if watch is not None:
            watch.will_store_item(self, key)
        super().__setitem__(key, value)


class SlotTable(Watched, defaultdict):
    """The slots of all parameters."""

    shown_as = "the state of an optimizer"

    def __missing__(self, key: Any) -> Slots:
        slots = Slots()
        dict.__setitem__(self, key, slots)
        return slots

    def __getitem__(self, key: Any) -> Any:
        slots = super().__getitem__(key)
        if slots.__class__ is Slots:  # tells of its items itself
            note_item(self, key, slots)
        elif (watch := recording_watch()) is not None:
            watch.saw_item(self, key)
        return slots

    def __setitem__(self, key: Any, value: Any) -> None:
        if dict.__contains__(self, key):
            refuse_while_recording()
        elif (watch := recording_watch()) is not None:
            watch.will_store_item(self, key)
        super().__setitem__(key, value)
