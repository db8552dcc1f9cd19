"""Which value lives in which storage, before time comes into it.

Views own nothing. What an output, a concatenation or a transpose needs in a certain place is
written there by whoever computes it, when that output, concatenation or transpose alone reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tracegrad.ir.graph import INPUT, NO_ATTRS, Graph, Node, Op
from tracegrad.ir.ops import OPS
from tracegrad.ir.ops.base import no_flops, tensor
from tracegrad.ir.ops.traits import CONTRACTION, IDENTITY_MARKER, SOURCE
from tracegrad.ir.types import TensorType, TupleType
from tracegrad.passes.memory.storage import (
    Storage,
    View,
    broadcast,
    c_strides,
    reshaped,
    sliced,
    transposed,
)
from tracegrad.passes.views import VIEW_OPS, base_of, viewed

# A value in a storage of its own. Made here, gone after code generation; in no saved graph.
COPY = Op("copy", infer=tensor, flops=no_flops, not_differentiable="is made after differentiation")


def _with_trait(trait: str) -> frozenset[str]:
    return frozenset(name for name, op in OPS.items() if op.has(trait))


CONSTANT_OPS = _with_trait(SOURCE)  # made once
_NO_CODE = CONSTANT_OPS | {"proj"}
_SAME = _with_trait(IDENTITY_MARKER)


@dataclass(frozen=True)
class Facts:
    """What a backend tells the planner about its code.

    overwrites  (node) -> pairs (result part, operand position): the result may take the storage of
                that operand, when both have one shape and dtype and nobody reads the operand later
    strided     (node) -> whether it can write into a non-contiguous view
    """

    overwrites: Callable[[Node], Iterable[tuple[int, int]]] = lambda node: ()
    strided: Callable[[Node], bool] = lambda node: False


@dataclass(eq=False)
class Placed:
    """A graph whose outputs own their storage, and the place of every value.

    views      of a node, or of each part of a several-result node
    copies     view nodes that must move elements after all (a reshape no stride can express)
    writes     output position -> number of the input whose array takes the new value
    """

    graph: Graph
    views: dict[Node, View | tuple[View, ...]]
    copies: set[Node] = field(default_factory=set)
    writes: dict[int, int] = field(default_factory=dict)

    def view(self, node: Node) -> View:
        view = self.views[node]
        assert isinstance(view, View), f"{node!r} has several parts"
        return view

    def parts(self, node: Node) -> tuple[View, ...]:
        view = self.views[node]
        return (view,) if isinstance(view, View) else view

    def is_step(self, node: Node) -> bool:
        """Whether code runs for this node at every call."""
        if node.op is INPUT or node.op.name in _NO_CODE:
            return False
        return node.op.name not in VIEW_OPS or node in self.copies


def copied(node: Node) -> Node:
    return Node(COPY, (node,), NO_ATTRS, node.type, node.loc)


def _key(node: Node) -> object:
    """Equal for two `proj` nodes of one part."""
    return (node.inputs[0], node.attrs["index"]) if node.op.name == "proj" else node


def separate_outputs(graph: Graph, writes: dict[int, int], again: frozenset[int]) -> Graph:
    """Every output gets a storage of its own: (x, x.T, input) -> (x, copy(x.T), copy(input)).

    `writes` as in Placed. `again`: outputs to be copied once more, because the step that computes
    them may not write where they go (see `schedule`).
    """
    outputs: list[Node] = []
    taken: set[object] = set()
    bases = [base_of(node) for node in graph.outputs]
    direct = {_key(node) for node, base in zip(graph.outputs, bases) if node is base}
    for position, (node, base) in enumerate(zip(graph.outputs, bases)):
        if position in writes and node is graph.inputs[writes[position]]:
            outputs.append(node)  # state written back unchanged
            continue
        owned = (
            base.op is not INPUT
            and base.op.name not in CONSTANT_OPS
            and _key(base) not in taken
            and (node is base or _key(base) not in direct)  # the value itself before views of it
            and node.type.size == base.type.size
            and (position not in writes or base is node)
        )
        if owned:
            taken.add(_key(base))
        new = node if owned else copied(node)
        outputs.append(copied(new) if position in again else new)
    if all(a is b for a, b in zip(outputs, graph.outputs)):
        return graph
    return graph.with_outputs(outputs)


def place(graph: Graph, writes: dict[int, int], facts: Facts) -> Placed:
    """A view for every value. `graph` has separate outputs; `writes` as in Placed."""
    placer = _Placer(graph, writes, facts)
    placer.wishes()
    placer.settle()
    return Placed(graph, placer.views, placer.copies, writes)


class _Placer:
    def __init__(self, graph: Graph, writes: dict[int, int], facts: Facts):
        self.graph, self.writes, self.facts = graph, writes, facts
        self.views: dict[Node, View | tuple[View, ...]] = {}
        self.copies: set[Node] = set()
        self.inputs = {
            node: Storage("input", node.type.nbytes, index, graph.input_names[index])
            for index, node in enumerate(graph.inputs)
        }
        self.readers: dict[Node, int] = dict.fromkeys(graph.nodes, 0)
        for node in graph.nodes:
            for operand in node.inputs:
                self.readers[operand] += 1
        for node in graph.outputs:
            self.readers[node] += 1
        self.targets: dict[Node, View] = {}  # where a reader would like the value
        self.forced: set[Node] = set()  # outputs: the value must be there

    def whole(self, node_type: TensorType, storage: Storage) -> View:
        shape = node_type.shape
        return View(storage, shape, c_strides(shape), 0, node_type.dtype)

    def fresh(self, node: Node, node_type: TensorType) -> View:
        return self.whole(node_type, Storage("arena", node_type.nbytes, label=node.op.name))

    def wishes(self) -> None:
        """From the outputs backwards: what the only reader of a value asks for."""
        graph, targets = self.graph, self.targets
        for position, node in enumerate(graph.outputs):
            if position in self.writes:
                source = graph.inputs[self.writes[position]]
                if node is source:
                    continue
                storage = self.inputs[source]
            else:
                storage = Storage(
                    "result", node.type.nbytes, position, graph.output_names[position]
                )
            targets[node] = self.whole(node.type, storage)
            self.forced.add(node)
        users = graph.users()
        for node in reversed(graph.nodes):
            name = node.op.name
            target = targets.get(node)
            if name == "concatenate":
                if target is None:
                    target = targets[node] = self.fresh(node, node.type)
                # Only the concatenation itself waits for the readers of a state's old value.
                if target.storage.kind != "input":
                    self._ask_slots(node, target)
            elif name in VIEW_OPS and viewed(node) not in targets:
                source = viewed(node)
                if target is None and self._stored_transposed(node, users):
                    targets[source] = self._before(node, self.fresh(node, node.type))
                elif target is not None and self.readers[source] == 1:
                    if (wish := _undone(node, target)) is not None:
                        targets[source] = wish

    def _ask_slots(self, node: Node, target: View) -> None:
        axis, start = node.attrs["axis"], 0
        for operand in node.inputs:
            size = operand.shape[axis]
            if self.readers[operand] == 1:
                self.targets[operand] = _slot(target, axis, start, size)
            start += size

    def _before(self, node: Node, view: View) -> View:
        wish = _undone(node, view)
        assert wish is not None, "a transpose can be undone"
        return wish

    def _stored_transposed(self, node: Node, users: dict[Node, list[Node]]) -> bool:
        """Whether a contraction should write its result the way its transpose reads it.

        It costs a matmul nothing, and saves a copy where the transpose is reshaped or the like;
        another contraction reads either order.
        """
        value = source = viewed(node)
        while source.op.name == "proj":
            source = source.inputs[0]
        return (
            node.op.name == "transpose"
            and source.op.has(CONTRACTION)
            and self.facts.strided(source)
            and any(not user.op.has(CONTRACTION) for user in users[node])
            and all(user is node or user.op.has(CONTRACTION) for user in users[value])
            and self.readers[value] == len(users[value])  # it is no output
        )

    def settle(self) -> None:
        """From the inputs forwards: where each value is, wishes granted where the code can."""
        for node in self.graph.nodes:
            name = node.op.name
            if node.op is INPUT:
                self.views[node] = self.whole(node.type, self.inputs[node])
            elif name in CONSTANT_OPS:
                self.views[node] = self._constant(node)
            elif name == "proj":
                self.views[node] = self._part(node)
            elif name in VIEW_OPS:
                self.views[node] = self._view(node)
            elif isinstance(node.type, TupleType):
                self.views[node] = self._several(node)
            else:
                self.views[node] = self._granted(node, node) or self.fresh(node, node.type)

    def _constant(self, node: Node) -> View:
        strides = c_strides(node.shape)
        if node.op.name == "iota":
            strides = tuple(int(axis == node.attrs["axis"]) for axis in range(node.ndim))
        elif node.attrs["value"].is_splat:
            strides = (0,) * node.ndim
        return View(Storage("constant", 0), node.shape, strides, 0, node.dtype)

    def _granted(self, node: Node, producer: Node) -> View | None:
        target = self.targets.get(node)
        if target is not None and (target.contiguous or self.facts.strided(producer)):
            return target
        return None

    def _several(self, node: Node) -> tuple[View, ...]:
        wanted: dict[int, View] = {}
        for reader in self.part_readers.get(node, ()):
            index = reader.attrs["index"]
            if index not in wanted and (view := self._granted(reader, node)) is not None:
                wanted[index] = view
        return tuple(
            wanted.get(index) or self.fresh(node, part)
            for index, part in enumerate(node.type.parts)
        )

    @cached_property
    def part_readers(self) -> dict[Node, list[Node]]:
        readers: dict[Node, list[Node]] = {}
        for node in self.graph.nodes:
            if node.op.name == "proj":
                readers.setdefault(node.inputs[0], []).append(node)
        return readers

    def _part(self, node: Node) -> View:
        parts = self.views[node.inputs[0]]
        assert isinstance(parts, tuple)
        part: View = parts[node.attrs["index"]]
        return part

    def _view(self, node: Node) -> View:
        source = self.views[viewed(node)]
        assert isinstance(source, View)
        view = _applied(node, source)
        if node in self.forced:
            target = self.targets[node]
            if view is None or not same_place(view, target):
                self.copies.add(node)
                return target
        if view is None:
            self.copies.add(node)
            return self._granted(node, node) or self.fresh(node, node.type)
        return view


def _slot(view: View, axis: int, start: int, size: int) -> View:
    """`size` indices of `axis` from `start` on."""
    shape = (*view.shape[:axis], size, *view.shape[axis + 1 :])
    offset = view.offset + start * view.strides[axis]
    return View(view.storage, shape, view.strides, offset, view.dtype)


def slots(node: Node, view: View) -> list[View]:
    """Where the operands of the concatenation `node`, which lives in `view`, belong."""
    axis, start, result = node.attrs["axis"], 0, []
    for operand in node.inputs:
        result.append(_slot(view, axis, start, operand.shape[axis]))
        start += operand.shape[axis]
    return result


def same_place(a: View, b: View) -> bool:
    if a.storage is not b.storage or a.offset != b.offset or a.shape != b.shape:
        return False
    return all(n == 1 or s == t for n, s, t in zip(a.shape, a.strides, b.strides))


def _applied(node: Node, view: View) -> View | None:
    """What the view op `node` makes of `view`; None where only a copy will do."""
    name, attrs = node.op.name, node.attrs
    if name == "reshape":
        return reshaped(view, attrs["shape"])
    if name == "transpose":
        return transposed(view, attrs["perm"])
    if name == "slice":
        return sliced(view, attrs["start"], attrs["stop"], attrs["step"])
    if name == "broadcast_to":
        return broadcast(view, attrs["shape"], attrs["dims"])
    return view  # markers


def _undone(node: Node, view: View) -> View | None:
    """The view v of the operand for which `node` makes `view` of v; None where there is none."""
    name = node.op.name
    if name == "reshape":
        return reshaped(view, viewed(node).shape)
    if name == "transpose":
        perm = node.attrs["perm"]
        return transposed(view, tuple(perm.index(axis) for axis in range(len(perm))))
    return None if name in ("slice", "broadcast_to") else view
