"""Objects whose state the tracer knows about: modules, parameter groups, schedules.

`Observed` is the base of nn.Module. While a trace records, reads of its attributes are noted (by a
hook the runtime installs for that time only), so that a later change is noticed before a stale
graph is used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from tracegrad.tracer.state import EAGER_NO_GRAD, get_mode, reset_mode, set_mode

_FLOATS = (float, np.floating)


class Record:
    """Base of the library's own classes whose instances are their attributes and nothing more: to
    compiled functions they are what an object of a user's class is.
    """


class Observed:
    """Base of objects whose attributes may be read while recording.

    _noted_elsewhere  attributes whose reads the class reports itself, with `note_item`
    _host_numbers  attributes whose numbers are read again at every call (inputs of the graph, not
                   facts)
    _changes_count_as_metadata  whether every change of an instance also counts up
                                `metadata_changes` (tensor.py)
    """

    _noted_elsewhere: frozenset[str] = frozenset()
    _changes_count_as_metadata = False
    _host_numbers: frozenset[str] = frozenset()


def note_item(holder: dict, key: Any, value: Any) -> None:
    """Tell the trace that `holder[key]` was read and is `value`: replays need that object there."""
    trace = get_mode().trace
    if trace is not None:
        trace.noted.append((holder, key, value))


def recording_watch() -> Any:
    """Who is told what this thread's recording reads and writes of Python's state; None where nothing
    is recorded (runtime/watch/attributes.py).
    """
    trace: Any = get_mode().trace
    while trace is not None and trace.outer is not None:
        trace = trace.outer
    return None if trace is None else trace.watch


class ItemRead:
    """Reads `holder[key]`, or one number of a sequence there: as it is when called, past any tracing."""

    __slots__ = ("holder", "key", "index")

    def __init__(self, holder: dict, key: str, index: int | None = None):
        self.holder, self.key, self.index = holder, key, index

    def __call__(self) -> Any:
        value = dict.__getitem__(self.holder, self.key)
        return value if self.index is None else value[self.index]


class ReportingDict(dict):
    """A dict that tells a recording what is asked of it.

    Every question goes through `self[key]`, `key in self` and `_names_read`, every change through
    `self[key] = value` and `del self[key]`: a subclass says what becomes of these five.

    shown_as  what it is, in messages
    """

    shown_as: str

    def _names_read(self) -> None:
        """All keys count, while recording."""
        raise NotImplementedError(f"{type(self).__name__} does not report its names")

    # -- reads -----------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None) -> Any:
        """The value under `key`, or the default."""
        if dict.__contains__(self, key):
            return self[key]
        return self[key] if key in self else default

    def keys(self) -> Any:
        """The keys."""
        self._names_read()
        return super().keys()

    def items(self) -> Any:
        """The keys with their values."""
        return super().items() if get_mode().trace is None else self.copy().items()

    def values(self) -> Any:
        """The values."""
        return super().values() if get_mode().trace is None else self.copy().values()

    def copy(self) -> Any:
        """A plain dict of the same."""
        return {key: self[key] for key in self}

    def __iter__(self) -> Iterator[Any]:
        self._names_read()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._names_read()
        return super().__reversed__()

    def __len__(self) -> int:
        self._names_read()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        return self is other or self.copy() == other

    __hash__ = None  # as a dict's

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __repr__(self) -> str:
        return super().__repr__() if get_mode().trace is None else repr(self.copy())

    # -- writes ----------------------------------------------------------------------------------

    def update(self, *given: Any, **named: Any) -> None:
        """Set several values."""
        for key, value in dict(*given, **named).items():
            self[key] = value

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value under `key`, set to the default if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a value out."""
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Take out the value that was set last, with its key."""
        keys = [*self]
        if not keys:
            raise KeyError("popitem(): dictionary is empty")
        return keys[-1], self.pop(keys[-1])

    def clear(self) -> None:
        """Take out all values."""
        for key in [*self]:
            del self[key]


class ParamGroup(ReportingDict):
    """An optimiser's parameter group: its numbers are host inputs while a step is recorded, its
    writes host actions.

    So a learning rate that changes on every call never recompiles, and stays a Python number
    everywhere else.
    """

    shown_as = "a parameter group"

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        trace = get_mode().trace
        return value if trace is None else self._traced(trace, key, value)

    def __contains__(self, key: object) -> bool:
        trace = get_mode().trace
        if trace is None:
            return dict.__contains__(self, key)
        return bool(trace.guard_host(KeysRead(self), has_key, key))

    def _names_read(self) -> None:
        trace = get_mode().trace
        if trace is not None:
            trace.guard_host(KeysRead(self), has_keys, (*dict.keys(self),))

    def _traced(self, trace: Any, key: str, value: Any) -> Any:
        if isinstance(value, _FLOATS):
            return trace.host_number((id(self), key), ItemRead(self, key), key)
        if type(value) is tuple and value and all(isinstance(item, _FLOATS) for item in value):
            return tuple(
                trace.host_number((id(self), key, k), ItemRead(self, key, k), f"{key}[{k}]")
                for k in range(len(value))
            )
        if isinstance(value, (bool, int, str)) or value is None:
            from tracegrad.tracer.trace.numbers import same_bits

            trace.guard_host(ItemRead(self, key), same_bits, value)
        elif isinstance(value, list):
            trace.guard_host(ItemRead(self, key), same_objects, list(value))
        elif trace.phase:
            trace.guard_host(ItemRead(self, key), operator.is_, value)
        else:  # a tensor as the learning rate, say
            note_item(self, key, value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._write(dict.__setitem__, key, value)

    def __delitem__(self, key: str) -> None:
        if not dict.__contains__(self, key):
            raise KeyError(key)
        self._write(dict.__delitem__, key)

    def _write(self, method: Callable[..., Any], *args: Any) -> None:
        """While recording, a write is repeated by every call, in order with the numbers read."""
        trace = get_mode().trace
        if trace is None:
            method(self, *args)
        else:
            trace.run_host_action(method, self, args)


class KeysRead:
    """Reads `holder` itself, to ask which names it has."""

    __slots__ = ("holder",)

    def __init__(self, holder: dict):
        self.holder = holder

    def __call__(self) -> dict:
        return self.holder


def has_key(holder: dict, key: Any) -> bool:
    return dict.__contains__(holder, key)


def has_keys(holder: dict, keys: tuple) -> bool:
    return (*dict.keys(holder),) == keys


def same_objects(now: Any, before: list[Any]) -> bool:
    return isinstance(now, list) and len(now) == len(before) and all(map(operator.is_, now, before))


def host_action(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for methods that change Python state beside the graph (a schedule's step).

    While recording, the call runs once and is remembered; every later call of the compiled function
    runs it again, in order with the numbers read. Its arguments must not be traced tensors.
    """

    @wraps(method)
    def run(self: Any, *args: Any) -> Any:
        trace = get_mode().trace
        if trace is None:
            return method(self, *args)
        return trace.run_host_action(method, self, args)

    return run


def new_state(factory: Callable[[], Any], undo: Callable[[], Any]) -> Any:
    """Make state (an optimiser's slot) eagerly; `undo` runs if a recording is thrown away."""
    trace = get_mode().trace
    if trace is None:
        return factory()
    token = set_mode(EAGER_NO_GRAD)
    try:
        made = factory()
    finally:
        reset_mode(token)
    trace.undo.append(undo)
    return made
