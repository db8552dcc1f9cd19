"""Ops without inputs, and the helpers that write constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.const import Const
from tracegrad.ir.graph import Node, Op
from tracegrad.ir.ops.base import (
    checked_axis,
    checked_dtype,
    checked_ints,
    no_flops,
    register,
    require,
    traits,
)
from tracegrad.ir.ops.traits import CHEAP, SOURCE
from tracegrad.ir.types import DType, TensorType, bool_


def _constant_type(value: Const) -> TensorType:
    require(isinstance(value, Const), f"value must be a Const, not {type(value).__name__}")
    return value.type


# The array `value`.
constant = register(
    Op(
        "constant",
        attrs=("value",),
        infer=_constant_type,
        not_differentiable="has no inputs",
        traits=traits(SOURCE, CHEAP),
        flops=no_flops,
    )
)


def _iota_type(shape: tuple[int, ...], axis: int, dtype: DType) -> TensorType:
    checked_ints(shape, None, "shape")
    checked_axis(axis, len(shape))
    require(checked_dtype(dtype) is not bool_, "cannot count in bool")
    return TensorType(shape, dtype)


# 0, 1, 2, ... along `axis`, the same along every other axis.
iota = register(
    Op(
        "iota",
        attrs=("shape", "axis", "dtype"),
        infer=_iota_type,
        not_differentiable="has no inputs",
        traits=traits(SOURCE, CHEAP),
        flops=no_flops,
    )
)


def splat(value: Any, type: TensorType) -> Node:
    """A constant of `type`, every element `value`. Raises IRTypeError where it is no such value."""
    return constant(value=Const.full(type.shape, type.dtype, value))


def literal(array: Any) -> Node:
    """A constant that holds (a copy of) `array`."""
    return constant(value=Const(np.asarray(array)))


def zeros_like(node: Node) -> Node:
    return splat(0, node.type)


def ones_like(node: Node) -> Node:
    return splat(1, node.type)
