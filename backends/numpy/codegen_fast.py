"""Ops that a hand-written plan of `fast` runs: attention, LSTM, convolution, windows, random bits.

A plan owns its workspace. It is made when the code is bound, once for all steps that want the same
one: steps run one after another.
"""

from __future__ import annotations

from typing import Any

from tracegrad.backends.numpy.codegen_moves import emit_kernel, unless_in_place
from tracegrad.backends.numpy.codegen_writer import Writer, emits
from tracegrad.backends.numpy.fast.attention import Attention, AttentionBackward
from tracegrad.backends.numpy.fast.conv import ConvPlan
from tracegrad.backends.numpy.fast.lstm import LstmBackward, LstmForward
from tracegrad.backends.numpy.fast.random import bits_into
from tracegrad.backends.numpy.fast.reduce import add_rows
from tracegrad.backends.numpy.fast.windows import SelectScatter, WindowMax, WindowSum
from tracegrad.backends.numpy.kernels.index import check_bounds
from tracegrad.ir.graph import Node
from tracegrad.ir.types import f32, f64

# Composites that are not taken apart for this backend.
CLAIMED = frozenset({"sdpa", "sdpa_backward", "lstm", "lstm_backward"})
BLAS_TYPES = (f32, f64)


def plan(w: Writer, kind: type, dtype: Any, *shapes: Any, **attrs: Any) -> str:
    """Name of a plan of class `kind` for these shapes."""
    arguments = [repr(shape) for shape in shapes]
    arguments += [f"{key}={value!r}" for key, value in attrs.items()]
    arguments.append(f"dtype={w.dtype(dtype)}")
    name = w.prebuilt(f"{w.use(kind.__name__, kind)}({', '.join(arguments)})")
    if name not in w.plan_bytes:
        w.plan_bytes[name] = int(kind(*shapes, **attrs, dtype=dtype.np).nbytes)
    return name


@emits("sdpa", "sdpa_backward")
def emit_attention(w: Writer, node: Node) -> None:
    if node.inputs[0].dtype not in BLAS_TYPES or 0 in node.inputs[0].shape:
        emit_kernel(w, node)
        return
    forward = node.op.name == "sdpa"
    q, _, v = node.inputs[:3] if forward else node.inputs[1:4]
    kind = Attention if forward else AttentionBackward
    attrs = dict(causal=node.attrs["causal"], scale=node.attrs["scale"], threads=w.cores.threads)
    name = plan(w, kind, q.dtype, q.shape, v.shape, **attrs)
    outs = [w.out(node, index) for index in range(len(node.type.parts))]
    w.call(name, *(w.ref(x) for x in node.inputs), *outs)


@emits("lstm")
def emit_lstm(w: Writer, node: Node) -> None:
    x, h0 = node.inputs[:2]
    if x.dtype not in BLAS_TYPES or 0 in (*x.shape, *h0.shape):
        emit_kernel(w, node)
        return
    name = plan(w, LstmForward, x.dtype, x.shape, h0.shape[-1])
    w.call(name, *(w.ref(i) for i in node.inputs), *(w.out(node, k) for k in range(3)))


@emits("lstm_backward")
def emit_lstm_backward(w: Writer, node: Node) -> None:
    x, h0 = node.inputs[3], node.inputs[4]
    if x.dtype not in BLAS_TYPES or 0 in (*x.shape, *h0.shape):
        emit_kernel(w, node)
        return
    name = plan(w, LstmBackward, x.dtype, x.shape, h0.shape[-1])
    outs = ", ".join(w.out(node, k) for k in range(len(node.type.parts)))
    w.call(name, *(w.ref(i) for i in node.inputs), f"({outs})")


@emits("conv")
def emit_conv(w: Writer, node: Node) -> None:
    x, filters = node.inputs
    if x.dtype not in BLAS_TYPES:
        emit_kernel(w, node)
        return
    name = plan(w, ConvPlan, x.dtype, x.shape, filters.shape, **node.attrs, threads=w.cores.threads)
    w.call(name, w.ref(x), w.ref(filters), w.out(node))


@emits("window_max", "window_sum", "select_scatter")
def emit_window(w: Writer, node: Node) -> None:
    x = node.inputs[-1]
    if node.type.size == 0 or x.type.size == 0 or x.dtype not in BLAS_TYPES:
        emit_kernel(w, node)
        return
    kind = {"window_max": WindowMax, "window_sum": WindowSum}.get(node.op.name, SelectScatter)
    threads = {} if kind is WindowSum else {"threads": w.cores.threads}
    name = plan(w, kind, x.dtype, x.shape, **node.attrs, **threads)
    w.call(name, *(w.ref(i) for i in node.inputs), w.out(node))


@emits("random_bits")
def emit_random_bits(w: Writer, node: Node) -> None:
    w.call(w.use("bits_into", bits_into), w.ref(node.inputs[0]), w.out(node), repr(w.cores.threads))


@emits("scatter")
def emit_scatter(w: Writer, node: Node) -> None:
    """The gradient of an embedding; any other scatter by its kernel."""
    x, *indices, u = node.inputs
    rows = node.attrs["mode"] == "add" and node.attrs["axes"] == (0,) and x.dtype in BLAS_TYPES
    if not rows or x.ndim != 2 or len(indices) != 1 or x.type.size == 0 or u.type.size == 0:
        emit_kernel(w, node)
        return
    out, index = w.out(node), w.ref(indices[0])
    unless_in_place(w, node, x, out)
    w.use("add_rows", add_rows), w.use("check_bounds", check_bounds)
    w.line(f"check_bounds({index}, {x.shape[0]}, 0)")
    width = u.shape[-1]
    w.line(f"add_rows({out}, {index}.reshape(-1), {w.reshape(u, (u.type.size // width, width))})")
