"""Recording: Python runs once, its tensor operations become one trace of IR nodes.

Values are computed on demand, when Python asks for one (`bool(t)`, `t.item()`): from the call's
real inputs, incrementally. Every such answer becomes a guard. State is captured by storage: a
tensor from outside that the trace touches is an input, one that it rebinds is an output. Nothing
real is changed by recording itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.ir import loc as _loc
from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, placeholder, postorder
from tracegrad.ir.types import TensorType, dtype_of, u32
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.errors import ShapeError, UnsupportedError
from tracegrad.tracer.inplace import check_allowed, check_view
from tracegrad.tracer.locate import here
from tracegrad.tracer.numbers import TracedNumber
from tracegrad.tracer.program import WEAK_DTYPE
from tracegrad.tracer.state import EAGER_NO_GRAD, Mode, get_mode, reset_mode, set_mode
from tracegrad.tracer.storage import Storage
from tracegrad.tracer.tape import Leaf, weak_category
from tracegrad.tracer.tensor import Tensor, _new, as_tensor_operand
from tracegrad.tracer.trace_autograd import TraceAutograd
from tracegrad.tracer.traced import Cell, TracedValue
from tracegrad.tracer.views import ViewStep, emit_chain, emit_write_chain, mark_unwritable

MAX_CONSTANT_BYTES = (
    64 * 1024
)  # larger NumPy operands are inputs of the graph, smaller ones constants


@dataclass(eq=False)
class Input:
    """One input of the trace.

    kind    "argument", "state", "random" or "host"
    source  the captured Tensor or Storage, the generator, or the HostRead
    key     identifies the same input in another recording of the function
    tensor  for arguments and state: a tensor through which the storage was reached
    """

    kind: str
    node: Node
    source: Any
    array: Callable[[], np.ndarray]
    name: str
    key: tuple
    tensor: Any = None


@dataclass(eq=False)
class Guard:
    """An answer that Python was given: later runs follow this path only while they give the same
    one.
    """

    node: Node
    kind: str  # "bool": the truth of a 0-d bool; "bits": the exact bytes
    answer: Any
    loc: _loc.Loc
    why: str


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


@dataclass
class HostRead:
    """A number read at every call, and the graph input that takes it."""

    read: Callable[[], Any]
    node: Node
    dtype: np.dtype
    phase: int  # host actions before it

    def array(self) -> np.ndarray:
        return np.asarray(self.read(), self.dtype)


@dataclass
class HostArray:
    """A NumPy array of the user's, copied at every call: it may be written while a backend still
    reads it.
    """

    source: np.ndarray

    def array(self) -> np.ndarray:
        return self.source.copy()


class Trace(TraceAutograd):
    """The recording of one call.

    Made by the runtime; operations reach it through the ambient mode.
    """

    def __init__(self, max_unroll: int = 10_000) -> None:
        super().__init__()
        self.max_unroll = max_unroll
        self.touched_by_capture: dict[
            int, Any
        ] = {}  # storages of arguments that the function also reached itself
        self._arguments: set[int] = set()
        self.inputs: list[Input] = []
        self.slots: dict[
            int, Any
        ] = {}  # tensors that are read by name at every call; set by the runtime
        self.array_inputs: dict[int, tuple[np.ndarray, Node]] = {}
        self.guards: list[Guard] = []
        self.host_guards: list[HostGuard] = []
        self.host: list[HostRead | HostAction] = []
        self.cells: dict[int, Cell] = {}
        self._owners: list[Any] = []  # keeps captured objects (and so their ids) alive
        self._host_reads: dict[tuple, TracedNumber] = {}
        self._values: dict[Node, np.ndarray] = {}
        self._random: dict[int, tuple[Node, int, Any]] = {}
        self.noted: list[tuple[dict, Any, Any]] = []  # reads reported by `note_item`
        self.attribute_names: dict[int, str] = {}  # of captured tensors by id, as they were read
        self.undo: list[
            Callable[[], Any]
        ] = []  # drops state made while recording, if the recording is thrown away

    # -- making traced tensors -------------------------------------------------------------------

    def fresh(self, node: Node) -> Tensor:
        """A traced tensor with a buffer of its own."""
        tensor = _new(Tensor)
        tensor._traced = TracedValue(self, Cell(node), (), 0, node, True)
        return tensor

    def adopt(self, tensor: Tensor) -> Tensor:
        """A tensor just made from Python values: a constant of the graph."""
        with _loc.at(here()):
            node = ops.literal(tensor._data)
        result = self.fresh(node)
        if tensor._entry is not None:
            self.require_grad(result._traced, True)
        return result

    # -- capturing -------------------------------------------------------------------------------

    def declare_argument(self, tensor: Tensor, name: str) -> None:
        """An argument of the call, before the function runs; aliases of an earlier one share its
        input.
        """
        self._arguments.add(id(tensor))
        self.cell_of(tensor, "argument", name)

    def cell_of(self, tensor: Tensor, kind: str = "state", name: str = "") -> Cell:
        traced = tensor._traced
        if traced is not None:
            if traced.trace is not self:
                tensor._traced.trace.leaked(tensor)
            return traced.cell  # type: ignore[no-any-return]
        owner = tensor._storage if tensor._storage is not None else tensor
        cell = self.cells.get(id(owner))
        if cell is None and owner is not tensor:
            # The storage may have been made after the tensor itself was captured.
            cell = self.cells.get(id(tensor)) if not tensor._chain else None
        if cell is not None and id(tensor) not in self._arguments:
            self.touched_by_capture[id(owner)] = owner
        if cell is None:
            self._owners.append((owner, tensor))
            if owner is tensor:
                tensor._captured = True  # a storage that it gets later matters to compiled calls
            base = owner.array if isinstance(owner, Storage) else None
            shape = base.shape if base is not None else tuple(tensor.shape)
            dtype = dtype_of(base.dtype) if base is not None else tensor.dtype
            loc = here()
            node = placeholder(TensorType(shape, dtype), loc)
            key = (kind, name) if kind == "argument" else (kind, id(owner))
            self.inputs.append(Input(kind, node, owner, reader_of(owner), name, key, tensor))
            cell = self.cells[id(owner)] = Cell(node, owner, tensor._family)
            self._note_leaf(node, tensor)
        return cell

    def _note_leaf(self, node: Node, tensor: Tensor) -> bool:
        """Whether `node`, the base value of the tensor's family, wants a gradient; then it is a
        leaf of the trace.
        """
        storage = tensor._storage
        entry = storage.entries.get(tensor._family) if storage is not None else tensor._entry
        if entry is None:
            return False
        leaf = entry.tensor() if isinstance(entry, Leaf) else None
        self.add_leaf(node, leaf if leaf is not None else tensor, outer=leaf is None)
        return True

    def node_of(self, tensor: Tensor) -> Node:
        """The current value of a tensor, traced or real, as a node of this trace."""
        traced = tensor._traced
        if traced is not None:
            if traced.trace is not self:
                traced.trace.leaked(tensor)
            return traced.node  # type: ignore[no-any-return]
        cell = self.cell_of(tensor)
        base = cell.nodes.get(tensor._family)
        if base is None:  # a family first seen now: the same data with its own history
            with _loc.at(here()):
                base = ops.detach(cell.value)
            self._note_leaf(base, tensor)
            cell.nodes[tensor._family] = base
        if not tensor._chain:
            return base
        with _loc.at(here()):
            node = emit_chain(tensor._chain, base)
        if tensor._entry is not None:
            self.mark_active((node,), (base,))
        return node

    def leaked(self, tensor: Tensor) -> None:
        from tracegrad.tracer.storage import bring_here

        bring_here(tensor)

    # -- operations ------------------------------------------------------------------------------

    def apply(self, op: Any, operands: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
        """Record one user-level op.

        Raises ShapeError as eager does, UnsupportedError for data-dependent shapes.
        """
        loc = here()
        if op.eager_only:
            self.refuse(
                f"{op.name}() while recording",
                "compute it outside the compiled function",
                op.eager_only,
            )
        values: list[Any] = []
        nodes: list[Node] = []
        with _loc.at(loc):
            for operand in operands:
                if operand is None:
                    values.append(None)
                elif isinstance(operand, Tensor):
                    nodes.append(self.node_of(operand))
                    values.append(nodes[-1])
                else:
                    values.append(self.weak(operand, op.name, nodes))
            try:
                outputs = op.emit_on(tuple(values), attrs)
            except IRTypeError as error:
                shown = ", ".join(str(n.type) for n in nodes)
                raise ShapeError(f"{op.name}({shown}): {error}", where=loc) from None
            grad = get_mode().grad
            if grad:
                # A leaf handed on as it is (a clone) is a new tensor, and no leaf.
                outputs = tuple(
                    ops.reshape(n, shape=n.shape) if n in self.leaf_of else n for n in outputs
                )
                self.mark_active(outputs, nodes)
            else:
                outputs = tuple(
                    ops.detach(n) if any(n is m for m in nodes) and self.is_tracked(n) else n
                    for n in outputs
                )
        return op.pack([self.fresh(node) for node in outputs])

    def weak(self, operand: Any, name: str, nodes: list[Node]) -> Any:
        if isinstance(operand, TracedNumber):
            operand._live()
            return Weak(operand.node, operand.category)
        if not isinstance(operand, (bool, int, float, complex)):
            if isinstance(operand, np.ndarray) and operand.nbytes > MAX_CONSTANT_BYTES:
                nodes.append(self.array_input(operand))
                return nodes[-1]
            operand = as_tensor_operand(operand, name)
            if isinstance(operand, Tensor):
                nodes.append(self.node_of(self.adopt(operand)))
                return nodes[-1]
        category = weak_category(operand)
        return Weak(ops.splat(operand, TensorType((), WEAK_DTYPE[category])), category)

    def array_input(self, array: np.ndarray) -> Node:
        """A large NumPy array as an operand: an input, read at every call."""
        found = self.array_inputs.get(id(array))
        if found is None:
            node = placeholder(TensorType(array.shape, dtype_of(array.dtype)), here())
            item = HostArray(array)
            self.inputs.append(Input("host", node, item, item.array, "array", ("array", id(array))))
            found = self.array_inputs[id(array)] = (array, node)
        return found[1]

    def make_view(self, tensor: Tensor, step: ViewStep) -> Tensor:
        cell, node = self.cell_of(tensor), self.node_of(tensor)
        chain, family = place_of(tensor)
        grad = get_mode().grad
        with _loc.at(here()):
            result_node = step.emit(node)
        if grad:
            self.mark_active((result_node,), (node,))
        result = _new(Tensor)
        result._traced = TracedValue(self, cell, (*chain, step), family, result_node, grad)
        mark_unwritable(result, tensor, grad)
        return result

    def detach(self, tensor: Tensor) -> Tensor:
        cell = self.cell_of(tensor)
        self.node_of(tensor)
        chain, family = place_of(tensor)
        base = cell.nodes[family]
        with _loc.at(here()):
            new = ops.detach(base)
            node = emit_chain(chain, new)
        number = max(cell.nodes) + 1
        cell.nodes[number] = new
        result = _new(Tensor)
        result._traced = TracedValue(self, cell, chain, number, node, False)
        return result

    def write(self, target: Tensor, value: Tensor) -> None:
        """An in-place write: the cell gets a new base value; see inplace.py for the rules."""
        cell = self.cell_of(target)
        if cell.of_numpy:
            self.refuse(
                "a write on from_numpy(array) while recording",
                "write on a clone",
                "the array is outside the graph",
            )
        grad = get_mode().grad
        old_view, new_view = self.node_of(target), self.node_of(value)
        self.check_write(target, old_view, grad, self.is_tracked(new_view))
        chain, family = place_of(target)
        base = cell.nodes[family]
        tracked = grad and (self.is_tracked(new_view) or self.is_tracked(base))
        with _loc.at(here()):
            data = emit_write_chain(chain, base, new_view)
            if data is base:
                return
            if tracked:
                if data in self.leaf_of:  # the written tensor does not become the leaf copied from
                    data = ops.reshape(data, shape=data.shape)
                self.mark_active((data,), (base, new_view))
                if not self.is_tracked(data):
                    # Overwritten by a constant: still tracked, though no gradient reaches the old
                    # value.
                    data = ops.detach(data)
                    self.active.add(data)
            for number, old in list(cell.nodes.items()):
                if number == family and tracked:
                    cell.nodes[number] = data
                elif old in self.leaf_of:
                    fresh = ops.detach(
                        data
                    )  # a node of its own: `data` may be another tensor's value
                    self.leaf_moved(old, fresh)
                    cell.nodes[number] = fresh
                elif self.is_tracked(old):
                    cell.nodes[number] = ops.rebind(old, data)
                    self.active.add(cell.nodes[number])
                else:
                    cell.nodes[number] = ops.detach(data) if self.is_tracked(data) else data
        cell.version += 1
        cell.written = True

    def written_node(self, tensor: Tensor) -> Node | None:
        """The current value of a real tensor if this trace has written to its memory, else None."""
        owner = tensor._storage if tensor._storage is not None else tensor
        cell = self.cells.get(id(owner)) or self.cells.get(id(tensor))
        return self.node_of(tensor) if cell is not None and cell.written else None

    def check_write(self, target: Tensor, node: Node, grad: bool, tracked: bool) -> None:
        if target._traced is None:
            check_allowed(target, grad, tracked)
            return
        from tracegrad.tracer.errors import InPlaceError
        from tracegrad.tracer.views import Expand

        traced = target._traced
        if any(isinstance(step, Expand) for step in traced.chain):
            raise InPlaceError(
                "in-place write on an expanded tensor", where=here(), fix="write on x.clone()"
            )
        if grad and (node in self.leaf_of or traced.cell.nodes[traced.family] in self.leaf_of):
            raise InPlaceError(
                "in-place write on a leaf that requires grad (or a view of one)", where=here(),
                fix="write under tg.no_grad(), or on a clone",
            )  # fmt: skip
        if grad:
            check_view(target, tracked or self.is_tracked(traced.cell.nodes[traced.family]))

    # -- numbers, guards, values on demand -------------------------------------------------------

    def number(self, node: Node, category: str) -> TracedNumber:
        return TracedNumber(self, node, category)

    def as_number(self, value: Any) -> TracedNumber:
        if isinstance(value, TracedNumber):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        category = weak_category(value)
        return self.number(ops.splat(value, TensorType((), WEAK_DTYPE[category])), category)

    def number_of(self, tensor: Tensor) -> TracedNumber:
        """`tensor.item()`: one element as a number of the graph."""
        node = self.node_of(tensor)
        if node.type.size != 1:
            raise ShapeError(
                f"item() needs one element, this tensor has {node.type.size}", where=here()
            )
        dtype = node.dtype
        category = "bool" if dtype.is_bool else "int" if dtype.is_int else "float"
        with _loc.at(here()):
            scalar = ops.reshape(node, shape=()) if node.shape else node
            scalar = ops.detach(scalar) if self.is_tracked(scalar) else scalar
            wide = WEAK_DTYPE[category]
            scalar = scalar if dtype is wide else ops.cast(scalar, dtype=wide)
        return self.number(scalar, category)

    def guard_bool(self, node: Node) -> bool:
        answer = bool(self.evaluate((node,))[0])
        self.check_unroll()
        self.guards.append(Guard(node, "bool", answer, here(), "a branch on a tensor's value"))
        return answer

    def check_unroll(self) -> None:
        if len(self.guards) >= self.max_unroll:
            self.refuse(
                f"a compiled function branched more than {self.max_unroll} times on tensor values",
                "use tg.while_loop, which keeps the loop in the graph, or raise max_unroll",
                "every branch in Python is a segment of the compiled program",
            )

    def guard_bits(self, node: Node, why: str) -> np.ndarray:
        array = self.evaluate((node,))[0]
        self.check_unroll()
        self.guards.append(Guard(node, "bits", (array.shape, array.tobytes()), here(), why))
        return array

    def observe_array(self, tensor: Tensor, why: str) -> np.ndarray:
        return self.guard_bits(self.node_of(tensor), why).copy()

    def evaluate(self, nodes: Iterable[Node]) -> list[np.ndarray]:
        """Values of nodes, computed now by the plain kernels; what was computed before is reused."""
        from tracegrad.tracer.program import evaluate_nodes

        nodes = tuple(nodes)
        values = self._values
        for item in self.inputs:
            if item.node not in values:
                values[item.node] = item.array()
        evaluate_nodes(postorder(nodes, stop=values.__contains__), values)
        return [values[node] for node in nodes]

    # -- host inputs, host actions, random state -------------------------------------------------

    def host_number(self, key: tuple, read: Callable[[], Any], name: str) -> TracedNumber:
        """A Python number read at every call (a hyper-parameter): an input, so that its changes
        never recompile.
        """
        phase = sum(isinstance(item, HostAction) for item in self.host)
        found = self._host_reads.get((*key, phase))
        if found is None:
            category = weak_category(read())
            node = placeholder(TensorType((), WEAK_DTYPE[category]), here())
            dtype = WEAK_DTYPE[category].np
            item = HostRead(read, node, dtype, phase)
            self.host.append(item)
            value = np.asarray(read(), dtype)
            self.inputs.append(Input("host", node, item, lambda: value, name, (*key, phase)))
            found = self._host_reads[(*key, phase)] = TracedNumber(self, node, category, read)
        return found

    def guard_host(
        self, read: Callable[[], Any], kind: Callable[[Any, Any], bool], constant: Any
    ) -> bool:
        answer = bool(kind(read(), constant))
        self.host_guards.append(HostGuard(read, kind, constant, answer, here()))
        return answer

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
        """Put back what host actions changed: this recording is thrown away, or will be run as a
        call.
        """
        for item in reversed(self.host):
            if isinstance(item, HostAction):
                item.undo()

    def discard(self) -> None:
        """Forget this recording: nothing it did to Python state beside the graph remains."""
        self.undo_host_actions()
        for undo in reversed(self.undo):
            undo()

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

    def refuse(self, what: str, fix: str, why: str = "it cannot be part of a static graph") -> None:
        raise UnsupportedError(what, where=here(), why=why, fix=fix)


def place_of(tensor: Tensor) -> tuple[tuple[ViewStep, ...], int]:
    traced = tensor._traced
    return (traced.chain, traced.family) if traced is not None else (tensor._chain, tensor._family)


def reader_of(owner: Any) -> Callable[[], np.ndarray]:
    if isinstance(owner, Storage):
        return lambda: owner.array
    return lambda: owner._data


def recording_mode(trace: Trace, grad: bool) -> Mode:
    return Mode(grad, trace)
