"""Matrix products that a state takes in, added to it by the product itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tracegrad.ir import ops
from tracegrad.ir.graph import NO_ATTRS, Graph, Node, Op, rebuild
from tracegrad.ir.loc import at
from tracegrad.ir.ops.base import tensor
from tracegrad.ir.types import TensorType, f32, f64
from tracegrad.passes.base import Pass
from tracegrad.passes.rules.patterns import is_splat, splat_value


def _by_steps(c: Node, x: Node, y: Node, factor: Node) -> Node:
    scale = ops.broadcast_to(factor, shape=c.shape, dims=())
    return ops.add(c, ops.mul(scale, ops.matmul(x, y)))


# (c, x, y, 0-d factor) -> c + factor * (x @ y). Made here, gone after code generation; in no saved graph.
ACCUMULATE = Op(
    "accumulate",
    infer=lambda c, x, y, factor: tensor(c),
    decompose=_by_steps,
    not_differentiable="is made after differentiation",
)


class Term(NamedTuple):
    """What a state takes in: the product `matmul`, or its transpose, times a 0-d `factor` if any."""

    matmul: Node
    turned: bool
    factor: Node | None


@dataclass(frozen=True)
class Accumulate(Pass):
    """`w - lr * (x @ y)` -> `accumulate(w, x, y, -lr)`, where that is the new value of the state `w`.

    For a backend that adds a product to the array of the state in one pass over it; a product of its
    own is written, read, scaled and subtracted.

    min_size  elements of a state from which it pays
    """

    name: ClassVar[str] = "accumulate"
    min_size: int = 1 << 15

    def run(self, graph: Graph) -> Graph:
        sums = self._sums(graph)
        if not sums:
            return graph
        new: dict[Node, Node] = {}
        for node in graph.nodes:
            if node in sums:
                new[node] = _accumulated(node, *sums[node], new)
            else:
                new[node] = rebuild(node, tuple(new[operand] for operand in node.inputs))
        return graph.with_outputs(new[node] for node in graph.outputs)

    def _sums(self, graph: Graph) -> dict[Node, tuple[Node, Term]]:
        """The new values that are a state and a term, and which."""
        readers = {node: len(users) for node, users in graph.users().items()}
        for node in graph.outputs:
            readers[node] += 1
        found: dict[Node, tuple[Node, Term]] = {}
        for position, source in graph.updates.items():
            node, state = graph.outputs[position], graph.inputs[source]
            if node.type.size < self.min_size or node.ndim != 2 or node.dtype not in (f32, f64):
                continue
            taken_in = _taken_in(node, state)
            term = None if taken_in is None else _term(taken_in, readers)
            if term is not None:
                found[node] = state, term
        return found


def _taken_in(node: Node, state: Node) -> Node | None:
    """What `node` adds to the state or subtracts from it."""
    first, second = node.inputs if node.op in (ops.add, ops.sub) else (None, None)
    if first is state:
        return second
    return first if second is state and node.op is ops.add else None


def _term(node: Node, readers: dict[Node, int]) -> Term | None:
    """`node` as a term, if nobody else reads it or a step on the way to it."""
    turned, factor = False, None
    while readers[node] == 1:
        if node.op is ops.matmul:
            # BLAS takes no operand without elements.
            return Term(node, turned, factor) if node.inputs[0].type.size else None
        if _turns(node):
            turned, node = not turned, node.inputs[0]
        elif node.op is ops.mul and factor is None and (scaled := _scaled(node)) is not None:
            node, factor = scaled
        else:
            return None
    return None


def _scaled(node: Node) -> tuple[Node, Node] | None:
    """(value, 0-d factor), if `node` is a value times one number."""
    for value, factor in (node.inputs, node.inputs[::-1]):
        if factor.op is ops.broadcast_to and not factor.inputs[0].shape:
            return value, factor.inputs[0]
        if is_splat(factor):
            return value, ops.splat(splat_value(factor), TensorType((), node.dtype))
    return None


def _turns(node: Node) -> bool:
    """Whether it is the transpose of a matrix, not one that leaves the axes where they are."""
    return node.op is ops.transpose and bool(node.attrs["perm"] == (1, 0))


def _transposed(node: Node) -> Node:
    return node.inputs[0] if _turns(node) else ops.transpose(node, perm=(1, 0))


def _accumulated(node: Node, state: Node, term: Term, new: dict[Node, Node]) -> Node:
    """The sum `node` as one step, on the `new` nodes."""
    with at(node.loc):
        x, y = (new[operand] for operand in term.matmul.inputs)
        if term.turned:
            x, y = _transposed(y), _transposed(x)
        if term.factor is None:
            factor = ops.splat(1, TensorType((), node.dtype))
        else:
            factor = new.get(term.factor, term.factor)  # a splat was made just now
        if node.op is ops.sub:
            factor = ops.neg(factor)
    return Node(ACCUMULATE, (new[state], x, y, factor), NO_ATTRS, node.type, node.loc)
