"""What a program may raise for the values it gets, less what is ruled out before it runs.

The ops say what could happen (`ir/hazards.py`); here is what follows for nodes and graphs. Every
backend asks this, so that none raises for what another lets pass: on NumPy state is written after
the steps that may raise (`memory/schedule.py`), on XLA a program returns what it ran into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.hazards import INDEX, INSIDE, ZERO, Hazard
from tracegrad.passes.views import base_of


def hazards(node: Node) -> list[Hazard]:
    """What running `node` may raise for; its sub-graphs count as one hazard of the node."""
    if node.op.hazards is None and not node.op.attrs:  # most nodes
        return []
    found = list(_own(node))
    if any(may_raise(graph) for graph in subgraphs(node)):
        found.append(Hazard(INSIDE, node))
    return found


def dropped(before: Graph, after: Graph) -> list[Node]:
    """Nodes of `before` that may raise, of whose lines nothing in `after` does: a rule has found that their
    values do not matter (`0 * table[i]` of integers), but the error does.
    """
    left = {line for node in after.nodes if hazards(node) for line in _lines(node)}
    return [node for node in before.nodes if hazards(node) and left.isdisjoint(_lines(node))]


def _lines(node: Node) -> Iterator[tuple[str, int]]:
    for loc in (node.loc, *node.loc.also):
        yield loc.file, loc.line


def may_raise(graph: Graph) -> bool:
    return any(hazards(node) for node in graph.nodes)


def kinds(graph: Graph) -> set[str]:
    """The kinds of all hazards of `graph`, those of its sub-graphs too."""
    found: set[str] = set()
    for node in graph.nodes:
        found.update(hazard.kind for hazard in _own(node))
        for inner in subgraphs(node):
            found |= kinds(inner)
    return found


def subgraphs(node: Node) -> list[Graph]:
    return [value for value in node.attrs.values() if isinstance(value, Graph)]


def _own(node: Node) -> Iterator[Hazard]:
    if node.op.hazards is not None:
        for hazard in node.op.hazards(node):
            if not _ruled_out(hazard):
                yield hazard


def _ruled_out(hazard: Hazard) -> bool:
    """Whether what `hazard.subject` is shows that its values are right."""
    if hazard.kind not in (INDEX, ZERO):
        return False
    if hazard.subject.type.size == 0:
        return True
    source = base_of(hazard.subject)  # a view has no other values
    if hazard.kind == ZERO:
        return _every_element(source, lambda values: values != 0)
    if source.op.name == "iota":
        return bool(source.shape[source.attrs["axis"]] <= hazard.size)
    if source.op.name in ("argmax", "argmin", "argsort"):
        return bool(source.inputs[0].shape[source.attrs["axis"]] <= hazard.size)
    return _every_element(source, lambda values: (values >= 0) & (values < hazard.size))


def _every_element(node: Node, holds: Callable[[np.ndarray], np.ndarray]) -> bool:
    return node.op.name == "constant" and bool(np.all(holds(node.attrs["value"].array)))
