"""Elementwise ops of two inputs of one type, and comparisons.

On bool `add` is or, `mul` is and, `maximum` is or, `minimum` is and; `sub` is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.hazards import ZERO, Hazard
from tracegrad.ir.ops.base import output_flops, register, same_type, to_bool, traits
from tracegrad.ir.ops.elementwise import conj_if_complex as _conj
from tracegrad.ir.ops.traits import CHEAP, COMMUTATIVE, ELEMENTWISE
from tracegrad.ir.types import TensorType

VJP = Callable[..., tuple[Any, ...]]


def _binary(
    name: str,
    categories: str,
    vjp: VJP | None = None,
    *,
    commutative: bool = False,
    flops: float = 1,
    infer: Callable[..., TensorType] | None = None,
    not_differentiable: str = "",
    hazards: Callable[[Node], list[Hazard]] | None = None,
) -> Op:
    names = [ELEMENTWISE]
    names += [CHEAP] if flops <= 1 else []
    names += [COMMUTATIVE] if commutative else []
    return register(
        Op(
            name,
            infer=infer or same_type(categories, 2),
            vjp=vjp,
            not_differentiable=not_differentiable,
            traits=traits(*names),
            flops=output_flops(flops),
            hazards=hazards,
        )
    )


# ---------------------------------------------------------------- arithmetic


def _add_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    return ct, ct


def _sub_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    return ct, -ct


def _mul_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    return ct * _conj(y), ct * _conj(x)


def _div_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # d(x/y)/dy = -(x/y)/y
    dx = ct / _conj(y)
    return dx, -(dx * _conj(z))


def _rem_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # rem(x, y) = x - y floor(x/y)
    return ct, -(ct * ops.floor_div(x, y))


def _floor_div_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    return ops.zeros_like(x), ops.zeros_like(y)  # piecewise constant


add = _binary("add", "bifc", _add_vjp, commutative=True)
sub = _binary("sub", "ifc", _sub_vjp)
mul = _binary("mul", "bifc", _mul_vjp, commutative=True)
div = _binary("div", "fc", _div_vjp)


def _by_zero(node: Node) -> list[Hazard]:
    """Floats answer inf or nan."""
    return [Hazard(ZERO, node.inputs[1])] if node.dtype.is_int else []


# rounds towards minus infinity
floor_div = _binary("floor_div", "if", _floor_div_vjp, hazards=_by_zero)
# sign of the divisor, as Python's %
rem = _binary("rem", "if", _rem_vjp, hazards=_by_zero)

# ---------------------------------------------------------------- powers and angles


def _pow_vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
    zero, one = ops.zeros_like(x), ops.ones_like(x)
    x_zero, y_zero = ops.eq(x, zero), ops.eq(y, zero)
    # d(x^y)/dx = y x^(y-1), and 0 where y = 0. There x^(y-1) may be infinite at x = 0: the inputs
    # of the unselected branch are made harmless, since 0 * inf would be nan in the next order.
    flat = ops.and_(x_zero, y_zero)
    power = ops.pow_(x, ops.where(flat, one, y) - 1)
    dx = ops.where(flat, zero, ct * _conj(y * power))
    # d(x^y)/dy = x^y log x, and 0 where x = 0 and y >= 0
    y_real = ops.real(y) if y.dtype.is_complex else y
    limit = ops.and_(x_zero, ops.le(ops.zeros_like(y_real), y_real))
    dy = ops.where(limit, zero, ct * _conj(z * ops.log(ops.where(limit, one, x))))
    return dx, dy


def _atan2_vjp(ct: Node, z: Node, y: Node, x: Node) -> tuple[Node, Node]:
    # d atan2(y, x) = (x dy - y dx) / (x^2 + y^2)
    square = x * x + y * y
    # zero at the origin, as in PyTorch
    scaled = ct / ops.where(ops.eq(square, ops.zeros_like(square)), ops.ones_like(square), square)
    return scaled * x, -(scaled * y)


pow_ = _binary("pow", "ifc", _pow_vjp, flops=16)
atan2 = _binary("atan2", "f", _atan2_vjp, flops=16)
nextafter = _binary("nextafter", "f", not_differentiable="steps through representable numbers")

# -------------------------------------------------------------- extremes: a tie gives half to each


def _extreme_vjp(first_wins: Callable[[Node, Node], Node]) -> VJP:
    def vjp(ct: Node, z: Node, x: Node, y: Node) -> tuple[Node, Node]:
        zero = ops.zeros_like(ct)
        shared = ops.where(ops.eq(x, y), ct * 0.5, ct)
        # Said as "not lost", so that a nan, which loses to nothing, passes its gradient on to both.
        dx = ops.where(first_wins(y, x), zero, shared)
        dy = ops.where(first_wins(x, y), zero, shared)
        return dx, dy

    return vjp


maximum = _binary("maximum", "bif", _extreme_vjp(lambda x, y: ops.lt(y, x)), commutative=True)
minimum = _binary("minimum", "bif", _extreme_vjp(lambda x, y: ops.lt(x, y)), commutative=True)

# ---------------------------------------------------------------- bits

and_ = _binary("and", "bi", commutative=True, not_differentiable="acts on bits")
or_ = _binary("or", "bi", commutative=True, not_differentiable="acts on bits")
xor = _binary("xor", "bi", commutative=True, not_differentiable="acts on bits")
shl = _binary("shl", "i", not_differentiable="acts on bits")
shr = _binary("shr", "i", not_differentiable="acts on bits")

# ---------------------------------------------------------------- comparisons; False < True

_BOOL = "the result is bool"
eq = _binary("eq", "bifc", infer=to_bool("bifc", 2), commutative=True, not_differentiable=_BOOL)
lt = _binary("lt", "bif", infer=to_bool("bif", 2), not_differentiable=_BOOL)
le = _binary("le", "bif", infer=to_bool("bif", 2), not_differentiable=_BOOL)
