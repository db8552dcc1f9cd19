"""Ops that move elements: copies, concatenation, padding, slices, indexing; the run-time check."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tracegrad.backends.base import CHECKS
from tracegrad.backends.numpy.codegen_elementwise import kernel_call
from tracegrad.backends.numpy.codegen_writer import Writer, emits, slice_text
from tracegrad.backends.numpy.interpret import run_node
from tracegrad.backends.numpy.kernels import KERNELS
from tracegrad.backends.numpy.kernels.index import check_bounds
from tracegrad.ir.graph import Node
from tracegrad.passes.memory.place import same_place, slots
from tracegrad.passes.memory.storage import reshaped
from tracegrad.passes.views import viewed


@emits("copy")
def emit_copy(w: Writer, node: Node) -> None:
    w.call(w.np("copyto"), w.out(node), w.operand(node.inputs[0]))


@emits("reshape", "transpose", "slice", "broadcast_to", "fence", "detach", "rebind", "shard")
def emit_view_copy(w: Writer, node: Node) -> None:
    """A view that must move elements after all."""
    source = viewed(node)
    view = w.placed.view(node)
    w.np("copyto")
    if node.op.name == "reshape":
        # the elements in the operand's order: view the target as the operand's shape
        target = reshaped(view, source.shape)
        if target is not None:
            w.line(f"copyto({w.view(target)}, {w.ref(source)})")
        else:
            w.line(f"copyto({w.view(view)}, {w.ref(source)}.reshape({node.shape}))")
        return
    w.line(f"copyto({w.view(view)}, {kernel_call(w, node, [w.ref(i) for i in node.inputs])})")


@emits("concatenate")
def emit_concatenate(w: Writer, node: Node) -> None:
    """Operands that were computed in their place are there already."""
    target = w.placed.view(node)
    if target.storage.kind == "input":
        w.np("concatenate")
        parts = ", ".join(w.ref(operand) for operand in node.inputs)
        w.line(f"concatenate(({parts},), {node.attrs['axis']}, {w.out(node)})")
        return
    for operand, slot in zip(node.inputs, slots(node, target)):
        view = w.placed.view(operand)
        if operand.type.size and not same_place(view, slot):
            w.call(w.np("copyto"), w.view(slot), w.operand(operand))


@emits("pad")
def emit_pad(w: Writer, node: Node) -> None:
    x, value = node.inputs
    low, high, interior = (node.attrs[key] for key in ("low", "high", "interior"))
    out = w.out(node)
    start = low
    stop = tuple(n - h for n, h in zip(node.shape, high))
    step = tuple(gap + 1 for gap in interior)
    w.np("copyto")
    if x.shape != node.shape:
        w.line(f"{out}[...] = {w.operand(value)}")
    if x.type.size:
        w.line(f"{out}[{slice_text(start, stop, step)}] = {w.operand(x)}")


@emits("update_slice")
def emit_update_slice(w: Writer, node: Node) -> None:
    x, u = node.inputs
    out = w.out(node)
    unless_in_place(w, node, x, out)
    attrs = node.attrs
    if u.type.size:
        where = slice_text(attrs["start"], attrs["stop"], attrs["step"])
        w.line(f"{out}[{where}] = {w.operand(u)}")


def unless_in_place(w: Writer, node: Node, x: Node, out: str) -> None:
    old, new = w.placed.view(x), w.placed.view(node)
    if old.storage.root() is not new.storage.root():
        w.call(w.np("copyto"), out, w.ref(x))


@emits("gather")
def emit_gather(w: Writer, node: Node) -> None:
    x, *indices = node.inputs
    if len(indices) != 1 or not indices[0].type.size or not w.placed.view(node).contiguous:
        emit_kernel(w, node)
        return
    # take without bounds checking is three times as fast; check once
    (axis,) = node.attrs["axes"]
    index, source = w.ref(indices[0]), w.ref(x)
    w.use("check_bounds", check_bounds)
    w.np("moveaxis"), w.np("take")
    w.line(f"check_bounds({index}, {x.shape[axis]}, {axis})")
    front = source if axis == 0 else f"moveaxis({source}, {axis}, 0)"
    w.line(f"take({front}, {index}, 0, {w.out(node)}, 'clip')")


@emits("take_along")
def emit_take_along(w: Writer, node: Node) -> None:
    """Along the last axis: a take from the flat array; NumPy's own indexing makes a grid an axis."""
    x, index = node.inputs
    size = x.shape[-1]
    flat = all(w.placed.view(value).contiguous for value in (x, node))
    if not flat or node.attrs["axis"] != x.ndim - 1 or not x.type.size * node.type.size:
        emit_kernel(w, node)
        return
    rows = w.constant(np.arange(0, x.type.size, size).reshape(*x.shape[:-1], 1))
    places = w.view(w.workspace(index.shape, index.dtype))
    w.use("check_bounds", check_bounds)
    w.line(f"check_bounds({w.ref(index)}, {size}, {node.attrs['axis']})")
    w.call(w.np("add"), w.ref(index), rows, places)
    w.call(w.np("take"), w.reshape(x, (x.type.size,)), places, "0", w.out(node), "'clip'")


@emits("check")
def emit_check(w: Writer, node: Node) -> None:
    x, out = w.ref(node.inputs[0]), w.out(node)
    error = CHECKS[node.attrs["kind"]]
    w.use(error.__name__, error)
    w.line(f"if not {x}: raise {error.__name__}({node.attrs['message']!r})")
    w.call(w.np("copyto"), out, x)


def emit_kernel(w: Writer, node: Node) -> None:
    """Whatever is not specially handled: the plain kernel, its results copied into place."""
    copyto = w.np("copyto")
    apply = w.use(f"apply_{w.number[node]}", kernel_of(node))
    call = f"{apply}({', '.join(w.ref(operand) for operand in node.inputs)})"
    parts = w.placed.parts(node)
    if len(parts) == 1 and w.placed.views[node] is parts[0]:
        w.call(copyto, w.out(node), call)
        return
    names = [w.new_name(f"t{w.step}_{k}") for k in range(len(parts))]
    w.line(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {call}")
    for k, name in enumerate(names):
        w.call(copyto, w.out(node, k), name)


def kernel_of(node: Node) -> Callable[..., Any]:
    """The meaning of `node` as a function of its inputs' arrays."""
    function = KERNELS.get(node.op.name)
    if function is not None:
        return partial(function, **node.attrs)
    return lambda *arrays: run_node(node, arrays)
