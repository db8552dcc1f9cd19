"""Indexing by arrays as NumPy expressions; see straight.py and straight_ops.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.backends.numpy.kernels.index import check_bounds
from tracegrad.backends.numpy.straight_ops import FLOATS, expression, number
from tracegrad.ir.graph import Node
from tracegrad.ir.types import i64


@expression("gather")
def _gather(w: Any, node: Node) -> str | None:
    source, *indices = node.inputs
    if node.attrs.axes != (0,) or not indices[0].type.size or not indices[0].type.shape:
        return None
    signed = signed_index(node)
    if signed is not None:
        return f"{w.whole(source)}.take({w.whole(signed)}, 0)"
    index = w.whole(indices[0])
    _within(w, index, indices[0].type.dtype, source.type.shape[0], 0)
    # the bounds are checked: `clip` spares the slow checking mode of take
    return f"{w.whole(source)}.take({index}, 0, None, 'clip')"


def signed_index(gather: Node) -> Node | None:
    """i, where rows are gathered at where(i < 0, i + rows, i): NumPy wraps and checks i itself.

    An index that it refuses is refused again, and explained, by the interpreter.
    """
    size, chosen = gather.inputs[0].type.shape[0], gather.inputs[1]
    if chosen.op.name != "where" or np.intp != np.int64 or chosen.type.dtype is not i64:
        return None
    below, wrapped, index = chosen.inputs
    counted = wrapped.op.name == "add" and wrapped.inputs[0] is index
    compared = below.op.name == "lt" and below.inputs[0] is index
    if not (counted and compared):
        return None
    if _splat(wrapped.inputs[1]) != size or _splat(below.inputs[1]) != 0:
        return None
    return index


def _splat(node: Node) -> Any:
    """The number that every element of a constant is, else None."""
    while node.op.name == "broadcast_to":
        node = node.inputs[0]
    return node.attrs.value.splat if node.op.name == "constant" else None


def _within(w: Any, index: str, dtype: Any, size: int, axis: int) -> None:
    """A line that raises IndexOutOfRange unless every index is in [0, size)."""
    seen = index
    if dtype.np.kind == "i":  # negative ones are large then
        seen = f"{index}.view({w.use(np.dtype(f'u{dtype.itemsize}'))})"
    w.line(
        f"if {w.use(np.maximum.reduce)}({seen}, None) >= {size}: "
        f"{w.use(check_bounds)}({index}, {size}, {axis})"
    )


@expression("take_along")
def _take_along(w: Any, node: Node) -> str | None:
    source, index = node.inputs
    axis, shape = node.attrs.axis, index.type.shape
    if not index.type.size:
        return None
    at = w.whole(index)
    if not _sorted_order(index, axis, source.type.shape[axis]):
        _within(w, at, index.type.dtype, source.type.shape[axis], axis)
    counters = np.ogrid[tuple(map(slice, shape))]
    places = [at if k == axis else w.use(counters[k], (node, k)) for k in range(len(shape))]
    return f"{w.whole(source)}[{', '.join(places)}]"


def _sorted_order(index: Node, axis: int, size: int) -> bool:
    """Whether these places, or what they are a part of, sort an axis of this size."""
    while index.op.name == "slice":
        index = index.inputs[0]
    return (
        index.op.name == "argsort" and index.attrs.axis == axis and index.type.shape[axis] == size
    )


@expression("cross_entropy")
def _cross_entropy(w: Any, node: Node) -> str | None:
    logits, target = node.inputs
    rows, classes = logits.type.shape
    if node.type.dtype not in FLOATS or not rows or not classes:
        return None
    dtype, where = node.type.dtype.np, w.use(np.where)
    x, wanted = w.whole(logits), w.whole(target)
    zero = number(w, dtype, 0)
    integer = target.type.dtype.np
    no_row = number(w, integer, node.attrs.ignore_index)
    ignored = w.let(f"{w.use(np.equal)}({wanted}, {no_row})")
    column = w.let(f"{where}({ignored}, {number(w, integer, 0)}, {wanted})")
    _within(w, column, target.type.dtype, classes, 1)
    top = w.let(f"{w.use(np.maximum.reduce)}({x}, 1, None, None, True)")
    shift = w.let(f"{where}({w.use(np.isfinite)}({top}), {top}, {zero})")
    e = w.let(f"{w.use(np.subtract)}({x}, {shift})")
    w.line(f"{w.use(np.exp)}({e}, {e})")
    mass = w.let(f"{w.use(np.add.reduce)}({e}, 1)")
    w.line(f"{w.use(np.log)}({mass}, {mass})")
    w.line(f"{w.use(np.add)}({mass}, {shift}[:, 0], {mass})")
    picked = f"{x}[{w.use(np.arange(rows), node)}, {column}]"
    w.line(f"{w.use(np.subtract)}({mass}, {picked}, {mass})")
    return f"{where}({ignored}, {zero}, {mass})"
