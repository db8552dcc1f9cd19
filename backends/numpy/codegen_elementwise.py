"""Elementwise ops as calls that write into `out`, on whole arrays or on tiles (codegen_fused)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tracegrad.backends.numpy.codegen_writer import EMITTERS, Writer
from tracegrad.backends.numpy.fast import extremes
from tracegrad.backends.numpy.fast.work import Array
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.backends.numpy.kernels.elementwise import power
from tracegrad.ir.graph import Node
from tracegrad.ir.ops import OPS
from tracegrad.ir.ops.traits import ELEMENTWISE
from tracegrad.ir.types import DType, f32, f64, i8, i32, i64
from tracegrad.passes.memory.storage import Shape
from tracegrad.passes.rules.patterns import shown_value

# Ops that are one ufunc on any dtype but the exceptions in `ufunc_of`.
UFUNCS: dict[str, str] = {
    "neg": "negative", "abs": "absolute", "sign": "sign", "add": "add", "sub": "subtract",
    "mul": "multiply", "div": "true_divide", "maximum": "maximum", "minimum": "minimum",
    "nextafter": "nextafter", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "bitwise_not": "invert", "shl": "left_shift", "shr": "right_shift", "eq": "equal", "lt": "less",
    "le": "less_equal", "isfinite": "isfinite", "isnan": "isnan", "conj": "conjugate",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint", "exp": "exp",
    "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
    "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "floor_div": "floor_divide", "rem": "remainder", "pow": "power", "atan2": "arctan2",
}  # fmt: skip
_EXTREMES = frozenset({"maximum", "minimum"})  # NumPy deprecated their positional `out`
LONGEST_NUMBER = 1 << 17  # elements of an array that stands for one number
# On every dtype; the others only on f32, f64 and complex (integers and halves go by their kernels).
_ANY_DTYPE = frozenset(
    "neg abs sign add sub mul maximum minimum and or xor bitwise_not shl shr eq lt le "
    "isfinite isnan conj".split()
)
_FLOATS_ONLY = frozenset({"floor_div", "rem", "pow", "atan2", "nextafter"})
_BITS: dict[int, DType] = {4: i32, 8: i64}
SELECT_BY_BITS = 512  # elements from which the exact bit select beats a masked copy

Operands = list[str]
Scratch = Callable[[DType], str]


def ufunc_of(op: str, dtype: DType) -> str | None:
    """Name of the ufunc that is `op` on operands of `dtype`; None where its kernel does more."""
    if op not in UFUNCS:
        return None
    if op in _ANY_DTYPE:
        return UFUNCS[op]
    if dtype is f32 or dtype is f64 or (dtype.is_complex and op not in _FLOATS_ONLY):
        return UFUNCS[op]
    return None


def by_bits(dtype: DType, size: int) -> bool:
    return size >= SELECT_BY_BITS and dtype.itemsize in _BITS and not dtype.is_complex


def alias_positions(node: Node) -> tuple[int, ...]:
    """Operands whose array the elementwise `node` may be written over, if the types are equal."""
    name = node.op.name
    if name == "where":
        if not by_bits(node.dtype, node.type.size):
            return (2,)  # y is copied first, x over it
        # the general bit select reads y to the end
        return (1, 2) if _is_zero(node.inputs[1]) or _is_zero(node.inputs[2]) else (1,)
    if name == "rsqrt" or (name != "cast" and ufunc_of(name, node.inputs[0].dtype) is not None):
        return tuple(range(len(node.inputs)))
    return ()


def needs_scratch(node: Node) -> DType | None:
    """The dtype of the one temporary the code of `node` uses."""
    if node.op.name == "where" and by_bits(node.dtype, node.type.size):
        return _BITS[node.dtype.itemsize]
    return None


def lines(w: Writer, node: Node, xs: Operands, out: str, scratch: Scratch) -> list[str]:
    """Code that writes `node` of the arrays `xs` into `out`; `xs` may broadcast."""
    name, dtype = node.op.name, node.inputs[0].dtype
    ufunc = ufunc_of(name, dtype)
    if name == "pow" and ufunc and shown_value(node.inputs[1]) == 2:
        return [f"{w.np('square')}({xs[0]}, {out})"]
    if ufunc is not None:
        w.use("power", power) if name == "pow" else w.np(ufunc)
        keyword = "out=" if name in _EXTREMES else ""
        return [f"{ufunc}({', '.join(xs)}, {keyword}{out})"]
    if name == "where":
        return _where(w, node, xs, out, scratch)
    if name == "cast" and "bf16" not in (dtype.name, node.dtype.name):
        w.np("copyto")
        source = f"{xs[0]}.real" if dtype.is_complex and not node.dtype.is_complex else xs[0]
        return [f"copyto({out}, {source}, 'unsafe')"]
    if name == "rsqrt" and dtype in (f32, f64):
        w.np("sqrt"), w.np("reciprocal")
        return [f"sqrt({xs[0]}, {out})", f"reciprocal({out}, {out})"]
    if name in ("real", "imag"):
        return [f"{w.np('copyto')}({out}, {xs[0]}.{name})"]
    return [f"{w.np('copyto')}({out}, {kernel_call(w, node, xs)})"]


def _is_zero(node: Node) -> bool:
    """All its bits are zero: not -0.0."""
    value = shown_value(node)
    return value is not None and not np.asarray(value, node.dtype.np).tobytes().strip(b"\0")


def _where(w: Writer, node: Node, xs: Operands, out: str, scratch: Scratch) -> list[str]:
    mask, x, y = xs
    dtype = node.dtype
    if not by_bits(dtype, node.type.size):
        w.np("copyto")
        base = [] if y == out else [f"copyto({out}, {y})"]
        return [*base, f"copyto({out}, {x}, 'unsafe', {mask})"]
    # ((x ^ y) & -mask) ^ y: exact for nan and inf, no branch a random mask could mislead
    bits = _BITS[dtype.itemsize]
    keep, mask = scratch(bits), w.as_dtype(mask, i8)

    def as_bits(name: str) -> str:
        return name if dtype in (i32, i64) else w.as_dtype(name, bits)

    target = as_bits(out)
    w.np("negative"), w.np("subtract"), w.np("bitwise_and"), w.np("bitwise_xor")
    if _is_zero(node.inputs[2]):
        return [f"negative({mask}, {keep})", f"bitwise_and({as_bits(x)}, {keep}, {target})"]
    if _is_zero(node.inputs[1]):  # y & (mask - 1)
        one = w.scalar(1, i8)
        return [f"subtract({mask}, {one}, {keep})", f"bitwise_and({as_bits(y)}, {keep}, {target})"]
    return [
        f"negative({mask}, {keep})",
        f"bitwise_xor({as_bits(x)}, {as_bits(y)}, {target})",
        f"bitwise_and({target}, {keep}, {target})",
        f"bitwise_xor({target}, {as_bits(y)}, {target})",
    ]


def kernel_call(w: Writer, node: Node, xs: Operands) -> str:
    """The plain kernel; its attributes are bound once."""
    name = w.use(f"kernel_{node.op.name}", KERNELS[node.op.name])
    attrs = []
    for key, value in node.attrs.items():
        if isinstance(value, DType):
            attrs.append(f"{key}={w.use(value.name + '_', value)}")
        else:
            attrs.append(f"{key}={value!r}")
    return f"{name}({', '.join([*xs, *attrs])})"


def whole_number(node: Node, x: Node, shape: Shape) -> Array | None:
    """The operand `x` of `node` as an array of this shape, if it is one number, and faster so."""
    pays = extremes.PAYS_FROM <= prod(shape) <= LONGEST_NUMBER
    if node.op.name not in _EXTREMES or not pays or not extremes.has_vector_code(node.dtype.np):
        return None
    value = shown_value(x)
    return None if value is None else extremes.filled(shape, np.asarray(value, node.dtype.np))


def emit_elementwise(w: Writer, node: Node) -> None:
    xs = []
    for operand in node.inputs:
        number = whole_number(node, operand, node.shape)
        xs.append(w.operand(operand) if number is None else w.constant(number, key=id(number)))
    scratch = lambda dtype: w.view(w.workspace(node.shape, dtype))
    for line in lines(w, node, xs, w.out(node), scratch):
        w.line(line)


EMITTERS.update(
    {
        name: emit_elementwise
        for name, op in OPS.items()
        if op.has(ELEMENTWISE) and name in KERNELS and name != "bitcast"
    }
)
