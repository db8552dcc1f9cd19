"""Objects whose state the tracer knows about: modules, parameter groups, schedules.

`Observed` is the base of nn.Module. While a trace records, reads of its attributes are noted (by a
hook the runtime installs for that time only), so that a later change is noticed before a stale
graph is used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tracegrad.tracer.state import EAGER_NO_GRAD, get_mode, reset_mode, set_mode

_FLOATS = (float, np.floating)


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


class ItemRead:
    """Reads `holder[key]`, or one number of a sequence there: as it is when called, past any tracing."""

    __slots__ = ("holder", "key", "index")

    def __init__(self, holder: dict, key: str, index: int | None = None):
        self.holder, self.key, self.index = holder, key, index

    def __call__(self) -> Any:
        value = dict.__getitem__(self.holder, self.key)
        return value if self.index is None else value[self.index]


class ParamGroup(dict):
    """An optimiser's parameter group: a plain dict, whose numbers are host inputs while a step is
    recorded.

    So a learning rate that changes on every call never recompiles, and stays a Python number
    everywhere else.
    """

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        trace = get_mode().trace
        return value if trace is None else self._traced(trace, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def _traced(self, trace: Any, key: str, value: Any) -> Any:
        if isinstance(value, _FLOATS):
            return trace.host_number((id(self), key), ItemRead(self, key), key)
        if type(value) is tuple and value and all(isinstance(item, _FLOATS) for item in value):
            return tuple(
                trace.host_number((id(self), key, k), ItemRead(self, key, k), f"{key}[{k}]")
                for k in range(len(value))
            )
        if isinstance(value, (bool, int, str)) or value is None:
            from tracegrad.tracer.numbers import same_bits

            trace.guard_host(ItemRead(self, key), same_bits, value)
        elif isinstance(value, list):
            trace.guard_host(ItemRead(self, key), same_objects, list(value))
        else:  # a tensor as the learning rate, say
            note_item(self, key, value)
        return value


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
        for value in args:
            if getattr(value, "_traced", None) is not None or hasattr(value, "_traced_number"):
                trace.refuse(
                    f"{type(self).__name__}.{method.__name__}() with a traced value",
                    "call it outside the compiled function, on the value the step returns",
                    "it decides in Python, on every call, on a number that only the graph knows",
                )
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
