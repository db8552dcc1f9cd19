"""Sums by matrix-vector products, other reductions by the ufuncs' `reduce`."""

from __future__ import annotations

from math import prod

import numpy as np

from tracegrad.backends.numpy.codegen_elementwise import kernel_call
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.ir.graph import Node
from tracegrad.ir.types import DType, f32, f64
from tracegrad.passes.memory.storage import View, c_strides, reshaped

REDUCE = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
GEMV_ROW = 4096  # longest row summed by a dot product; longer rows want pairwise summation
GEMV_SIZE = 256  # elements below which one ufunc call costs less


def ones(w: Writer, count: int, dtype: DType) -> str:
    return w.constant(np.ones(count, dtype.np), key=("ones", count, dtype))


@emits("sum", "prod", "max", "min")
def emit_reduce(w: Writer, node: Node) -> None:
    x, axes, out = node.inputs[0], node.attrs["axes"], w.out(node)
    dtype = node.dtype
    if not axes:
        w.call(w.np("copyto"), out, w.ref(x))
        return
    if x.type.size == 0 or dtype.name in ("f16", "bf16"):
        w.call(w.np("copyto"), out, kernel_call(w, node, [w.ref(x)]))
        return
    if node.op.name == "sum" and dtype in (f32, f64) and _sum_by_gemv(w, node, x, axes):
        return
    ufunc = w.np(REDUCE[node.op.name])
    axis = f"{axes[0]}" if len(axes) == 1 else f"{axes}"
    kind = w.dtype(dtype) if node.op.name in ("sum", "prod") else "None"
    w.line(f"{ufunc}.reduce({w.ref(x)}, {axis}, {kind}, {out})")


def _sum_by_gemv(w: Writer, node: Node, x: Node, axes: tuple[int, ...]) -> bool:
    """Sum the trailing axes, then the leading ones, each as one product with ones."""
    view = w.placed.view(x)
    lead = 0
    while lead in axes:
        lead += 1
    trail = x.ndim
    while trail - 1 in axes and trail > lead:
        trail -= 1
    if set(axes) != {*range(lead), *range(trail, x.ndim)} or x.type.size < GEMV_SIZE:
        return False
    if not view.contiguous or view.storage.kind == "constant":
        return False
    rows, middle, columns = prod(x.shape[:lead]), prod(x.shape[lead:trail]), prod(x.shape[trail:])
    if middle == 1 or columns > GEMV_ROW:
        return False
    w.np("matmul")
    out, source = w.out(node), w.reshape(x, (rows * middle, columns))
    if columns == 1:
        source = w.reshape(x, (rows, middle))
        target = _flat(w, node, middle)
        w.line(f"matmul({ones(w, rows, x.dtype)}, {source}, {target})")
        return True
    if rows == 1:
        w.line(f"matmul({source}, {ones(w, columns, x.dtype)}, {_flat(w, node, middle)})")
        return True
    partial = w.workspace((rows * middle,), x.dtype)
    folded = View(partial.storage, (rows, middle), c_strides((rows, middle)), 0, x.dtype)
    w.line(f"matmul({source}, {ones(w, columns, x.dtype)}, {w.view(partial)})")
    w.line(f"matmul({ones(w, rows, x.dtype)}, {w.view(folded)}, {_flat(w, node, middle)})")
    assert out
    return True


def _flat(w: Writer, node: Node, size: int) -> str:
    """The result of `node` as one axis."""
    if node.shape == (size,):
        return w.out(node)
    view = w.placed.view(node)
    if view.storage.kind == "input":
        return w.prologue(f"{w.out(node)}.reshape({size})", w.out(node))
    flat = reshaped(view, (size,))
    assert flat is not None, "reductions write contiguous results"
    return w.view(flat)


@emits("argmax", "argmin")
def emit_arg(w: Writer, node: Node) -> None:
    x, axis = node.inputs[0], node.attrs["axis"]
    if x.type.size == 0 or x.dtype.name in ("f16", "bf16") or x.dtype.is_complex:
        w.call(w.np("copyto"), w.out(node), kernel_call(w, node, [w.ref(x)]))
        return
    w.call(w.np(node.op.name), w.ref(x), str(axis), w.out(node))
