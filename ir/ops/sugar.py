"""Operators of nodes, for VJPs, decompositions and rules: `ct * (1 - y * y)`.

Strict like the ops they emit: a Python scalar becomes a splat of this node's type, two nodes must
have equal types.
"""

from __future__ import annotations

from collections.abc import Callable

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.source import splat

Operand = Node | bool | int | float | complex
_SCALARS = (bool, int, float, complex)


def _forward(name: str) -> Callable[[Node, Operand], Node]:
    def operator(self: Node, other: Operand) -> Node:
        if isinstance(other, _SCALARS):
            other = splat(other, self.type)
        elif not isinstance(other, Node):
            return NotImplemented
        return ops.OPS[name](self, other)

    return operator


def _reflected(name: str) -> Callable[[Node, Operand], Node]:
    def operator(self: Node, other: Operand) -> Node:
        if not isinstance(other, _SCALARS):
            return NotImplemented  # type: ignore[no-any-return]
        return ops.OPS[name](splat(other, self.type), self)

    return operator


def _negate(self: Node) -> Node:
    return ops.neg(self)


for _method, _name in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div")):
    setattr(Node, f"__{_method}__", _forward(_name))
    setattr(Node, f"__r{_method}__", _reflected(_name))
Node.__neg__ = _negate  # type: ignore[method-assign]
