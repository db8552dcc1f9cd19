"""The Python side of a trace: numbers and arrays read at every call, actions run at every call.

A hyper-parameter becomes an input of the graph, so that its changes never recompile; a schedule's
step is run again by every call, in order with the reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.graph import INPUT, Node, placeholder, postorder
from tracegrad.ir.types import TensorType, dtype_of, u32
from tracegrad.tracer.eager.program import WEAK_DTYPE, evaluate_nodes
from tracegrad.tracer.locate import here
from tracegrad.tracer.observed import ItemRead
from tracegrad.tracer.state import EAGER_NO_GRAD, reset_mode, set_mode
from tracegrad.tracer.tape.entries import weak_category
from tracegrad.tracer.tensor import Tensor
from tracegrad.tracer.trace.buffers import Input, TraceBuffers
from tracegrad.tracer.trace.numbers import TracedNumber, is_a, same_bits

_COMPARED = (int, float, str, list, type(None))


@dataclass(eq=False)
class HostRead:
    """A number read at every call, and the graph input that takes it.

    found  the number that the recording read
    sent   the number of the last call on XLA, and its array there once it was met twice
    """

    read: Callable[[], Any]
    node: Node
    dtype: np.dtype
    phase: int  # host actions before it
    found: Any
    sent: tuple[Any, Any] = (None, None)

    def __call__(self) -> Any:
        return self.found

    def value(self, numbers: dict[int, Any]) -> Any:
        return numbers[id(self)]


@dataclass(eq=False)
class HostFormula:
    """A number that follows from numbers read at every call, and is wanted in Python."""

    order: tuple[Node, ...]  # all that has to be computed; the number last
    reads: tuple[HostRead, ...]

    @property
    def phase(self) -> int:
        return max((item.phase for item in self.reads), default=0)

    def __call__(self) -> Any:
        return self.value({id(item): item.found for item in self.reads})

    def read(self) -> Any:
        """The number as it is now."""
        return self.value({id(item): item.read() for item in self.reads})

    def value(self, numbers: dict[int, Any]) -> Any:
        """The number, from those read in a call, by the id of their HostRead."""
        values = {item.node: np.asarray(numbers[id(item)], item.dtype) for item in self.reads}
        evaluate_nodes(self.order, values)
        return values[self.order[-1]].item()


@dataclass
class HostArray:
    """A NumPy array of the user's, copied at every call: it may be written during a run."""

    source: np.ndarray

    def array(self) -> np.ndarray:
        return self.source.copy()


@dataclass(eq=False)
class HostGuard:
    """An answer that needs no graph: `compare(read(), constant)` was `answer`.

    number  asked of what was read here, whatever is there now; set for a question after a host action
    """

    read: Any  # called for the answer, unless there is a `number`
    compare: Callable[[Any, Any], bool]
    constant: Any
    answer: bool
    loc: _loc.Loc
    number: HostRead | HostFormula | None = None
    phase: int = 0  # host actions before it

    def holds(self, numbers: dict[int, Any]) -> bool:
        """Whether the answer is the same; `numbers`: those read in this call, by id."""
        try:
            value = self.read() if self.number is None else self.number.value(numbers)
            return bool(self.compare(value, self.constant)) is self.answer
        except (LookupError, TypeError):  # it is there no more, or is no number
            return False


@dataclass(eq=False)
class HostAction:
    """Python to run on every call, in order with the host reads (a learning-rate schedule's step).

    args  its arguments; HostFormulas among them are computed at every call
    """

    method: Callable[..., Any]
    args: tuple[Any, ...]
    owner: Any
    before: list[tuple[Any, Any]] | None = None

    def run(self, numbers: dict[int, Any]) -> Any:
        return self.method(self.owner, *known(self.args, numbers))

    def remember(self) -> None:
        """Snapshot the owner's plain state, its schedules' and its parameter groups, for `undo`."""
        if isinstance(self.owner, dict):
            self.before = [
                (self.owner, {k: dict.get(self.owner, k) for k in dict.keys(self.owner)})
            ]
            return
        owners = [self.owner]
        for owner in owners:  # grows: a schedule may be made of schedules
            owners += getattr(owner, "_schedulers", ())
        groups = getattr(getattr(self.owner, "optimizer", None), "param_groups", ())
        self.before = [(g, {k: dict.get(g, k) for k in dict.keys(g)}) for g in groups]
        for owner in owners:
            state = dict(owner.__dict__)
            copies = {k: v.copy() for k, v in state.items() if isinstance(v, (list, dict))}
            self.before.append((owner.__dict__, {**state, **copies}))

    def undo(self) -> None:
        for live, saved in self.before or ():
            dict.clear(live)
            dict.update(live, saved)


def known(value: Any, numbers: dict[int, Any]) -> Any:
    """A host action's argument, with numbers for the HostFormulas in it."""
    if isinstance(value, HostFormula):
        return value.value(numbers)
    if type(value) in (tuple, list):
        return type(value)(known(item, numbers) for item in value)
    if type(value) is dict:
        return {key: known(item, numbers) for key, item in value.items()}
    return value


@dataclass(eq=False)
class Stream:
    """A random stream that the recording draws from.

    position  when Python asked for a value last: counted on from there, the turns of a loop are alike
    since     draws after `position`; `drawn`: in all
    """

    generator: Any
    state: Node
    position: Node
    since: int = 0
    drawn: int = 0

    def now(self) -> Node:
        if not self.since:
            return self.position
        return ops.add(self.position, ops.splat(self.since, TensorType((), u32)))


class TraceHost(TraceBuffers):
    """The part of a Trace that reads and runs Python at every call.

    host          reads, actions, and what was asked after an action, in order
    host_guards   what was asked before any action
    array_inputs  large NumPy operands, with their inputs, by the array's id
    phase         number of actions so far
    noted         reads reported by `note_item` (observed.py)
    watch         see `recording_watch` (observed.py); set by the runtime
    grad_left     the gradient mode that the function left behind, if it is another than before
    undo          drops state made while recording, should the recording be thrown away
    """

    def __init__(self) -> None:
        super().__init__()
        self.host: list[HostRead | HostAction | HostGuard] = []
        self.phase = 0
        self.grad_left: bool | None = None
        self.watch: Any = None
        self.host_guards: list[HostGuard] = []
        self.array_inputs: dict[int, tuple[np.ndarray, Node]] = {}
        self._numbers_given = 0
        self.noted: list[tuple[dict, Any, Any]] = []
        self.undo: list[Callable[[], Any]] = []
        self._host_reads: dict[tuple, TracedNumber] = {}
        self._asked: dict[tuple, HostGuard] = {}
        self._streams: dict[int, Stream] = {}

    # -- reads -----------------------------------------------------------------------------------

    def host_number(self, key: tuple, read: Callable[[], Any], name: str) -> TracedNumber:
        """A number read at every call (a hyper-parameter): an input, so it never recompiles."""
        found = self._host_reads.get((*key, self.phase))
        if found is None:
            value = read()
            category = weak_category(value)
            node = placeholder(TensorType((), WEAK_DTYPE[category]), here())
            dtype = WEAK_DTYPE[category].np
            item = HostRead(read, node, dtype, self.phase, value)
            self.host.append(item)
            self.guard_host(item, is_a, category)  # as anything else it is no input of this graph
            array, place = np.asarray(value, dtype), (*key, self.phase)
            self.inputs.append(Input("host", node, item, lambda: array, name, place))
            found = self._host_reads[place] = TracedNumber(self, node, category, item)
        return found

    def guard_host(
        self, read: Callable[[], Any], compare: Callable[[Any, Any], bool], constant: Any
    ) -> bool:
        """The answer to a question about Python's state, or about a number read before."""
        answer = bool(compare(read(), constant))
        number = read if isinstance(read, HostRead | HostFormula) else None
        place = read if number is None else number.read
        phase = self.phase if number is None else number.phase
        guard = HostGuard(
            place, compare, constant, answer, here(), number if phase else None, phase
        )
        if isinstance(place, ItemRead) and isinstance(constant, _COMPARED):
            # An optimiser asks it for every parameter: one fact is enough.
            bits = (*map(id, constant),) if isinstance(constant, list) else repr(constant)
            where = (id(place.holder), place.key, place.index, phase)
            question = (*where, compare, type(constant), bits, answer)
            if self._asked.setdefault(question, guard) is not guard:
                return answer
        (self.host if phase else self.host_guards).append(guard)
        return answer

    def host_of(self, number: TracedNumber) -> HostRead | HostFormula | None:
        """How Python finds the number without the graph, if it can."""
        if number.host is not None:
            known: Any = number.host
            return known
        formula = self.host_formula(number.node)
        return formula if formula is not None and formula.reads else None

    def guard_late(self, node: Node) -> np.ndarray | None:
        """A node's value after a host action, if it follows from numbers that Python reads."""
        formula = self.host_formula(node) if self.phase and not node.shape else None
        if formula is None:
            return None
        found = formula.value(self._numbers_found())
        self.host.append(HostGuard(formula, same_bits, found, True, here(), formula, self.phase))
        return np.asarray(found, node.dtype.np)

    def _numbers_found(self) -> dict[int, Any]:
        return {id(item): item.found for item in self.host if isinstance(item, HostRead)}

    def array_input(self, array: np.ndarray) -> Node:
        """A large NumPy array as an operand: an input, read at every call."""
        found = self.array_inputs.get(id(array))
        if found is None:
            node = placeholder(TensorType(array.shape, dtype_of(array.dtype)), here())
            item = HostArray(array)
            self.inputs.append(Input("host", node, item, item.array, "array", ("array", id(array))))
            found = self.array_inputs[id(array)] = (array, node)
        return found[1]

    def number_input(self, value: np.ndarray) -> Node:
        """A number that is the same in all calls of this path, as an input."""
        node = placeholder(TensorType((), dtype_of(value.dtype)), here())
        item = HostArray(value)
        key = ("number", self._numbers_given, value.tobytes())
        self._numbers_given += 1
        self.inputs.append(Input("host", node, item, item.array, "number", key))
        return node

    def next_key(self, generator: Any) -> Tensor:
        stream = self._streams.get(id(generator))
        with _loc.at(here()):
            if stream is None:
                node = placeholder(TensorType((3,), u32), here())
                key = ("random", id(generator))
                array = generator.snapshot
                self.inputs.append(Input("random", node, generator, array, "random", key))
                position = ops.slice_(node, start=(2,), stop=(3,), step=(1,))
                position = ops.reshape(position, shape=())
                stream = self._streams[id(generator)] = Stream(generator, node, position)
                if self.guards:
                    self.guards[-1].streams[key] = position
            seed = ops.slice_(stream.state, start=(0,), stop=(2,), step=(1,))
            position = stream.now()
            stream.since += 1
            stream.drawn += 1
            return self.fresh(ops.fold_in(seed, position))

    def random_positions(self) -> list[Node]:
        """Where random streams stand while Python asks for a value: they count on from there."""
        moved = [stream for stream in self._streams.values() if stream.since]
        for stream in moved:
            with _loc.at(here()):
                stream.position, stream.since = stream.now(), 0
        return [stream.position for stream in moved]

    @property
    def random_draws(self) -> list[tuple[Any, int]]:
        """(generator, number of operations recorded) for each stream drawn from."""
        return [(stream.generator, stream.drawn) for stream in self._streams.values()]

    # -- actions ---------------------------------------------------------------------------------

    def run_host_action(self, method: Callable[..., Any], owner: Any, args: tuple[Any, ...]) -> Any:
        """Run `method(owner, *args)` outside the trace, now and on every call."""
        what = (
            "a write to an optimizer's param_groups"
            if isinstance(owner, dict)
            else f"{type(owner).__name__}.{method.__name__}()"
        )
        action = HostAction(method, self._host_arguments(args, what), owner)
        action.remember()
        numbers = self._numbers_found()
        self.host.append(action)
        self.phase += 1
        token = set_mode(EAGER_NO_GRAD)
        try:
            return action.run(numbers)
        finally:
            reset_mode(token)

    def _host_arguments(self, value: Any, what: str) -> Any:
        """What a host action is given at every call; `what` names it."""
        if type(value) in (tuple, list):
            return type(value)(self._host_arguments(item, what) for item in value)
        if type(value) is dict:
            return {key: self._host_arguments(item, what) for key, item in value.items()}
        if isinstance(value, TracedNumber):
            formula = self.host_formula(value.live().node)
            if formula is not None:
                return formula
        elif not isinstance(value, Tensor) or (
            value._traced is None and not self.is_argument(value)
        ):
            return value
        self.refuse(
            f"{what} with a value that is known only when the graph has run",
            "do it outside the compiled function: with a number that the step returns, or before the "
            "step, with the number itself in place of a tensor (lr.item())",
            "it is Python's state, changed by Python before the graph runs",
        )

    def host_formula(self, node: Node) -> HostFormula | None:
        """How to compute a node from numbers read at every call, or None if it needs more."""
        order = postorder((node,))
        sources = {item.node: item.source for item in self.inputs}
        reads = [sources[n] for n in order if n in sources]
        if not all(isinstance(item, HostRead) for item in reads):
            return None
        if any(n.op is INPUT for n in order if n not in sources):
            return None
        return HostFormula(tuple(order), tuple(reads))

    def reached_by_host_action(self, fields: dict) -> bool:
        """Whether an action of this call may have changed `fields`, in this run or in another."""
        return any(live is fields for live, _ in self._before_actions())

    def changed_by_host_action(self, fields: dict, name: str) -> bool:
        """Whether an action of this call has given `fields[name]` another value."""
        return any(
            saved.get(name) is not fields[name] and saved.get(name) != fields[name]
            for live, saved in self._before_actions()
            if live is fields
        )

    def _before_actions(self) -> Iterator[tuple[Any, Any]]:
        for item in self.host:
            if isinstance(item, HostAction):
                yield from item.before or ()

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
