"""Constants computed at compile time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.const import Const
from tracegrad.ir.errors import TracegradError
from tracegrad.ir.graph import Graph, Node, emit, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.ops.traits import CONTROL, EFFECT, ELEMENTWISE, IDENTITY_MARKER, SOURCE, VIEW
from tracegrad.ir.types import TensorType
from tracegrad.passes.base import Pass, has_subgraphs, walk, with_subgraphs
from tracegrad.passes.observers import Evaluate
from tracegrad.passes.rules.patterns import splat_const

BYTE_LIMIT = 1 << 16  # of one folded result: what a program may grow by
FLOP_LIMIT = 1e7  # of one folded node: what a compilation may be slowed by


@dataclass(frozen=True)
class Fold(Pass):
    """`add(constant 1, constant 2)` -> `constant 3`, where the result is small or a splat.

    `evaluate` runs the node; without it only views of splats fold. A node that cannot be evaluated
    (an integer division by zero) stays, to fail if it is run. Never looks through a fence.
    """

    name: ClassVar[str] = "fold"
    evaluate: Evaluate | None = field(default=None, repr=False)

    def run(self, graph: Graph) -> Graph:
        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            if has_subgraphs(node.attrs):
                return with_subgraphs(node, inputs, self.run)
            node = rebuild(node, inputs)
            return self._folded(node) or node

        return walk(graph, visit)

    def _folded(self, node: Node) -> Node | None:
        if not isinstance(node.type, TensorType):
            return None
        if node.op is ops.check:  # one that holds in every run leaves nothing to test
            known = splat_const(node.inputs[0])
            return node.inputs[0] if known is not None and known.array.all() else None
        if any(node.op.has(trait) for trait in (CONTROL, EFFECT, IDENTITY_MARKER, SOURCE)):
            return None
        if not node.inputs or not all(_is_constant(operand) for operand in node.inputs):
            return None
        splats = [splat_const(operand) for operand in node.inputs]
        if all(splat is not None for splat in splats):
            if node.op.has(VIEW):
                return splat_of(node, splats[0])
            if node.op.has(ELEMENTWISE):
                return self._folded_splats(node)
        if node.op.has(VIEW) and node.type.size > node.inputs[0].type.size:
            return None  # a broadcast: the small constant is the better one to carry
        if node.type.nbytes > BYTE_LIMIT or (node.op.flops and node.op.flops(node) > FLOP_LIMIT):
            return None
        value = self._evaluated(node)
        return None if value is None else _constant(node, value)

    def _folded_splats(self, node: Node) -> Node | None:
        """An elementwise op of splats is evaluated on one element, however large its shape."""
        operands = []
        with at(node.loc):
            for operand in node.inputs:
                const = splat_const(operand)
                assert const is not None
                if not const.array.size:
                    return None
                scalar = Const(const.array.reshape(-1)[:1].reshape(()))
                operands.append(emit(ops.constant, value=scalar))
            small = emit(node.op, *operands, **node.attrs)
        value = self._evaluated(small)
        if value is None:
            return None
        return _constant(node, Const(np.broadcast_to(value.array, node.shape)))

    def _evaluated(self, node: Node) -> Const | None:
        if self.evaluate is None:
            return None
        try:
            (array,) = self.evaluate(Graph((), (node,), name="fold"), [])
        except TracegradError as error:
            if error.unexpected:
                raise
            return None  # it fails at run time as well, with the user's line
        return Const(array)


def splat_of(node: Node, const: Const | None) -> Node | None:
    """A constant of `node`'s type filled with the element of `const`."""
    if const is None or not const.array.size:
        return None
    return _constant(node, Const(np.broadcast_to(const.array.reshape(-1)[0], node.shape)))


def _constant(node: Node, value: Const) -> Node:
    with at(node.loc.through("fold")):
        return emit(ops.constant, value=value)


def _is_constant(node: Node) -> bool:
    return node.op is ops.constant or (node.op is ops.iota and node.type.nbytes <= BYTE_LIMIT)


__all__ = ["BYTE_LIMIT", "Fold", "splat_of"]
