"""What a pass is, what a pipeline is, and the walk that most passes are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tracegrad.ir.errors import IRError
from tracegrad.ir.graph import INPUT, Attrs, Graph, Node, emit
from tracegrad.ir.loc import at

Preserves = Literal["values", "signature", "none"]


@dataclass(frozen=True)
class Pass:
    """One step from graph to graph: pure, named, and said in its docstring as *before -> after*.

    preserves  "values": every output keeps its value (up to rounding); "signature": inputs, outputs
               and their types stay, values may change (autocast); "none": all of it may change.
    Subclasses are frozen dataclasses; their fields are their options.
    """

    name: ClassVar[str] = "pass"
    preserves: ClassVar[Preserves] = "values"

    def run(self, graph: Graph) -> Graph:
        """The new graph; `graph` itself when there is nothing to do."""
        raise NotImplementedError(f"{type(self).__name__} has no run method")


@dataclass(frozen=True)
class Step:
    """What an observer is told after each pass."""

    index: int
    pass_: Pass
    before: Graph
    after: Graph
    seconds: float


Observer = Callable[[Step], None]


@dataclass(frozen=True)
class Pipeline:
    """Passes in order. Verifying, timing, dumping and history are observers of one callback."""

    passes: tuple[Pass, ...]
    observers: tuple[Observer, ...] = field(default=())

    def run(self, graph: Graph) -> Graph:
        """Every pass in turn. An error of a pass is noted with the pass's name and position."""
        for index, pass_ in enumerate(self.passes):
            started = time.perf_counter()
            try:
                after = pass_.run(graph)
            except IRError as error:
                error.add_note(f"in pass {pass_.name!r} (number {index} of the pipeline)")
                raise
            step = Step(index, pass_, graph, after, time.perf_counter() - started)
            for observe in self.observers:
                observe(step)
            graph = after
        return graph


Visit = Callable[[Node, tuple[Node, ...]], Node]


def walk(graph: Graph, visit: Visit) -> Graph:
    """Rebuild `graph` forwards: each node becomes `visit(node, its new inputs)`.

    `visit` is not called for inputs of the graph. Nodes that nothing reads any more fall away.
    Returns `graph` itself when no output changed.
    """
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.op is INPUT:
            new[node] = node
        else:
            new[node] = visit(node, tuple(new[operand] for operand in node.inputs))
    outputs = tuple(new[node] for node in graph.outputs)
    if all(a is b for a, b in zip(outputs, graph.outputs)):
        return graph
    return graph.with_outputs(outputs)


def with_subgraphs(node: Node, inputs: tuple[Node, ...], run: Callable[[Graph], Graph]) -> Node:
    """`node` on `inputs`, with `run` applied to each sub-graph among its attributes."""
    changed = {
        name: run(value) if isinstance(value, Graph) else value
        for name, value in node.attrs.items()
    }
    same = all(changed[name] is node.attrs[name] for name in changed)
    if same and all(a is b for a, b in zip(inputs, node.inputs)):
        return node
    with at(node.loc):
        return emit(node.op, *inputs, **changed)


def has_subgraphs(attrs: Attrs) -> bool:
    for value in attrs.values():  # a loop, not any(): this is asked of every node by every pass
        if type(value) is Graph:
            return True
    return False
