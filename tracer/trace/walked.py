"""Which nodes of a trace have been walked backwards, and which of them another walk may pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, postorder
from tracegrad.ir.ops import traits
from tracegrad.tracer.dispatch import Weak
from tracegrad.tracer.eager.program import program_for
from tracegrad.tracer.tape.kept import gradient_reads


def spec_of(operand: Node | Weak | None) -> Any:
    """What a signature says of an operand; see eager/program.py."""
    if operand is None:
        return None
    return operand.category if isinstance(operand, Weak) else operand.type


class Walked:
    """What walks without retain_graph have passed.

    A second walk is asked for seldom, so what the tape drops (tape/kept.py) is found then: from the
    calls that made the nodes.
    """

    def __init__(self) -> None:
        self.nodes: set[Node] = set()
        self.cut: set[Node] = set()  # values that no walk may pass; see Cut of tape/entries.py
        # By each of its results: op, attributes, operands as its emit function took them.
        self._calls: dict[Node, tuple[Any, tuple, tuple]] = {}
        self._views: dict[Node, Node] = {}  # and what they are a view of

    def note_call(self, outputs: Iterable[Node], op: Any, attrs: tuple, operands: tuple) -> None:
        self._calls.update(dict.fromkeys(outputs, (op, attrs, operands)))

    def note_view(self, view: Node, base: Node) -> None:
        self._views[view] = base

    def bars(self, nodes: set[Node], is_tracked: Callable[[Node], bool]) -> bool:
        """Whether a walk through `nodes` would read what was dropped."""
        again = nodes & self.nodes
        inside: set[Node] = set()  # of views and of calls that keep nothing
        for node in again:
            if node in self._views:
                inside.update(postorder([node], stop={self._views[node]}.__contains__))
            call = self._calls.get(node)
            if call is None:
                continue
            op, attrs, operands = call
            program = program_for(op, attrs, tuple(map(spec_of, operands)))
            wanted = [isinstance(operand, Node) and is_tracked(operand) for operand in operands]
            if gradient_reads(program, tuple(wanted)):
                return True
            ends = {operand for operand in operands if isinstance(operand, Node)}
            inside.update(postorder([node], stop=ends.__contains__))
        return any(
            not (node in inside or node.op.has(traits.VIEW) or node.op is ops.update_slice)
            for node in again
        )
