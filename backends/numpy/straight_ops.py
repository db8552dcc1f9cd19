"""Ops as NumPy expressions over shapes and dtypes known beforehand; see straight.py.

An entry gives the text of one expression, after lines of its own if it needs any, or None where
only the kernel will do (16-bit floats that must be widened, for one). Steps that only the line
before reads are overwritten: they have the layout of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np

from tracegrad.backends.numpy.fast import extremes
from tracegrad.backends.numpy.fast.select import PAYS_FROM, select
from tracegrad.backends.numpy.kernels.elementwise import PLAIN, WIDENED, power
from tracegrad.backends.numpy.kernels.random import random_bits
from tracegrad.backends.numpy.kernels.registry import is_bfloat16, is_half
from tracegrad.backends.numpy.kernels.shape import slices
from tracegrad.ir.graph import Node
from tracegrad.ir.types import c64, c128, f32, f64

EXPRESSIONS: dict[str, Callable[[Any, Node], str | None]] = {}
FLOATS = (f32, f64)


def expression(*names: str) -> Any:
    def register(function: Any) -> Any:
        for name in names:
            EXPRESSIONS[name] = function
        return function

    return register


# ------------------------------------------------------------------ elementwise


def _ufunc(ufunc: np.ufunc, halves: bool) -> Callable[[Any, Node], str | None]:
    """A ufunc; of 16-bit floats only if it is right for them as it is."""

    def text(w: Any, node: Node) -> str | None:
        if not halves and is_half(node.inputs[0].type.dtype.np):
            return None
        operands = w.broadcasting(node)
        if node.op.name in _OVERWRITING and w.may_overwrite(node.inputs[0], node.inputs[1], node):
            operands.append(operands[0])
        return f"{w.use(ufunc)}({', '.join(operands)})"

    return text


_OVERWRITING = frozenset(("add", "sub", "mul", "div"))
for _table, _halves in ((PLAIN, True), (WIDENED, False)):
    for _name, _function in _table.items():
        if isinstance(_function, np.ufunc):
            EXPRESSIONS[_name] = _ufunc(_function, _halves)


@expression("pow")
def _pow(w: Any, node: Node) -> str | None:
    if is_half(node.type.dtype.np) or not node.type.dtype.is_inexact:
        return None
    return f"{w.use(power)}({', '.join(w.broadcasting(node))})"


@expression("rsqrt")
def _rsqrt(w: Any, node: Node) -> str | None:
    if is_half(node.type.dtype.np):
        return None
    return f"1 / {w.use(np.sqrt)}({w.whole(node.inputs[0])})"


@expression("where")
def _where(w: Any, node: Node) -> str:
    if node.type.size >= PAYS_FROM and w.slim(node.inputs[0])[1] == node.type.shape:
        x, y = (w.slim(operand)[0] for operand in node.inputs[1:])
        return f"{w.use(select)}({w.whole(node.inputs[0])}, {x}, {y})"
    return f"{w.use(np.where)}({', '.join(w.broadcasting(node))})"


@expression("cast")
def _cast(w: Any, node: Node) -> str | None:
    operand, target = node.inputs[0], node.attrs.dtype
    source = operand.type.dtype
    if operand in w.numbers and target in (f32, f64, c64, c128):
        if target.is_complex or not source.is_complex:
            return str(w.number(operand, target))
    if source is target:
        return str(w.whole(operand))
    if target.is_bool:
        return f"{w.whole(operand)} != 0"
    if source.is_complex and not target.is_complex:
        return None
    if (is_bfloat16(source.np) or is_bfloat16(target.np)) and (
        source.is_complex or target.is_complex
    ):
        return None
    order = ", 'C'" if node in w.last else ""
    return f"{w.whole(operand)}.astype({w.use(target.np)}{order})"


@expression("maximum", "minimum")
def _extreme(w: Any, node: Node) -> str | None:
    ufunc = np.maximum if node.op.name == "maximum" else np.minimum
    (first, other), (second, size) = map(w.slim, node.inputs)
    if other == ():
        (first, other), (second, size) = (second, size), (first, other)
    if node.type.size < extremes.PAYS_FROM or size != () or other != node.type.shape:
        return _ufunc(ufunc, True)(w, node)
    return f"{w.use(extremes.with_number)}({w.use(ufunc)}, {first}, {second})"


@expression("relu")
def _relu(w: Any, node: Node) -> str:
    if node.type.size >= extremes.PAYS_FROM:
        return f"{w.use(extremes.relu)}({w.whole(node.inputs[0])})"
    zero = number(w, node.type.dtype.np, 0)
    return f"{w.use(np.maximum)}({w.whole(node.inputs[0])}, {zero})"


@expression("sigmoid")
def _sigmoid(w: Any, node: Node) -> str | None:
    if node.type.dtype not in FLOATS or not node.type.shape:
        return None
    t = w.let(f"{w.use(np.negative)}({w.whole(node.inputs[0])})")
    w.line(f"{w.use(np.exp)}({t}, {t})")
    w.line(f"{w.use(np.add)}({t}, {number(w, node.type.dtype.np, 1)}, {t})")
    return f"{w.use(np.true_divide)}({number(w, node.type.dtype.np, 1)}, {t}, {t})"


@expression("silu")
def _silu(w: Any, node: Node) -> str | None:
    gate = _sigmoid(w, node)
    if gate is None:
        return None
    t = w.let(gate)
    return f"{w.use(np.multiply)}({w.whole(node.inputs[0])}, {t}, {t})"


@expression("gelu")
def _gelu(w: Any, node: Node) -> str | None:
    dtype = node.type.dtype
    if dtype not in FLOATS or not node.type.shape:
        return None
    if node.attrs.approximate == "none":
        from tracegrad.backends.numpy.fast.special import gelu_of  # loaded when first needed

        return f"{w.use(gelu_of)}({w.whole(node.inputs[0])})" if dtype is f32 else None
    x, multiply, add = w.whole(node.inputs[0]), w.use(np.multiply), w.use(np.add)
    t = w.let(f"{multiply}({x}, {x})")
    w.line(f"{multiply}({t}, {x}, {t})")
    w.line(f"{multiply}({t}, {number(w, dtype.np, 0.044715)}, {t})")
    w.line(f"{add}({t}, {x}, {t})")
    w.line(f"{multiply}({t}, {number(w, dtype.np, sqrt(2 / pi))}, {t})")
    w.line(f"{w.use(np.tanh)}({t}, {t})")
    w.line(f"{add}({t}, {number(w, dtype.np, 1)}, {t})")
    half = w.let(f"{multiply}({x}, {number(w, dtype.np, 0.5)})")
    return f"{multiply}({half}, {t}, {half})"


def number(w: Any, dtype: np.dtype[Any], value: float) -> str:
    """A constant of this dtype: 0-d arrays are what ufuncs take fastest."""
    array = np.asarray(value, dtype)
    return str(w.use(array, (dtype, array.tobytes())))


@expression("dropout")
def _dropout(w: Any, node: Node) -> str | None:
    (x, key), dtype, rate = node.inputs, node.type.dtype, node.attrs.rate
    threshold = round(rate * 2**32)
    if dtype not in FLOATS or not 0 < threshold < 2**32:
        return None
    drawn = f"{w.use(random_bits)}({w.whole(key)}, {node.type.shape})"
    kept = f"{w.use(np.greater_equal)}({drawn}, {number(w, np.dtype(np.uint32), threshold)})"
    scaled = f"{w.use(np.multiply)}({w.whole(x)}, {number(w, dtype.np, 1 / (1 - rate))})"
    return f"{w.use(select)}({kept}, {scaled}, {number(w, dtype.np, 0)})"


# ------------------------------------------------------------------ reductions


def _reduce(ufunc: np.ufunc, typed: bool) -> Callable[[Any, Node], str | None]:
    def text(w: Any, node: Node) -> str | None:
        operand = node.inputs[0]
        if is_half(operand.type.dtype.np) or not operand.type.shape or not operand.type.size:
            return None
        dtype = f", {w.use(operand.type.dtype.np)}" if typed else ""
        return f"{w.use(ufunc.reduce)}({w.whole(operand)}, {node.attrs.axes}{dtype})"

    return text


for _name, _function, _typed in (
    ("sum", np.add, True), ("prod", np.multiply, True), ("max", np.maximum, False), ("min", np.minimum, False),
):  # fmt: skip
    EXPRESSIONS[_name] = _reduce(_function, _typed)


def _scan(ufunc: np.ufunc) -> Callable[[Any, Node], str | None]:
    def text(w: Any, node: Node) -> str | None:
        dtype = node.type.dtype.np
        if is_half(dtype) or not node.type.shape:
            return None
        return f"{w.use(ufunc.accumulate)}({w.whole(node.inputs[0])}, {node.attrs.axis}, {w.use(dtype)})"

    return text


for _name, _function in (
    ("cumsum", np.add), ("cumprod", np.multiply), ("cummax", np.maximum), ("cummin", np.minimum),
    ("cumlogsumexp", np.logaddexp),
):  # fmt: skip
    EXPRESSIONS[_name] = _scan(_function)


@expression("argmax", "argmin")
def _position(w: Any, node: Node) -> str | None:
    operand = node.inputs[0]
    if is_half(operand.type.dtype.np) or not operand.type.shape or np.intp != np.int64:
        return None
    return f"{w.whole(operand)}.{node.op.name}({node.attrs.axis})"


def _kept(w: Any, ufunc: np.ufunc, text: str, axis: Any) -> str:
    return f"{w.use(ufunc.reduce)}({text}, {axis}, None, None, True)"


@expression("softmax")
def _softmax(w: Any, node: Node) -> str | None:
    if node.type.dtype not in FLOATS:
        return None
    e = _exp_of_shifted(w, node)
    return f"{w.use(np.true_divide)}({e}, {_kept(w, np.add, e, node.attrs.axis)}, {e})"


def _exp_of_shifted(w: Any, node: Node) -> str:
    """A new array exp(x - max(x))."""
    x = w.whole(node.inputs[0])
    e = w.let(f"{w.use(np.subtract)}({x}, {_kept(w, np.maximum, x, node.attrs.axis)})")
    w.line(f"{w.use(np.exp)}({e}, {e})")
    return str(e)


@expression("log_softmax")
def _log_softmax(w: Any, node: Node) -> str | None:
    if node.type.dtype not in FLOATS:
        return None
    x, subtract = w.whole(node.inputs[0]), w.use(np.subtract)
    shifted = w.let(f"{subtract}({x}, {_kept(w, np.maximum, x, node.attrs.axis)})")
    mass = _kept(w, np.add, f"{w.use(np.exp)}({shifted})", node.attrs.axis)
    return f"{subtract}({shifted}, {w.use(np.log)}({mass}), {shifted})"


def _mean(w: Any, text: str, dtype: np.dtype[Any], axes: tuple[int, ...], count: int) -> str:
    """The mean over axes, which stay: np.mean without its Python."""
    total = w.let(_kept(w, np.add, text, axes))
    return f"{w.use(np.true_divide)}({total}, {number(w, dtype, count)}, {total})"


@expression("layer_norm")
def _layer_norm(w: Any, node: Node) -> str | None:
    x_node, scale, shift = node.inputs
    dtype, shape = node.type.dtype, node.type.shape
    axes = tuple(range(len(shape) - node.attrs.ndim, len(shape)))
    count = int(np.prod([shape[k] for k in axes]))
    if dtype not in FLOATS or not 0 < count < 2**24:
        return None
    x, multiply = w.whole(x_node), w.use(np.multiply)
    t = w.let(f"{w.use(np.subtract)}({x}, {_mean(w, x, dtype.np, axes, count)})")
    rstd = w.let(_mean(w, f"{multiply}({t}, {t})", dtype.np, axes, count))
    w.line(f"{w.use(np.add)}({rstd}, {number(w, dtype.np, node.attrs.eps)}, {rstd})")
    w.line(f"{w.use(np.sqrt)}({rstd}, {rstd})")
    w.line(f"{w.use(np.true_divide)}({number(w, dtype.np, 1)}, {rstd}, {rstd})")
    w.line(f"{multiply}({t}, {rstd}, {t})")
    w.line(f"{multiply}({t}, {w.slim(scale)[0]}, {t})")
    return f"{w.use(np.add)}({t}, {w.slim(shift)[0]}, {t})"


# ------------------------------------------------------------------ shapes and indices


@expression("reshape")
def _reshape(w: Any, node: Node) -> str:
    return f"{w.whole(node.inputs[0])}.reshape({node.type.shape})"


@expression("transpose")
def _transpose(w: Any, node: Node) -> str | None:
    return f"{w.whole(node.inputs[0])}.transpose({node.attrs.perm})" if node.type.shape else None


@expression("slice")
def _slice(w: Any, node: Node) -> str | None:
    if not node.type.shape:
        return None
    index = slices(node.attrs.start, node.attrs.stop, node.attrs.step)
    return f"{w.whole(node.inputs[0])}[{w.use(index, node)}]"


@expression("broadcast_to")
def _broadcast_to(w: Any, node: Node) -> str | None:
    if list(node.attrs.dims) != sorted(node.attrs.dims):
        return None
    return f"{w.use(np.broadcast_to)}({w.aligned(node)[0]}, {node.type.shape})"


@expression("concatenate")
def _concatenate(w: Any, node: Node) -> str:
    parts = ", ".join(map(w.whole, node.inputs))
    return f"{w.use(np.concatenate)}(({parts},), {node.attrs.axis})"


@expression("matmul")
def _matmul(w: Any, node: Node) -> str | None:
    if is_half(node.type.dtype.np):
        return None
    return f"{w.use(np.matmul)}({w.whole(node.inputs[0])}, {w.whole(node.inputs[1])})"
