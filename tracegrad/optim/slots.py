"""The slots of an optimiser: `state[parameter][name]`.

Ours are made by `init_slot`. Optimisers written by hand read and write them as plain dicts; while a
step is recorded, reads become facts, and a slot that is bound anew is bound by every run.
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


class Slots(dict):
    """The slots of one parameter."""

    def __getitem__(self, key: Any) -> Any:
        self._saw(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._saw(key)
        return super().get(key, default)

    def __contains__(self, key: Any) -> bool:
        self._saw(key)
        return super().__contains__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        watch = watch_now()
        if watch is not None:
            watch.will_store_item(self, key)
        super().__setitem__(key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *slots: Any, **named: Any) -> None:
        for key, value in dict(*slots, **named).items():
            self[key] = value

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
        self._saw_all()
        return super().items()

    def values(self) -> Any:
        self._saw_all()
        return super().values()

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

    def _saw(self, key: Any) -> None:
        watch = watch_now()
        if watch is not None:
            watch.saw_item(self, key)

    def _saw_names(self) -> None:
        watch = watch_now()
        if watch is not None:
            watch.saw_names(self)

    def _saw_all(self) -> None:
        self._saw_names()
        for key in dict.keys(self):
            self._saw(key)


class SlotTable(defaultdict):
    """The slots of all parameters. A compiled step drops none."""

    def __getitem__(self, key: Any) -> Any:
        slots = super().__getitem__(key)
        note_item(self, key, slots)
        return slots

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

    def update(self, *args: Any, **named: Any) -> None:
        refuse_while_recording()
        super().update(*args, **named)

    def __setitem__(self, key: Any, value: Any) -> None:
        if dict.__contains__(self, key):
            refuse_while_recording()
        super().__setitem__(key, value)
