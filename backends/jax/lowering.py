"""Graph -> jax.lax, node by node. One function an op; structure and markers are here.

A node is lowered by its op's function, or, where a composite has none, through its decomposition.
Everything runs while jax traces, inside `settings.lowering`, so 64-bit types are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from tracegrad.backends.base import UnsupportedOp
from tracegrad.backends.jax import (
    lowering_contract,
    lowering_elementwise,
    lowering_index,
    lowering_linalg,
    lowering_random,
    lowering_reduce,
    lowering_shape,
    lowering_window,
)
from tracegrad.backends.jax.exactness import to_be_hidden
from tracegrad.backends.jax.flags import Code, Flags, clean
from tracegrad.ir import loc as _loc
from tracegrad.ir.graph import INPUT, Graph, Node, postorder
from tracegrad.ir.types import TupleType

LOWERINGS: dict[str, lowering_elementwise.Lowering] = {
    **lowering_elementwise.LOWERINGS,
    **lowering_shape.LOWERINGS,
    **lowering_index.LOWERINGS,
    **lowering_reduce.LOWERINGS,
    **lowering_contract.LOWERINGS,
    **lowering_window.LOWERINGS,
    **lowering_linalg.LOWERINGS,
    **lowering_random.LOWERINGS,
}
# Composites lowered whole: none, XLA fuses their parts itself.
CLAIMED: frozenset[str] = frozenset()

# Ops that hold graphs or concern the run as a whole; lowered by methods of `Lowerer`.
STRUCTURE = frozenset(
    {"proj", "call", "fused", "cond", "while_loop", "scan"}
    | {"fence", "detach", "rebind", "check", "shard"}
)


class Lowerer:
    """One lowering: the mesh that `shard` refers to, and what was found wrong so far in this scope."""

    def __init__(self, flags: Flags, mesh: Any = None):
        self.flags = flags
        self.mesh = mesh

    def run(self, graph: Graph, arrays: Sequence[Any]) -> list[Any]:
        """The outputs of `graph` for one (traced) array per input."""
        values: dict[Node, Any] = dict(zip(graph.inputs, arrays, strict=True))
        for node in graph.nodes:
            if node not in values:
                values[node] = self.scoped(node, values)
        return [values[node] for node in graph.outputs]

    def scoped(self, node: Node, values: dict[Node, Any]) -> Any:
        """Lower under the module path, so that XLA profiles read like the model."""
        if not node.loc.scope:
            return self.node(node, values)
        with jax.named_scope(node.loc.scope.replace(".", "/")):
            return self.node(node, values)

    def node(self, node: Node, values: dict[Node, Any]) -> Any:
        name = node.op.name
        arguments = tuple(
            lax.optimization_barrier(values[x]) if to_be_hidden(node, k) else values[x]
            for k, x in enumerate(node.inputs)
        )
        if name in STRUCTURE:
            return getattr(self, name)(node, arguments)
        function = LOWERINGS.get(name)
        if function is None:
            return self.decomposed(node, values)
        result = function(*arguments, **node.attrs)
        self.flags.watch(node, arguments, result)
        return result

    def decomposed(self, node: Node, values: dict[Node, Any]) -> Any:
        if node.op.decompose is None or node.op is INPUT:
            raise UnsupportedOp("has no JAX lowering and no decomposition", node.op.name, node.loc)
        with _loc.at(node.loc):
            result = node.op.decompose(*node.inputs, **node.attrs)
        parts = result if isinstance(node.type, TupleType) else (result,)
        inner = dict(values)
        for part in postorder(parts, stop=inner.__contains__):
            if part not in inner:
                inner[part] = self.node(part, inner)
        outputs = tuple(inner[part] for part in parts)
        return outputs if isinstance(node.type, TupleType) else outputs[0]

    # Structure. What a sub-graph finds wrong goes through it as a code, see flags.py.

    def _inner(self, graph: Graph, arrays: Sequence[Any], code: Code) -> tuple[list[Any], Code]:
        inner = Lowerer(self.flags.inner(code), self.mesh)
        return inner.run(graph, arrays), inner.flags.code

    def proj(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        return arguments[0][node.attrs["index"]]

    def call(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        graph = node.attrs["graph"]
        outputs, code = self._inner(graph, arguments, self.flags.entering(graph))
        self.flags.left(code)
        return tuple(outputs)

    def fused(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        outputs = self.run(node.attrs["graph"], arguments)
        return tuple(outputs) if isinstance(node.type, TupleType) else outputs[0]

    def cond(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        pred, *operands = arguments
        then, orelse = node.attrs["then"], node.attrs["orelse"]

        def branch(graph: Graph) -> Any:
            return lambda code, *xs: self._inner(graph, xs, code)

        start = self.flags.entering(then, orelse)
        outputs, code = lax.cond(pred, branch(then), branch(orelse), start, *operands)
        self.flags.left(code)
        return tuple(outputs)

    def while_loop(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        """Whether it goes on is part of the state: XLA's own condition could report nothing, and
        what is computed once before the loop and once a trip is computed no more often than there.
        """
        attrs = node.attrs
        bound = attrs["max_trips"]

        def tested(carry: Any, code: Code) -> tuple[Any, Code]:
            (going,), code = self._inner(attrs["cond"], carry, code)
            return lax.bitwise_and(going, clean(code)), code

        def condition(state: Any) -> Any:
            _, going, _, trip = state
            return going if bound is None else lax.bitwise_and(going, trip < bound)

        def body(state: Any) -> Any:
            carry, _, code, trip = state
            carry, code = self._inner(attrs["body"], carry, code)
            return carry, *tested(carry, code), trip + 1

        start = list(arguments)
        entered = tested(start, self.flags.entering(attrs["cond"], attrs["body"]))
        state = (start, *entered, lax.full((), 0, "int64"))
        carry, going, code, _ = lax.while_loop(condition, body, state)
        self.flags.left(code)
        self.flags.watch(node, arguments, going)
        return tuple(carry)

    def scan(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        """Always one loop: unrolling costs XLA minutes of compile time and gains nothing."""
        attrs = node.attrs
        carries = attrs["carries"]

        def body(state: Any, slices: Any) -> Any:
            carry, code = state
            outputs, code = self._inner(attrs["body"], (*carry, *slices), code)
            return (outputs[:carries], code), outputs[carries:]

        start = (list(arguments[:carries]), self.flags.entering(attrs["body"]))
        (last, code), stacked = lax.scan(
            body, start, list(arguments[carries:]), length=attrs["length"]
        )
        self.flags.left(code)
        return (*last, *stacked)

    # Markers.

    def fence(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        return lax.optimization_barrier(arguments[0])

    def detach(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        return arguments[0]

    def rebind(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        return arguments[1]

    def check(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        self.flags.watch(node, arguments, arguments[0])
        return arguments[0]

    def shard(self, node: Node, arguments: tuple[Any, ...]) -> Any:
        if self.mesh is None:
            return arguments[0]
        return lax.with_sharding_constraint(
            arguments[0], jax.NamedSharding(self.mesh, jax.P(*node.attrs["spec"]))
        )
