"""A long graph run in pieces: the gradient of a loop, whose turns are alike, needs one executable for
all of them, however often the loop turns.

Where it may be cut is known from the reverse walk (passes/autodiff_stages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracegrad.backends.base import backend_named
from tracegrad.ir import ops
from tracegrad.ir.graph import Graph, Node, placeholder, postorder, substitute
from tracegrad.passes.autodiff_stages import Cuts, kinds_of, looked_at
from tracegrad.runtime.paths.lowering import Compiler
from tracegrad.tracer.trace.buffers import Input


@dataclass
class Piece:
    """Its graph, and where the inputs of that come from."""

    graph: Graph
    sources: list[Any]


def split(
    cuts: Sequence[Sequence[Node]], finals: Sequence[Node], known: Mapping[Node, Any], depth: int
) -> tuple[list[Piece], dict[Node, Any]]:
    """The pieces that are computed before what is left of `finals`; and what is known then.

    known  what has a value, and where it comes from: the values that a piece hands on from (depth of
           the piece, position)
    """
    known = dict(known)
    if not cuts:
        return [], known
    home: dict[Node, int] = {}
    for at, ends in enumerate(cuts):
        listed = set(ends)
        for node in postorder(ends, stop=lambda n: n in known or n in home):
            # A constant or a view of what is known each piece has for itself, if it does not cross.
            base = looked_at(node)
            crosses = node in listed or (base.inputs and base not in known)
            if node.inputs and node not in known and crosses:
                home.setdefault(node, at)
    for node in postorder((*finals, *home), stop=known.__contains__):
        if node.op is ops.proj and node not in known and node.inputs[0] in home:
            home[node] = home[node.inputs[0]]  # the parts of a value beside it
    members: list[list[Node]] = [[] for _ in cuts]
    for node, at in home.items():
        members[at].append(node)
    crossing = handed_on(finals, members, home, known)
    pieces: list[Piece] = []
    for own in members:
        exports = [n for n in own if n in crossing]
        if not exports:
            continue
        graph, sources = graph_between(known, exports, f"piece{depth}", ["export"] * len(exports))
        pieces.append(Piece(graph, sources))
        known.update((node, (depth, position)) for position, node in enumerate(exports))
        depth += 1
    return pieces, known


def handed_on(
    finals: Sequence[Node], members: Sequence[Sequence[Node]], home: dict[Node, int],
    known: Container[Node],
) -> set[Node]:  # fmt: skip
    """The values that a piece hands on: those read after it, or after one alike: so that they share
    an executable.
    """
    kinds = kinds_of(members)
    read = {n for n in finals if n in home}
    new: Iterable[Node] = finals
    while True:
        for node in postorder(new, stop=known.__contains__):
            if node in known:
                continue
            read.update(o for o in node.inputs if o in home and home[o] != home.get(node))
        positions: dict[int, set[int]] = {kind: set() for kind in kinds}
        for kind, own in zip(kinds, members):
            positions[kind].update(k for k, node in enumerate(own) if node in read)
        alike = {own[k] for kind, own in zip(kinds, members) for k in positions[kind]} - read
        if not alike:
            return read
        read |= alike
        new = alike


class InPieces:
    """A graph's executables, in order, called as one would be.

    cuts  the last one has all outputs that are computed
    """

    def __init__(self, graph: Graph, cuts: Cuts, compiler: Compiler):
        begin = {node: (0, k) for k, node in enumerate((*graph.inputs, *cuts.given))}
        self._given = arrays_of(cuts.given, compiler)
        pieces, known = split(cuts.crossing, [*graph.outputs, *cuts.unread], begin, 1)
        if rest := [node for node in graph.outputs if node not in known]:  # constants
            pieces.append(Piece(*graph_between(known, rest, "constants", ["export"] * len(rest))))
            known.update((node, (len(pieces), k)) for k, node in enumerate(rest))
        self._results: list[tuple[int, int]] = [known[node] for node in graph.outputs]
        self._steps: list[tuple[Callable[..., Any], list[tuple[int, int]]]] = [
            (compiler(piece.graph).executable, piece.sources) for piece in pieces
        ]

    def __call__(self, arrays: list[Any]) -> list[Any]:
        values = [[*arrays, *self._given]]
        for executable, sources in self._steps:
            values.append(executable([values[depth][position] for depth, position in sources]))
        return [values[depth][position] for depth, position in self._results]


def arrays_of(constants: Iterable[Node], compiler: Compiler) -> list[Any]:
    own_array = backend_named(compiler.backend).own_array
    return [own_array(node.attrs.value.array) for node in constants]


def graph_between(
    known: Mapping[Node, Any], outputs: Sequence[Node], name: str, roles: list[str]
) -> tuple[Graph, list[Any]]:
    """The graph from what is known to `outputs`, with an input for each of these that it reads; and where
    they come from.

    The inputs are in the order in which they are met, so that a turn of a loop that begins with an
    argument is the same program as one that begins where the turn before has ended.
    """
    reached = [n for n in postorder(outputs, stop=known.__contains__) if n in known]
    inputs: list[Node] = []
    mapping: dict[Node, Node] = {}
    names: list[str] = []
    input_roles: list[str] = []
    for node in reached:
        source = known[node]
        if isinstance(source, Input):
            inputs.append(node)
            mapping[node] = node
            names.append(source.name)
            input_roles.append(source.kind)
        else:
            stand_in = placeholder(node.type, node.loc)
            inputs.append(stand_in)
            mapping[node] = stand_in
            names.append(f"import{source[0]}_{source[1]}")
            input_roles.append("import")
    graph = Graph(
        tuple(inputs), substitute(outputs, mapping), tuple(names), tuple(f"{r}{k}" for k, r in enumerate(roles)),
        tuple(input_roles), tuple(roles), name,
    )  # fmt: skip
    return graph, [known[n] for n in reached]
