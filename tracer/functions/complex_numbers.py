"""Complex numbers: their parts, their angle, and how they are made of these."""

from __future__ import annotations

import math
from typing import Any

from tracegrad.ir import ops
from tracegrad.ir.errors import IRTypeError
from tracegrad.ir.graph import Node
from tracegrad.ir.ops.build import full_like
from tracegrad.ir.ops.shape import take_range
from tracegrad.tracer.dispatch import user_op
from tracegrad.tracer.functions.axes import reshape
from tracegrad.tracer.functions.promotion import (
    Operand,
    as_node,
    broadcast,
    require_dtype,
    to_float,
)


@user_op
def real(input: Operand, /) -> Node:
    """The real part."""
    x = as_node(input)
    return ops.real(x) if x.dtype.is_complex else x


@user_op
def imag(input: Operand, /) -> Node:
    """The imaginary part of a complex tensor."""
    x = as_node(input)
    require_dtype("imag", (x,), "c")
    return ops.imag(x)


@user_op
def conj_(input: Operand, /) -> Node:
    """The complex conjugate of a complex tensor."""
    return ops.conj(as_node(input))


@user_op
def angle(input: Operand, /) -> Node:
    """The angle of a complex number; of a real one 0 or pi."""
    x = to_float(input)
    if x.dtype.is_complex:
        return ops.atan2(ops.imag(x), ops.real(x))
    zero = ops.zeros_like(x)
    turned = ops.where(ops.lt(x, zero), full_like(x, math.pi), zero)
    return ops.where(ops.isnan(x), x, turned)


def complex_parts(name: str, first: Operand, second: Operand) -> tuple[Node, ...]:
    x, y = as_node(first), as_node(second)
    if x.dtype is not y.dtype or not x.dtype.is_float:
        names = f"{x.dtype.public_name} and {y.dtype.public_name}"
        raise IRTypeError(f"{name}() needs two tensors of one floating dtype, got {names}")
    return broadcast(x, y)


@user_op
def complex_(real: Operand, imag: Operand, /) -> Node:
    """real + imag * i, of two floating tensors of one dtype."""
    return ops.complex_(*complex_parts("complex", real, imag))


@user_op
def polar(abs: Operand, angle: Operand, /) -> Node:
    """abs * exp(i * angle), of two floating tensors of one dtype."""
    size, turn = complex_parts("polar", abs, angle)
    return ops.complex_(ops.mul(size, ops.cos(turn)), ops.mul(size, ops.sin(turn)))


@user_op
def view_as_real(input: Operand, /) -> Node:
    """A complex tensor's parts as a last dimension of 2 (a copy)."""
    x = as_node(input)
    require_dtype("view_as_real", (x,), "c")
    parts = [reshape(part, (*x.shape, 1)) for part in (ops.real(x), ops.imag(x))]
    return ops.concatenate(*parts, axis=x.ndim)


@user_op
def view_as_complex(input: Operand, /) -> Node:
    """A last dimension of 2 as the parts of complex numbers (a copy)."""
    x = as_node(input)
    require_dtype("view_as_complex", (x,), "f")
    if not x.ndim or x.shape[-1] != 2:
        raise IRTypeError(f"view_as_complex() needs a last dimension of 2, got {list(x.shape)}")
    parts = (reshape(take_range(x, x.ndim - 1, k, k + 1), x.shape[:-1]) for k in (0, 1))
    return ops.complex_(*parts)


def conj(input: Any) -> Any:
    """The complex conjugate."""
    return conj_(input) if input.dtype.is_complex else input


PLAIN = (conj,)
