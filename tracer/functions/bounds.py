"""The larger and the smaller of two, and values kept within bounds."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions import promotion
from tracegrad.tracer.functions.arithmetic import binary_of
from tracegrad.tracer.functions.promotion import Operand, common

maximum = binary_of(
    ops.maximum, "The larger of two; nan wins. A tie shares the gradient.", "maximum"
)
minimum = binary_of(
    ops.minimum, "The smaller of two; nan wins. A tie shares the gradient.", "minimum"
)


@user_op
def fmax(input: Operand, other: Operand, /) -> Node:
    """The larger of two; a nan loses."""
    x, y = common(input, other)
    return _ignoring_nan(ops.le(y, x), x, y)


@user_op
def fmin(input: Operand, other: Operand, /) -> Node:
    """The smaller of two; a nan loses."""
    x, y = common(input, other)
    return _ignoring_nan(ops.le(x, y), x, y)


def _ignoring_nan(first_wins: Node, x: Node, y: Node) -> Node:
    """x where it wins or y is nan, else y: a tie gives the whole gradient to x, as in PyTorch."""
    if x.dtype.is_float:
        first_wins = ops.or_(first_wins, ops.isnan(y))
    return ops.where(first_wins, x, y)


@user_op(stores="exact")
def clamp(input: Operand, min: Operand | None = None, max: Operand | None = None, /) -> Node:
    """min where input is below it, max where above. The gradient passes at the bounds."""
    if min is None and max is None:
        raise IRTypeError("clamp() needs min or max")
    bounds = [b for b in (min, max) if b is not None]
    nodes = list(common(input, *bounds))
    x = nodes.pop(0)
    if min is not None:
        low = nodes.pop(0)
        x = _bounded(x, ops.le(low, x), min, low, ops.maximum)
    if max is not None:
        high = nodes.pop(0)
        x = _bounded(x, ops.le(x, high), max, high, ops.minimum)
    return _nan_bounds(x, min, max)


def _bounded(x: Node, inside: Node, given: Operand, bound: Node, extreme: Op) -> Node:
    """x where inside, else the bound. At the bound the whole gradient goes to x; a nan keeps its
    value and gets none.
    """
    value = extreme(x, bound)
    if isinstance(given, Node):  # a tensor bound: it gets the gradient only where it is the value
        outside = ops.where(ops.eq(value, bound), bound, ops.detach(x))
        return ops.where(inside, x, outside)
    # The value of one fast op; the gradient is that of the choice, which nothing else computes.
    return ops.rebind(ops.where(inside, x, ops.detach(x)), value)


def _nan_bounds(x: Node, *bounds: Operand | None) -> Node:
    """A nan bound makes nan. Bounds that are numbers are not nan in practice: only tensors are
    looked at.
    """
    for bound in bounds:
        if isinstance(bound, Node) and bound.dtype.is_float:
            wide = promotion.lift(bound, x.dtype, x.shape)
            x = ops.where(ops.isnan(wide), wide, x)
    return x


@user_op(stores="exact")
def clamp_min(input: Operand, min: Operand, /) -> Node:
    """The larger of input and min."""
    return clamp.emit(input, min, None)


@user_op(stores="exact")
def clamp_max(input: Operand, max: Operand, /) -> Node:
    """The smaller of input and max."""
    return clamp.emit(input, None, max)
