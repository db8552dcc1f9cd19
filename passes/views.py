"""Ops that rearrange the elements of an operand, and what they look at."""

from __future__ import annotations

from tracegrad.ir.graph import Node
from tracegrad.ir.ops import OPS
from tracegrad.ir.ops.traits import VIEW

# The parts of several results have storages of their own.
VIEW_OPS = frozenset(name for name, op in OPS.items() if op.has(VIEW)) - {"proj"}


def viewed(node: Node) -> Node:
    """The operand that a view op looks at."""
    return node.inputs[1] if node.op.name == "rebind" else node.inputs[0]


def base_of(node: Node) -> Node:
    """What a chain of views looks at in the end."""
    while node.op.name in VIEW_OPS:
        node = viewed(node)
    return node
