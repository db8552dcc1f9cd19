"""Choice and conversion of elements."""

from __future__ import annotations

from tracegrad.ir import ops
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    checked_dtype,
    equal_types,
    no_flops,
    register,
    require,
    tensor,
    traits,
)
from tracegrad.ir.ops.traits import CHEAP, ELEMENTWISE
from tracegrad.ir.types import DType, TensorType, bool_


def _where_type(cond: TensorType, x: TensorType, y: TensorType) -> TensorType:
    result = equal_types(x, y)
    require(cond == result.with_dtype(bool_), f"condition must be bool{list(result.shape)}")
    return result


def _where_vjp(ct: Node, z: Node, cond: Node, x: Node, y: Node) -> tuple[None, Node, Node]:
    zero = ops.zeros_like(ct)
    return None, ops.where(cond, ct, zero), ops.where(cond, zero, ct)


# x where cond holds, y elsewhere.
where = register(Op("where", infer=_where_type, vjp=_where_vjp, traits=traits(ELEMENTWISE, CHEAP)))


def _cast_type(x: TensorType, dtype: DType) -> TensorType:
    return tensor(x).with_dtype(checked_dtype(dtype))


def _cast_vjp(ct: Node, y: Node, x: Node, dtype: DType) -> tuple[Node | None]:
    # complex -> real takes the real part, whose adjoint puts ct there; real -> complex conversely
    if not (x.dtype.is_inexact and dtype.is_inexact):
        return (None,)
    return (ops.cast(ct, dtype=x.dtype),)


# The same values as another dtype; to bool is `!= 0`, complex to real drops the imaginary part,
# float to int truncates.
cast = register(
    Op("cast", attrs=("dtype",), infer=_cast_type, vjp=_cast_vjp, traits=traits(ELEMENTWISE, CHEAP))
)


def _bitcast_type(x: TensorType, dtype: DType) -> TensorType:
    same = tensor(x).dtype.itemsize == checked_dtype(dtype).itemsize
    require(same, f"{x.dtype.name} and {dtype.name} differ in size")
    require((x.dtype is bool_) == (dtype is bool_), "the bits of a bool are not portable")
    return x.with_dtype(dtype)


# The same bits read as another dtype of the same size.
bitcast = register(
    Op(
        "bitcast",
        attrs=("dtype",),
        infer=_bitcast_type,
        not_differentiable="acts on bits",
        traits=traits(ELEMENTWISE, CHEAP),
        flops=no_flops,
    )
)
