"""Vectorisation: one graph for one example becomes one graph for `size` examples.

Before: y: f32[3] = tanh(x: f32[3])        After: y: f32[size,3] = tanh(x: f32[size,3])

Inside the result the batch axis is always axis 0. What depends on no batched input stays as it is
and is shared by all examples, random bits included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracegrad.ir import ops
from tracegrad.ir.errors import IRError
from tracegrad.ir.graph import INPUT, Graph, Node, placeholder, postorder, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.types import TensorType, TupleType


class BatchingError(IRError, NotImplementedError):
    """An op cannot be vectorised; the message names it and the user's line."""


@dataclass(frozen=True)
class Lane:
    """What a node became: with `batched`, axis 0 of `node` runs over the examples."""

    node: Node
    batched: bool


# Several-result ops become one lane per part.
Lanes = tuple[Lane, ...]
Value = Lane | Lanes


def vmap(graph: Graph, in_axes: Sequence[int | None], size: int) -> Graph:
    """`graph` over `size` examples at once.

    in_axes  per input: the axis of the new input that runs over the examples, or None for an input
             that all of them share. Axes count in the new input: 0 <= axis <= rank of the old one.

    Every output has the examples on axis 0; names and roles stay. Raises BatchingError.
    """
    if len(in_axes) != len(graph.inputs):
        raise BatchingError(f"{len(in_axes)} in_axes for {len(graph.inputs)} inputs")
    values: dict[Node, Value] = {}
    inputs = []
    for node, axis, name in zip(graph.inputs, in_axes, graph.input_names):
        with at(node.loc.through("vmap")):
            new, values[node] = _batched_input(node, axis, name, size)
        inputs.append(new)
    batch = Batch(size, values)
    batch.expand(node for node in graph.nodes if node.op is not INPUT)
    outputs = []
    for node in graph.outputs:
        lane = batch.lane(node)
        with at(node.loc.through("vmap")):
            outputs.append(batch.spread(lane))
    return graph.replace(inputs=tuple(inputs), outputs=tuple(outputs), name=f"{graph.name}.vmap")


def _batched_input(node: Node, axis: int | None, name: str, size: int) -> tuple[Node, Lane]:
    shape = node.shape
    if axis is None:
        new = placeholder(node.type)
        return new, Lane(new, False)
    if not 0 <= axis <= len(shape):
        raise BatchingError(f"in_axes {axis} for input {name!r} of rank {len(shape)}")
    new = placeholder(TensorType((*shape[:axis], size, *shape[axis:]), node.dtype))
    front = (axis, *(k for k in range(new.ndim) if k != axis))
    return new, Lane(ops.transpose(new, perm=front) if axis else new, True)


class Batch:
    """One walk: what every node seen so far became, and the spellings that rules share."""

    def __init__(self, size: int, values: dict[Node, Value]):
        self.size = size
        self.values = values

    def expand(self, nodes: Iterable[Node]) -> None:
        """Enter what each of `nodes` (inputs first) becomes."""
        for node in nodes:
            if node not in self.values:
                with at(node.loc.through("vmap")):
                    self.values[node] = self._value(node)

    def lane(self, node: Node) -> Lane:
        value = self.values[node]
        assert isinstance(value, Lane), "only proj reads a several-result op"
        return value

    def lanes(self, node: Node) -> Lanes:
        """What the inputs of `node` became."""
        return tuple(self.lane(operand) for operand in node.inputs)

    def spread(self, lane: Lane) -> Node:
        """The lane's node with the batch axis, repeated along it where all examples share it."""
        x = lane.node
        if lane.batched:
            return x
        return ops.broadcast_to(x, shape=(self.size, *x.shape), dims=tuple(range(1, x.ndim + 1)))

    def through(self, node: Node, parts: tuple[Node, ...]) -> Value:
        """`node` by way of `parts`, which compute the same from its inputs without a batch."""
        known = set(node.inputs)
        emitted = postorder(parts, stop=known.__contains__)
        self.expand(each for each in emitted if each not in known)
        lanes = tuple(self.lane(part) for part in parts)
        return lanes if isinstance(node.type, TupleType) else lanes[0]

    def _value(self, node: Node) -> Value:
        from tracegrad.passes.vmap_control import CONTROL_RULES  # they vectorise sub-graphs
        from tracegrad.passes.vmap_rules import rule_for

        if node.op is ops.proj:
            parts = self.values[node.inputs[0]]
            assert isinstance(parts, tuple)
            lane: Lane = parts[node.attrs["index"]]
            return lane
        lanes = self.lanes(node)
        if not any(lane.batched for lane in lanes):
            shared = rebuild(node, tuple(lane.node for lane in lanes))
            return whole(shared, batched=False)
        rule = CONTROL_RULES.get(node.op) or rule_for(node)
        if rule is not None:
            return rule(self, node, lanes)
        if node.op.decompose is not None:
            result = node.op.decompose(*node.inputs, **node.attrs)
            return self.through(node, result if isinstance(result, tuple) else (result,))
        raise BatchingError(
            f"{node.op.name} at {node.loc} cannot be vectorised over a batched operand; move it "
            "out of the vmapped function, or give it an operand that all examples share"
        )


def whole(node: Node, batched: bool) -> Value:
    """The value of an emitted node: one lane, or one for each of its parts."""
    if not isinstance(node.type, TupleType):
        return Lane(node, batched)
    parts = range(len(node.type.parts))
    return tuple(Lane(ops.proj(node, index=k), batched) for k in parts)
