"""Where XLA would compute something else than what is written, and how it is kept from it.

XLA's algebraic simplifier takes floats for real numbers: `(x + c) - c` becomes `x`, `log(exp(x))` too,
`x / 7` a product with 0.14285715, so that 21 / 7 is above 3, `mask * x` a selection, which hides nan and
inf. PyTorch and the NumPy backend compute them as they stand. An operand that such a rule looks into goes
behind an optimization barrier; on the CPU barriers are gone before loops are made, so nothing is slower.

The tables say which pairs of ops XLA has rules for. tests/runtime/test_xla_computes_what_is_written.py tries
each; a rule of a later XLA is found by comparing compositions of two ops with eager mode.
"""

from __future__ import annotations

import numpy as np

from tracegrad.ir import ops
from tracegrad.ir.graph import Node
from tracegrad.ir.types import bool_

# An op that is an operand of another: XLA rewrites the pair whatever the values.
ALWAYS = {
    "log": {"exp", "pow", "sqrt", "rsqrt"},
    "sqrt": {"mul", "pow", "exp"},
    "rsqrt": {"mul", "pow", "exp"},
    "pow": {"pow", "exp", "mul", "sqrt", "div"},
    "div": {"div", "pow", "exp"},
}
# Where constants are operands of both.
OF_CONSTANTS = {
    "add": {"add", "sub"},
    "sub": {"add", "sub"},
    "mul": {"mul", "div"},
    "div": {"mul"},
}
# Where both operands are such.
OF_BOTH = {"mul": {"exp", "sqrt", "rsqrt", "mul"}}
DIVISIONS = {"div", "floor_div", "rem"}  # by a constant: products with its inverse
LOOKED_INTO = {*ALWAYS, *OF_CONSTANTS, *OF_BOTH, *DIVISIONS}
MOVED = {ops.broadcast_to, ops.reshape, ops.transpose}  # XLA may compute on either side of them


def to_be_hidden(node: Node, position: int) -> bool:
    """Whether XLA, if it sees what this operand is, computes `node` otherwise than from its value."""
    outer, inner = node.op.name, source(node.inputs[position])
    if outer not in LOOKED_INTO or not node.inputs[position].dtype.is_inexact:
        return False
    name = inner.op.name
    if inner.op is ops.constant:
        return outer in DIVISIONS and position == 1 and not has_exact_inverse(inner)
    if name in ALWAYS.get(outer, ()):
        return True
    if outer in ("mul", "div") and name == "cast":
        return inner.inputs[0].dtype == bool_
    if name in OF_CONSTANTS.get(outer, ()) and has_constant(inner) and has_constant(node):
        return True
    others = OF_BOTH.get(outer, ())
    return name in others and all(source(x).op.name in others for x in node.inputs)


def has_exact_inverse(constant: Node) -> bool:
    """Whether to divide by it is to multiply by its inverse: powers of two."""
    if constant.dtype.is_complex:
        return False
    value = constant.attrs["value"]
    numbers = value.array if value.splat is None else value.splat
    return bool((np.frexp(np.abs(np.asarray(numbers, np.float64)))[0] == 0.5).all())


def source(node: Node) -> Node:
    """What a value is computed by, where it is only moved since."""
    while node.op in MOVED:
        node = node.inputs[0]
    return node


def has_constant(node: Node) -> bool:
    return any(source(operand).op is ops.constant for operand in node.inputs)
