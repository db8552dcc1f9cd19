"""Comparison, logic, bits and selection on two operands, promoted and broadcast."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.types import bool_, u8
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions import promotion
from tracegrad.tracer.functions.arithmetic import as_bool, named, not_
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    cast,
    common,
    require_dtype,
    to_float,
)


@user_op
def eq(input: Operand, other: Operand, /) -> Node:
    """input == other, elementwise."""
    return ops.eq(*common(input, other))


@user_op
def ne(input: Operand, other: Operand, /) -> Node:
    """input != other, elementwise."""
    return not_(ops.eq(*common(input, other)))


@user_op
def lt(input: Operand, other: Operand, /) -> Node:
    """input < other, elementwise."""
    return ops.lt(*common(input, other))


@user_op
def le(input: Operand, other: Operand, /) -> Node:
    """input <= other, elementwise."""
    return ops.le(*common(input, other))


@user_op
def gt(input: Operand, other: Operand, /) -> Node:
    """input > other, elementwise."""
    x, y = common(input, other)
    return ops.lt(y, x)


@user_op
def ge(input: Operand, other: Operand, /) -> Node:
    """input >= other, elementwise."""
    x, y = common(input, other)
    return ops.le(y, x)


@user_op
def isclose(
    input: Operand,
    other: Operand,
    /,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Node:
    """|input - other| <= atol + rtol * |other|, or equal."""
    if rtol < 0 or atol < 0:
        raise IRTypeError(f"isclose(rtol={rtol}, atol={atol}): a tolerance is negative")
    if isinstance(input, Node) and isinstance(other, Node):
        promotion.require_same_dtype("isclose", input, other)
    x, y = common(input, other)
    same = ops.eq(x, y)
    if not (rtol or atol or x.dtype.is_float):  # exact, beyond the integers that floats hold
        return same
    if not x.dtype.is_float:
        x, y = to_float(x), to_float(y)
    near = ops.le(ops.abs_(ops.sub(x, y)), ops.abs_(y) * rtol + atol)
    result = ops.or_(same, ops.and_(near, ops.and_(ops.isfinite(x), ops.isfinite(y))))
    if equal_nan:
        result = ops.or_(result, ops.and_(ops.isnan(x), ops.isnan(y)))
    return result


@user_op
def logical_and(input: Operand, other: Operand, /) -> Node:
    """Both nonzero."""
    return ops.and_(*broadcast(as_bool(input), as_bool(other)))


@user_op
def logical_or(input: Operand, other: Operand, /) -> Node:
    """Either nonzero."""
    return ops.or_(*broadcast(as_bool(input), as_bool(other)))


@user_op
def logical_xor(input: Operand, other: Operand, /) -> Node:
    """Exactly one nonzero."""
    return ops.xor(*broadcast(as_bool(input), as_bool(other)))


@user_op
def logical_not(input: Operand, /) -> Node:
    """Zero."""
    return not_(as_bool(input))


def bits_of(op: Op, name: str, doc: str, categories: str = "bi") -> Any:
    def emit(input: Operand, other: Operand, /) -> Node:
        x, y = common(input, other)
        require_dtype(name, (x,), categories)
        return op(x, y)

    return named(emit, name, doc)


bitwise_and = bits_of(ops.and_, "bitwise_and", "input & other, of integers or bools.")
bitwise_or = bits_of(ops.or_, "bitwise_or", "input | other, of integers or bools.")
bitwise_xor = bits_of(ops.xor, "bitwise_xor", "input ^ other, of integers or bools.")
bitwise_left_shift = bits_of(ops.shl, "bitwise_left_shift", "input << other.", "i")
bitwise_right_shift = bits_of(ops.shr, "bitwise_right_shift", "input >> other.", "i")


@user_op
def bitwise_not(input: Operand, /) -> Node:
    """~input, of integers or bools."""
    x = as_node(input)
    require_dtype("bitwise_not", (x,), "bi")
    return ops.bitwise_not(x)


@user_op(stores="wide")
def where(condition: Operand, input: Operand, other: Operand, /) -> Node:
    """input where condition (a bool tensor), else other. As in PyTorch uint8 counts as bool here."""
    test = as_node(condition)
    if test.dtype is u8:
        test = cast(test, bool_)
    if not test.dtype.is_bool:
        raise IRTypeError(f"where() needs a bool condition, not {test.dtype.public_name}")
    x, y = promotion.promote(input, other)
    test, x, y = broadcast(test, x, y)
    return ops.where(test, x, y)
