"""The Python side of a trace: numbers and arrays read at every call, actions run at every call.

A hyper-parameter becomes an input of the graph, so that its changes never recompile; a schedule's
step is run again by every call, in order with the reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import Node, placeholder
from tracegrad.ir.types import TensorType, dtype_of, u32
from tracegrad.tracer.locate import here
from tracegrad.tracer.numbers import TracedNumber, is_a
from tracegrad.tracer.observed import ItemRead
from tracegrad.tracer.program import WEAK_DTYPE
from tracegrad.tracer.state import EAGER_NO_GRAD, reset_mode, set_mode
from tracegrad.tracer.tape import weak_category
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace_buffers import Input, TraceBuffers

_COMPARED = (int, float, str, list, type(None))


@dataclass(eq=False)
class HostRead:
    """A number read at every call, and the graph input that takes it.

    sent  the number of the last call on XLA, and its array there once it was met twice
    """

    read: Callable[[], Any]
    node: Node
    dtype: np.dtype
    phase: int  # host actions before it
    sent: tuple[Any, Any] = (None, None)

    def array(self) -> np.ndarray:
        return np.asarray(self.read(), self.dtype)


@dataclass
class HostArray:
    """A NumPy array of the user's, copied at every call: it may be written during a run."""

    source: np.ndarray

    def array(self) -> np.ndarray:
        return self.source.copy()


@dataclass(eq=False)
class HostGuard:
    """An answer that needs no graph: `kind(read(), constant)` was `answer`."""

    read: Callable[[], Any]
    kind: Callable[[Any, Any], bool]
    constant: Any
    answer: bool
    loc: _loc.Loc


@dataclass(eq=False)
class HostAction:
    """Python to run on every call, in order with the host reads (a learning-rate schedule's step)."""

    method: Callable[..., Any]
    args: tuple[Any, ...]
    owner: Any
    before: list[tuple[Any, Any]] | None = None

    def run(self) -> None:
        self.method(self.owner, *self.args)

    def remember(self) -> None:
        """Snapshot the owner's plain state, its schedules' and its parameter groups, for `undo`."""
        owners = [self.owner]
        for owner in owners:  # grows: a schedule may be made of schedules
            owners += getattr(owner, "_schedulers", ())
        groups = getattr(getattr(self.owner, "optimizer", None), "param_groups", ())
        self.before = [(g, dict(g)) for g in groups]
        for owner in owners:
            state = dict(owner.__dict__)
            copies = {k: v.copy() for k, v in state.items() if isinstance(v, (list, dict))}
            self.before.append((owner.__dict__, {**state, **copies}))

    def undo(self) -> None:
        for live, saved in self.before or ():
            live.clear()
            live.update(saved)


class TraceHost(TraceBuffers):
    """The part of a Trace that reads and runs Python at every call.

    host    reads and actions, in order
    noted   reads reported by `note_item` (observed.py)
    undo    drops state made while recording, should the recording be thrown away
    """

    def __init__(self) -> None:
        super().__init__()
        self.host: list[HostRead | HostAction] = []
        self.host_guards: list[HostGuard] = []
        self.array_inputs: dict[int, tuple[np.ndarray, Node]] = {}
        self.noted: list[tuple[dict, Any, Any]] = []
        self.undo: list[Callable[[], Any]] = []
        self._host_reads: dict[tuple, TracedNumber] = {}
        self._asked: dict[tuple, HostGuard] = {}
        self._random: dict[int, tuple[Node, int, Any]] = {}

    # -- reads -----------------------------------------------------------------------------------

    def host_number(self, key: tuple, read: Callable[[], Any], name: str) -> TracedNumber:
        """A number read at every call (a hyper-parameter): an input, so it never recompiles."""
        phase = sum(isinstance(item, HostAction) for item in self.host)
        found = self._host_reads.get((*key, phase))
        if found is None:
            value = read()
            category = weak_category(value)
            self.guard_host(read, is_a, category)  # as anything else it is no input of this graph
            node = placeholder(TensorType((), WEAK_DTYPE[category]), here())
            dtype = WEAK_DTYPE[category].np
            item = HostRead(read, node, dtype, phase)
            self.host.append(item)
            array = np.asarray(value, dtype)
            self.inputs.append(Input("host", node, item, lambda: array, name, (*key, phase)))
            found = self._host_reads[(*key, phase)] = TracedNumber(self, node, category, read)
        return found

    def guard_host(
        self, read: Callable[[], Any], kind: Callable[[Any, Any], bool], constant: Any
    ) -> bool:
        answer = bool(kind(read(), constant))
        guard = HostGuard(read, kind, constant, answer, here())
        if isinstance(read, ItemRead) and isinstance(constant, _COMPARED):
            # An optimiser asks it for every parameter: one fact is enough.
            bits = (*map(id, constant),) if isinstance(constant, list) else repr(constant)
            question = (id(read.holder), read.key, read.index, kind, type(constant), bits, answer)
            if self._asked.setdefault(question, guard) is not guard:
                return answer
        self.host_guards.append(guard)
        return answer

    def array_input(self, array: np.ndarray) -> Node:
        """A large NumPy array as an operand: an input, read at every call."""
        found = self.array_inputs.get(id(array))
        if found is None:
            node = placeholder(TensorType(array.shape, dtype_of(array.dtype)), here())
            item = HostArray(array)
            self.inputs.append(Input("host", node, item, item.array, "array", ("array", id(array))))
            found = self.array_inputs[id(array)] = (array, node)
        return found[1]

    def next_key(self, generator: Any) -> Tensor:
        state = self._random.get(id(generator))
        if state is None:
            node = placeholder(TensorType((3,), u32), here())
            self.inputs.append(
                Input(
                    "random",
                    node,
                    generator,
                    generator.snapshot,
                    "random",
                    ("random", id(generator)),
                )
            )
            state = (node, 0, generator)
        node, count, _ = state
        self._random[id(generator)] = (node, count + 1, generator)
        with _loc.at(here()):
            seed = ops.slice_(node, start=(0,), stop=(2,), step=(1,))
            position = ops.reshape(ops.slice_(node, start=(2,), stop=(3,), step=(1,)), shape=())
            if count:
                position = ops.add(position, ops.splat(count, TensorType((), u32)))
            return self.fresh(ops.fold_in(seed, position))

    @property
    def random_draws(self) -> list[tuple[Any, int]]:
        """(generator, number of operations recorded) for each stream drawn from."""
        return [(generator, count) for _, count, generator in self._random.values()]

    # -- actions ---------------------------------------------------------------------------------

    def run_host_action(self, method: Callable[..., Any], owner: Any, args: tuple[Any, ...]) -> Any:
        """Run `method(owner, *args)` outside the trace, now and on every call."""
        action = HostAction(method, args, owner)
        action.remember()
        self.host.append(action)
        token = set_mode(EAGER_NO_GRAD)
        try:
            return method(owner, *args)
        finally:
            reset_mode(token)

    def changed_by_host_action(self, fields: dict, name: str) -> bool:
        """Whether an action of this call has given `fields[name]` another value."""
        for item in self.host:
            if isinstance(item, HostAction):
                for live, saved in item.before or ():
                    if (
                        live is fields
                        and saved.get(name) is not fields[name]
                        and saved.get(name) != fields[name]
                    ):
                        return True
        return False

    def undo_host_actions(self) -> None:
        """Put back what host actions changed: the recording is thrown away, or run as a call."""
        for item in reversed(self.host):
            if isinstance(item, HostAction):
                item.undo()

    def discard(self) -> None:
        """Forget this recording: nothing it did to Python state beside the graph remains."""
        self.undo_host_actions()
        for undo in reversed(self.undo):
            undo()
